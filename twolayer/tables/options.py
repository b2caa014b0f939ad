"""The keys of `data: {source: file}`, and the suffixes of table files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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


Columns = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed)]
Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class FileData(Frozen):
    """x and y are columns of a table; text is one-hot encoded."""

    source: Literal["file"]
    path: Annotated[str, Field(min_length=1)] = Field(
        description="CSV, TSV, Excel, Parquet, Arrow, JSON, npy, npz or safetensors; relative to the config's folder"
    )
    target: Annotated[Columns, Field(min_length=1)] = Field(description="the columns to predict")
    inputs: Columns | None = Field(default=None, description="the input columns; default: all others")
    exclude: Annotated[list[str], BeforeValidator(_listed)] = Field(default=[], description="columns not to use")
    missing: Literal["refuse", "mean"] = Field(
        default="refuse",
        description="missing inputs: `refuse` them, or replace them by the mean and mark them in a column of 0 and 1",
    )
    scale: bool = Field(
        default=True,
        description="scale inputs and targets to mean 0 and standard deviation 1; predictions are in original units",
    )
    separator: Literal["auto", ",", ";", "\t", "|", " "] = Field(
        default="auto", description='the character between the cells of a CSV; `" "` is any number of blanks'
    )
    decimal: Literal[".", ","] = Field(default=".", description="the decimal point of a CSV")
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
