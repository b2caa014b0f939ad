"""Files of tables, opened as lazy frames: CSV, Parquet, Arrow, NDJSON and arrays."""

from __future__ import annotations

import csv
import io
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

import polars as pl

from twolayer import available_memory
from twolayer.errors import DataError
from twolayer.files import reason, unreadable
from twolayer.formatting import size
from twolayer.tables import array_files
from twolayer.tables.options import TABLES
from twolayer.tables.row_errors import (
    MAX_LINE,
    Lines,
    LineTooLongError,
    as_text,
    check_lines,
    check_ndjson,
    not_utf8,
    opened,
)
from twolayer.tables.unpacked_size import DEFLATED

# The texts that stand for a missing value, in every format, blanks around them aside.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null")

SEPARATORS = (",", ";", "\t", "|")
_CSV_SUFFIXES = (".csv", ".tsv", ".txt")
JSON_SUFFIXES = (".ndjson", ".jsonl")
_PACKED = (b"\x1f\x8b", b"x\x01", b"x\x9c", b"x\xda", b"\x28\xb5\x2f\xfd")  # gzip, zlib, zstd


_PART = 2**20  # bytes that are read at a time


@dataclass(frozen=True)
class Source:
    """A table that has been opened: `frame` reads it when collected; `groups` are the arrays with several columns.

    `raw` is set for a CSV, whose frame is all text; `guessed` says that `collect` finds the types. `path` is set for a
    file that polars itself opens.
    """

    name: str
    frame: pl.LazyFrame
    names: tuple[str, ...]
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    raw: Path | bytes | None = None
    separator: str = ","
    guessed: bool = False
    path: Path | None = None


def open_table(
    path: Path | str,
    name: str,
    *,
    separator: str = "auto",
    decimal: str = "auto",
    text: bool = False,
    named: Sequence[str] | None = None,
) -> Source:
    """Open a table; its rows are read by `readers.collect` or `readers.batches`.

    The suffix gives the format; "-" is a CSV on stdin. `collect` finds the types of a CSV's columns; with `text` all
    of them stay text, exactly as in the file. If part of the path is a symbolic link, the file must have one of the
    columns `named` (unless that is None): the link may lead to any file, and no error may show what is in it.
    Raises DataError.
    """
    raw: Path | bytes = _stdin(name) if path == "-" else Path(path)
    if isinstance(raw, bytes):
        return _opened(raw, name, ".csv", separator, decimal, text=text)
    _check_file(raw, name)
    suffix = _suffix(raw, name)
    is_linked = any(part.is_symlink() for part in (raw, *raw.parents))
    raw = _utf8_path(raw, name)
    if named is None or not is_linked:
        return _opened(raw, name, suffix, separator, decimal, text=text)
    # The link may lead to any file of this user; no message may show its text.
    try:
        source = _opened(raw, name, suffix, separator, decimal, text=text)
    except DataError:
        raise DataError(f"{name}: is a link, and the file that it leads to cannot be read as a table") from None
    is_alone = source.raw is not None and len(source.names) == 1  # as any text is
    if is_alone or not {*source.names, *source.groups} & set(named):
        lacking = "has one column only" if is_alone else "has none of the columns that are named"
        raise DataError(f"{name}: is a link, and its file {lacking}; to see its columns, name the file itself")
    return source


def _utf8_path(path: Path, name: str) -> Path:
    """The path, or, where it is not UTF-8, which polars requires, that of a descriptor; it stays open."""
    if _is_utf8(path):
        return path
    try:
        return Path(f"/dev/fd/{os.open(path, os.O_RDONLY | os.O_CLOEXEC)}")
    except OSError as error:
        raise DataError(f"{name}: {unreadable(error)}") from None


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _stdin(name: str) -> bytes:
    """All of stdin. Raises DataError if that is more than the available memory."""
    parts, length, free = [], 0, available_memory.available()
    while part := sys.stdin.buffer.read(_PART):
        parts.append(part)
        length += len(part)
        check_size(2 * length, name, free)  # the parts, and the whole
    return b"".join(parts)


def _opened(raw: Path | bytes, name: str, suffix: str, separator: str, decimal: str, *, text: bool) -> Source:
    with reworded(name):
        if suffix in _CSV_SUFFIXES or isinstance(raw, bytes):
            return _open_csv(raw, name, separator, decimal, text=text)
        if suffix in array_files.SUFFIXES:
            return _open_arrays(raw, name, suffix)
        if suffix in JSON_SUFFIXES:
            frame = _scan_json(raw, name)
        else:
            frame = pl.scan_parquet(raw, glob=False) if suffix == ".parquet" else pl.scan_ipc(raw, glob=False)
        names = tuple(frame.collect_schema().names())
    if not names:
        raise DataError(f"{name}: has no columns")
    return Source(name, frame, names, path=raw)


def _check_file(path: Path, name: str) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be read: {reason(error)}") from None
    if not S_ISREG(mode):
        raise DataError(f"{name}: is {'a folder' if S_ISDIR(mode) else 'not a regular file, which can be read twice'}")


def _suffix(path: Path, name: str) -> str:
    """The file's suffix without `.gz`. Raises DataError for one that is not a table's."""
    lower = path.name.lower()
    if not lower.endswith(TABLES):
        raise DataError(f"{name}: the suffix must be one of {' '.join(TABLES)}")
    return Path(lower.removesuffix(".gz")).suffix


