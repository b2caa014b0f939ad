"""Frames -> CSV or NDJSON, in parts of bytes, and Parquet or Arrow, into a file; a frame at a time."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import BinaryIO, Literal, TypeAlias

import polars as pl
from polars.io.plugins import register_io_source

from twolayer.errors import DataError
from twolayer.tables.formulas import quoted

Format: TypeAlias = Literal["csv", "tsv", "ndjson", "parquet", "arrow"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}  # by suffix


def check_writable(schema: pl.Schema, form: Format, name: str) -> None:
    """Raise DataError if the file called `name` has columns that a CSV cannot hold."""
    for column, dtype in schema.items() if form in ("csv", "tsv") else ():
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            what = str(dtype).partition("(")[0]
            raise DataError(f"{name}: column {column} holds {what}, which a CSV cannot hold; use --format ndjson")


def parts(frames: Iterable[pl.DataFrame], schema: pl.Schema, form: Format) -> Iterator[bytes]:
    """The frames as a CSV with a header, or as NDJSON. No text in a CSV is a formula.

    Nothing is yielded before the first frame is there: with an error in its rows there is no header either.
    """
    if form == "ndjson":
        for frame in frames:
            yield frame.write_ndjson().encode()
        return
    separator = "\t" if form == "tsv" else ","
    names = pl.Series(schema.names(), dtype=pl.String).to_frame("name").select(quoted("name")).to_series()
    frames = iter(frames)
    first = list(islice(frames, 1))
    yield _line(names.to_list(), separator)
    texts = [name for name, dtype in schema.items() if dtype in (pl.String, pl.Categorical, pl.Enum)]
    for frame in chain(first, frames):
        safe = frame.with_columns(quoted(name) for name in texts)
        yield safe.write_csv(include_header=False, separator=separator).encode()


def sink(frames: Iterable[pl.DataFrame], schema: pl.Schema, form: Format, file: BinaryIO) -> int:
    """Write the frames into a file, one at a time; the number of rows. Raises OSError."""
    written = 0

    def counted() -> Iterator[pl.DataFrame]:
        nonlocal written
        for frame in frames:
            written += frame.height
            yield frame

    if form in ("parquet", "arrow"):
        frame = register_io_source(lambda *_: counted(), schema=dict(schema))
        try:
            (frame.sink_parquet if form == "parquet" else frame.sink_ipc)(file)
        except pl.exceptions.PolarsError as error:  # exceptions of the frames themselves are not changed
            number = re.search(r"os error ([0-9]+)", str(error))
            if number is None:
                raise OSError(str(error).partition("\n")[0]) from None
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from None
        return written
    for part in parts(counted(), schema, form):
        file.write(part)
    return written


def _line(cells: Sequence[str], separator: str) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, lineterminator="\r\n")  # with this line end it quotes a CR as well
    writer.writerow(cells)
    return buffer.getvalue().removesuffix("\r\n").encode() + b"\n"
