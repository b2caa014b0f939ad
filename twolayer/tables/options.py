"""The keys of `data: {source: file}`, and the suffixes of table files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

SEPARATORS = (",", ";", "\t", "|")
TEXTS = (".csv", ".tsv", ".txt", ".ndjson", ".jsonl")
PACKINGS = (".gz", ".zst", ".bz2", ".xz", ".zip")
ARRAYS = (".npy", ".npz", ".safetensors")
EXCEL = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")

# The key `header`, as it is kept with a model.
Header: TypeAlias = Literal["auto", "first", "none"] | tuple[str, ...]

# The suffixes of table files. (One of `.json` may be a table, too: `is_table` looks into it.)
TABLES = (
    *TEXTS,
    *(text + packing for text in TEXTS for packing in PACKINGS),
    ".zip",
    *(".parquet", ".arrow", ".feather", ".ipc", *EXCEL, *ARRAYS),
)


def is_table(source: str | os.PathLike[str]) -> bool:
    """Whether a path given as a config is a table: by its suffix, a `.json` by its first characters."""
    path = os.fspath(source)
    return path.lower().endswith(TABLES) or (path.lower().endswith(".json") and _is_json_table(path))


def _is_json_table(path: str) -> bool:
    """Whether a JSON file is an array, or has an object a line; a config is one object."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    except (OSError, ValueError):
        return False
    first, _, rest = start.partition(b"\n")
    is_line = first.startswith(b"{") and first.rstrip().endswith(b"}")
    return start.startswith(b"[") or (is_line and rest.lstrip().startswith(b"{"))


def extra_of(path: str) -> str:
    """The extra whose packages read a table."""
    return "excel" if path.lower().endswith(EXCEL) else "data"


def table_suffix(name: str) -> str | None:
    """The suffix of a table's name in lower case, without that of a compression; None if it is not a table's.

    It is `.zip` for an archive whose name does not say what is inside.
    """
    lower = name.lower()
    if not lower.endswith((*TABLES, ".json")):
        return None
    for packing in PACKINGS:
        if lower.endswith(packing):
            return next((text for text in TEXTS if lower.endswith(text + packing)), packing)
    return Path(lower).suffix


class Frozen(BaseModel):
    """A model that cannot be changed and refuses unknown keys and other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _listed(value: object) -> object:
    """A single name as a list."""
    return [value] if isinstance(value, str) else value


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _path(value: object) -> str:
    """A path. Its bytes that are not UTF-8 are lone surrogates, as in all of Python; pydantic's str refuses them."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a path")
    return value


TablePath = Annotated[str, PlainValidator(_path, json_schema_input_type=Annotated[str, Field(min_length=1)])]
_Name = Annotated[str, Field(min_length=1)]
# Names of columns. Also a text: one name, or several with commas between them (`split_names`).
Columns = Annotated[list[_Name], BeforeValidator(_listed, json_schema_input_type=_Name | list[_Name])]
Texts = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
Names = Annotated[list[_Name], Field(min_length=1)]
# Texts that may look like numbers in YAML: -999 is the text "-999".
Marks = Annotated[list[str], BeforeValidator(lambda value: [_as_text(one) for one in _as_list(value)])]
COLUMN_LISTS = ("target", "inputs", "exclude", "categories", "numbers")  # the keys that are lists of columns


def split_names(texts: Iterable[str], columns: Collection[str]) -> list[str]:
    """The names in texts of names with commas between them; a text that is itself the name of a column stays whole."""
    found: list[str] = []
    for text in texts:
        is_one = "," not in text or text in columns
        found += [text] if is_one else [part for name in text.split(",") if (part := name.strip())]
    return list(dict.fromkeys(found))


class FileData(Frozen):
    """x and y are columns of a table; text is one-hot encoded."""

    source: Literal["file"] = "file"
    path: TablePath = Field(
        description="CSV, TSV, Excel, Parquet, Arrow, JSON, npy, npz or safetensors; relative to the config's folder"
    )
    target: Annotated[
        list[_Name],
        Field(min_length=1),
        BeforeValidator(_listed, json_schema_input_type=_Name | Annotated[list[_Name], Field(min_length=1)]),
    ] = Field(description="the columns to predict")
    inputs: Columns | None = Field(default=None, description="the input columns; default: all others")
    exclude: Texts = Field(default=[], description="columns not to use")
    categories: Texts = Field(default=[], description="columns, also of numbers, whose values are categories")
    numbers: Texts = Field(
        default=[], description="columns of digits, such as 007, that are numbers though they look like codes"
    )
    missing: Literal["refuse", "mean"] = Field(
        default="mean",
        description="missing inputs: replace them by the mean and mark them in a column of 0 and 1, or `refuse` them",
    )
    na: Marks = Field(default=[], description="texts that stand for a missing value, beside the usual ones")
    strict: bool = Field(
        default=False, description="refuse columns that cannot help, and rows without a target, rather than omit them"
    )
    scale: Literal["numbers"] | bool = Field(
        default="numbers",
        description="scale inputs and targets to mean 0 and standard deviation 1 (`numbers`: columns of 0 and 1 for "
        "categories to mean 0 only; true: all); predictions are in original units",
    )
    stratify: bool = Field(
        default=True, description="draw validation rows and folds by class, if classes are predicted"
    )
    separator: Literal["auto", ",", ";", "\t", "|", " "] = Field(
        default="auto", description='the character between the cells of a CSV; `" "` is any number of blanks'
    )
    header: Literal["auto", "first", "none"] | Names = Field(
        default="auto",
        description=(
            "the names of the columns: the `first` line; `none` (they are 0, 1, ...); or a list of names; `auto`: the "
            "first line, unless it looks like a row of data"
        ),
    )
    sheet: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="the sheet of an Excel file; default: the only one that is not empty"
    )
    decimal: Literal["auto", ".", ","] = Field(
        default="auto", description="the decimal point of numbers in text; `auto` finds it in each column"
    )
    thousands: Literal["auto", "none", ",", ".", "'", " ", "_"] = Field(
        default="auto", description="the sign between thousands of numbers in text; `auto` finds it in each column"
    )
    date_order: Literal["auto", "dmy", "mdy", "ymd"] = Field(
        default="auto", description="the order of day, month and year in text; `auto` finds it in each column"
    )