@contextmanager
def reworded(name: str) -> Iterator[None]:
    """Inside, errors of polars and of the system become a DataError of one line."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pl.exceptions.PolarsError) as error:
        raise DataError(f"{name}: {unreadable(error)}") from None
    except pl.exceptions.PanicException as error:
        raise DataError(f"{name}: is damaged: {str(error).partition(chr(10))[0][:200]}") from None


def check_size(need: int, name: str, free: int | None = None) -> None:
    """Raise DataError, with both sizes, if a table that needs at least `need` bytes does not fit into memory."""
    free = available_memory.available() if free is None else free
    if free is not None and need > free:
        raise DataError(f"{name}: needs at least {size(need)} of memory, and {size(free)} is available")


# --- CSV


def _open_csv(raw: Path | bytes, name: str, separator: str, decimal: str, *, text: bool) -> Source:
    with opened(raw) as file:
        start = as_text(file.read(1 << 16), is_start=True)
        if not start.strip():
            raise DataError(f"{name}: is empty")
        if separator == "auto":
            separator = _separator(start, decimal)
        file.seek(0)
        try:
            header = next(row for row in csv.reader(Lines(file), delimiter=separator) if row)
        except LineTooLongError as error:
            raise DataError(f"{name}: {error}") from None
        except (csv.Error, StopIteration) as error:
            if "new-line" in str(error):
                raise DataError(f"{name}: its lines end in CR alone; save it with LF or CR LF") from None
            raise DataError(f"{name}: the first line has no column names") from None
    if not_utf8("".join(header)):
        raise DataError(f"{name}: is not UTF-8, in its first line")
    _refuse_twice(name, header)
    if decimal == "," and separator == ",":
        raise DataError(f'{name}: the separator and the decimal point cannot both be ","')
    _check_lines(raw, name)
    frame = scan_csv(raw, separator, infer_schema=False)
    if (found := frame.collect_schema().names()) != header:
        odd = next((theirs for theirs, ours in zip(found, header, strict=False) if theirs != ours), "")
        raise DataError(f"{name}: the first line has quotes or line breaks that are ambiguous, at {odd[:40]!r}")
    return Source(name, frame, tuple(header), raw=raw, separator=separator, guessed=not text and decimal != ",")


def _check_lines(raw: Path | bytes, name: str) -> None:
    """Raise DataError if a line is too long: polars would read all of it, and may abort for lack of memory."""
    is_packed = isinstance(raw, Path) and raw.suffix.lower() == ".gz"
    length = raw.stat().st_size if isinstance(raw, Path) else len(raw)
    if length * (DEFLATED if is_packed else 1) <= MAX_LINE:
        return
    try:
        with opened(raw) as file:
            check_lines(file)
    except LineTooLongError as error:
        raise DataError(f"{name}: {error}") from None


def _refuse_twice(name: str, columns: Sequence[str]) -> None:
    if twice := [column for column, count in Counter(columns).items() if count > 1]:
        shown = ", ".join(twice[:10]) + (f" and {len(twice) - 10} more" if len(twice) > 10 else "")
        raise DataError(f"{name}: several columns have the same name: {shown}")


def scan_csv(raw: Path | bytes, separator: str, **options: Any) -> pl.LazyFrame:
    """A CSV as a lazy frame; the options are those of `polars.scan_csv`."""
    source = raw if isinstance(raw, Path) else io.BytesIO(raw)
    return pl.scan_csv(source, separator=separator, glob=False, **options)


def _separator(start: str, decimal: str) -> str:
    """The separator that is most frequent in the first line, outside quotes; the comma if there is none."""
    line: list[str] = []
    quoted = False
    for letter in start:
        if letter == '"':
            quoted = not quoted
        elif not quoted:
            if letter in "\r\n" and line:
                break
            line.append(letter)
    return max((s for s in SEPARATORS if s != decimal), key=line.count)


# --- NDJSON


def _scan_json(path: Path, name: str) -> pl.LazyFrame:
    with path.open("rb") as file:
        if file.read(4).startswith(_PACKED):  # polars would unpack it, whatever its size
            raise DataError(f"{name}: is compressed; of the text formats only CSV may be; unpack it")
    _check_lines(path, name)
    frame = pl.scan_ndjson(path, infer_schema_length=None)
    try:
        with reworded(name):
            frame.collect_schema()
    except DataError as problem:
        raise DataError(f"{name}: {damage}") if (damage := check_ndjson(path)) else problem from None
    return frame


# --- arrays


def _open_arrays(path: Path, name: str, suffix: str) -> Source:
    try:
        pieces = array_files.frames(path, suffix, lambda need: check_size(need, name))
    except ValueError as error:
        raise DataError(f"{name}: {unreadable(error)}") from None
    heights = {key: piece.height for key, piece in pieces.items()}
    if len(set(heights.values())) > 1:
        listed = ", ".join(f"{key} has {height}" for key, height in islice(heights.items(), 5))
        raise DataError(f"{name}: the arrays must have the same number of rows: {listed}")
    groups = {key: tuple(piece.columns) for key, piece in pieces.items() if piece.columns != [key]}
    names = [column for piece in pieces.values() for column in piece.columns]
    _refuse_twice(name, names)
    frame = pl.concat(pieces.values(), how="horizontal")
    return Source(name, frame.lazy(), tuple(names), groups)
