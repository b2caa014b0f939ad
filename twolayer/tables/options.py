"""The keys of `data: {source: file}`, and the suffixes of table files."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# The files that are tables, by the ends of their names.
TABLES = (
    *(".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz"),
    *(".parquet", ".arrow", ".feather", ".ipc", ".ndjson", ".jsonl", ".npy", ".npz", ".safetensors"),
)


def is_table(source: str | os.PathLike[str]) -> bool:
    """Whether what stands in a config's place is a table itself."""
    return os.fspath(source).lower().endswith(TABLES)


class Frozen(BaseModel):
    """A model that cannot be changed, and takes no other keys and no other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _listed(value: object) -> object:
    """One column is a list of one."""
    return [value] if isinstance(value, str) else value


Columns = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed)]


class FileData(Frozen):
    """x and y are columns of a table: numbers as they are, text one-hot encoded."""

    source: Literal["file"]
    path: Annotated[str, Field(min_length=1)] = Field(
        description="CSV, TSV, Parquet, Arrow, NDJSON, npy, npz or safetensors; relative to the config's folder"
    )
    target: Annotated[Columns, Field(min_length=1)] = Field(description="the columns to predict")
    inputs: Columns | None = Field(default=None, description="the columns to predict from; all others, unless given")
    exclude: Annotated[list[str], BeforeValidator(_listed)] = Field(default=[], description="columns to leave out")
    missing: Literal["refuse", "mean"] = Field(
        default="refuse", description="what to do with missing inputs; `mean` adds a column that tells where they were"
    )
    scale: bool = Field(
        default=True, description="train on inputs and targets of mean 0 and deviation 1; the model keeps both"
    )
    separator: Literal["auto", ",", ";", "\t", "|"] = Field(default="auto", description="between the cells of a CSV")
    decimal: Literal[".", ","] = Field(default=".", description="the decimal point of a CSV")
