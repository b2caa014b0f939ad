"""The keys of `data: {source: file}`, and the suffixes of table files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

# The suffixes of table files.
TABLES = (
    *(".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz"),
    *(".parquet", ".arrow", ".feather", ".ipc", ".ndjson", ".jsonl", ".npy", ".npz", ".safetensors"),
)


def is_table(source: str | os.PathLike[str]) -> bool:
    """Whether a path given as a config is a table."""
    return os.fspath(source).lower().endswith(TABLES)


class Frozen(BaseModel):
    """A model that cannot be changed and refuses unknown keys and other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _listed(value: object) -> object:
    """A single name as a list."""
    return [value] if isinstance(value, str) else value


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
COLUMN_LISTS = ("target", "inputs", "exclude", "categories")  # the keys that are lists of columns


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
        description="CSV, TSV, Parquet, Arrow, NDJSON, npy, npz or safetensors; relative to the config's folder"
    )
    target: Annotated[
        list[_Name],
        Field(min_length=1),
        BeforeValidator(_listed, json_schema_input_type=_Name | Annotated[list[_Name], Field(min_length=1)]),
    ] = Field(description="the columns to predict")
    inputs: Columns | None = Field(default=None, description="the input columns; default: all others")
    exclude: Texts = Field(default=[], description="columns not to use")
    categories: Texts = Field(default=[], description="columns, also of numbers, whose values are categories")
    missing: Literal["refuse", "mean"] = Field(
        default="mean",
        description="missing inputs: replace them by the mean and mark them in a column of 0 and 1, or `refuse` them",
    )
    na: Texts = Field(default=[], description="texts that stand for a missing value, beside the usual ones")
    strict: bool = Field(
        default=False, description="refuse columns that cannot help, and rows without a target, rather than omit them"
    )
    scale: bool = Field(
        default=True,
        description="scale inputs and targets to mean 0 and standard deviation 1; predictions are in original units",
    )
    stratify: bool = Field(
        default=True, description="draw validation rows and folds by class, if classes are predicted"
    )
    separator: Literal["auto", ",", ";", "\t", "|"] = Field(
        default="auto", description="the character between the cells of a CSV"
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
