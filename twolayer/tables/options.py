"""The keys of `data: {source: file}`, and the suffixes of table files."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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


Columns = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed)]


class FileData(Frozen):
    """x and y are columns of a table; text is one-hot encoded."""

    source: Literal["file"]
    path: Annotated[str, Field(min_length=1)] = Field(
        description="CSV, TSV, Parquet, Arrow, NDJSON, npy, npz or safetensors; relative to the config's folder"
    )
    target: Annotated[Columns, Field(min_length=1)] = Field(description="the columns to predict")
    inputs: Columns | None = Field(default=None, description="the input columns; default: all others")
    exclude: Annotated[list[str], BeforeValidator(_listed)] = Field(default=[], description="columns not to use")
    missing: Literal["refuse", "mean"] = Field(
        default="refuse",
        description="missing inputs: `refuse` them, or replace them by the mean and mark them in a column of 0 and 1",
    )
    scale: Literal["numbers"] | bool = Field(
        default="numbers",
        description="scale inputs and targets to mean 0 and standard deviation 1 (`numbers`: columns of 0 and 1 for "
        "categories to mean 0 only; true: all); predictions are in original units",
    )
    separator: Literal["auto", ",", ";", "\t", "|"] = Field(
        default="auto", description="the character between the cells of a CSV"
    )
    decimal: Literal[".", ","] = Field(default=".", description="the decimal point of a CSV")
