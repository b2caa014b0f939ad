"""Files of tables as polars frames: CSV, Parquet, Arrow, NDJSON and arrays. Never imports torch."""

from __future__ import annotations

import csv
import io
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

import numpy as np
import polars as pl

from twolayer import available_memory
from twolayer.errors import DataError
from twolayer.files import unreadable
from twolayer.formatting import size
from twolayer.tables import array_files, unpacked_size
from twolayer.tables.array_files import Array
from twolayer.tables.options import TABLES
from twolayer.tables.row_errors import look, look_at_json, opened

# The texts that stand for a missing value, in every format, blanks around them aside.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null")

SEPARATORS = (",", ";", "\t", "|")
_CSV = (".csv", ".tsv", ".txt")
_JSON = (".ndjson", ".jsonl")
_PACKED = (b"\x1f\x8b", b"x\x01", b"x\x9c", b"x\xda", b"\x28\xb5\x2f\xfd")  # gzip, zlib, zstd

_PART = 2**20  # bytes that are read at a time
_SAMPLED = 100  # rows that a CSV's types are guessed from


@dataclass(frozen=True)
class Source:
    """A file that can be read: `frame` reads it when collected, `groups` are the arrays that hold several columns.

    `raw` is set for a CSV, whose frame is all text; `guessed` says that `collect` is to find the types. `path` is the
    file of a frame that polars itself reads.
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
    decimal: str = ".",
    text: bool = False,
    named: Sequence[str] | None = None,
) -> Source:
    """The file as a frame that is read when it is collected (by `collect` or `batches`).

    The suffix says what it is; "-" is a CSV on stdin. `collect` gives the columns of a CSV the types that its rows
    show, or with `text` all are text, exactly as it stands there. Where the path leads over a symbolic link, the file
    must have one of the columns `named`, unless that is None: else it may be any file, and no error tells what is in
    it. Raises DataError.
    """
    raw: Path | bytes = _stdin(name) if path == "-" else Path(path)
    if isinstance(raw, bytes):
        return _opened(raw, name, ".csv", separator, decimal, text=text)
    _check_file(raw, name)
    suffix = _suffix(raw, name)
    if named is None or not any(part.is_symlink() for part in (raw, *raw.parents)):
        return _opened(raw, name, suffix, separator, decimal, text=text)
    # The link may lead to any file of this user, whose text no message may tell.
    try:
        source = _opened(raw, name, suffix, separator, decimal, text=text)
    except DataError:
        raise DataError(f"{name}: is a link, and the file that it leads to cannot be read as a table") from None
    is_alone = source.raw is not None and len(source.names) == 1  # as any text is
    if is_alone or not {*source.names, *source.groups} & set(named):
        lacking = "has one column only" if is_alone else "has no column of the names that are given"
        raise DataError(f"{name}: is a link, and its file {lacking}; to see its columns, give the file itself")
    return source


def _stdin(name: str) -> bytes:
    """All that comes on stdin. Raises DataError where that is more than there is memory for."""
    parts, size, free = [], 0, available_memory.available()
    while part := sys.stdin.buffer.read(_PART):
        parts.append(part)
        size += len(part)
        _check_size(2 * size, name, free)  # the parts, and the whole
    return b"".join(parts)


def _opened(raw: Path | bytes, name: str, suffix: str, separator: str, decimal: str, *, text: bool) -> Source:
    with reworded(name):
        if suffix in _CSV or isinstance(raw, bytes):
            return _open_csv(raw, name, separator, decimal, text=text)
        if suffix in array_files.SUFFIXES:
            return _open_arrays(raw, name, suffix)
        if suffix in _JSON:
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
        raise DataError(f"{name}: {unreadable(error)}") from None
    if not S_ISREG(mode):
        raise DataError(f"{name}: is {'a folder' if S_ISDIR(mode) else 'no file that can be read twice'}")


def _suffix(path: Path, name: str) -> str:
    """The file's suffix, that of what is inside where it is compressed. Raises DataError for one that is no table's."""
    lower = path.name.lower()
    if not lower.endswith(TABLES):
        raise DataError(f"{name}: the format is told by the suffix, one of {' '.join(TABLES)}")
    return Path(lower.removesuffix(".gz")).suffix


@contextmanager
def reworded(name: str) -> Iterator[None]:
    """Tell what polars and the system raise as a DataError of one line."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pl.exceptions.PolarsError) as error:
        raise DataError(f"{name}: {unreadable(error)}") from None
    except pl.exceptions.PanicException as error:
        raise DataError(f"{name}: is damaged: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def collect(source: Source, columns: Sequence[str]) -> pl.DataFrame:
    """The columns, in memory, without blank lines; the types of a CSV come of all its rows. Raises DataError."""
    _check_memory(source, columns)
    if source.raw is None:
        with reworded(source.name):
            return source.frame.select(columns).collect()
    problem = None
    for way in _ways(source, columns):
        try:
            with reworded(source.name):
                # All columns: polars counts a row's cells only where it reads them all.
                frame = way.collect()
            break
        except DataError as error:
            problem = error
    else:
        raise _explained(source, problem)
    # Polars fills up short rows, and takes a blank line for one; their last column is what tells them.
    if frame[source.names[-1]].null_count():
        frame = _without(frame, _blank_lines(source))
    return frame.select(columns)


def batches(source: Source, columns: Sequence[str], size: int) -> Iterator[pl.DataFrame]:
    """The columns, up to `size` rows at a time, a CSV's as text and without blank lines. Raises DataError."""
    frame = source.frame if source.raw is not None else source.frame.select(columns)
    blank: Array | None = None
    first = 0
    parts = frame.collect_batches(chunk_size=size, maintain_order=True)
    while True:
        try:
            with reworded(source.name):
                part = next(parts, None)
        except DataError as error:
            raise _explained(source, error) from None
        if part is None:
            break
        end = first + part.height
        if source.raw is not None and part[source.names[-1]].null_count():
            blank = _blank_lines(source) if blank is None else blank
            part = _without(part, blank[(blank >= first) & (blank < end)] - first)
        first = end
        yield part.select(columns)
    # Where polars fails inside one of its threads, the parts end as if there were no more.
    if source.path is not None and source.path.suffix.lower() not in _JSON and first != (rows := _rows(source)):
        raise DataError(f"{source.name}: is damaged: of its {rows} rows only {first} could be read")


def _rows(source: Source) -> int:
    """How many rows a Parquet or an Arrow file has, by its metadata. Raises DataError."""
    with reworded(source.name):
        return int(source.frame.select(pl.len()).collect().item())


def _check_size(need: int, name: str, free: int | None = None) -> None:
    """Raise DataError, with both sizes, for a table that needs at least `need` bytes, where there are fewer."""
    free = available_memory.available() if free is None else free
    if free is not None and need > free:
        raise DataError(f"{name}: needs at least {size(need)} of memory, and {size(free)} is available")


def _check_memory(source: Source, columns: Sequence[str]) -> None:
    """Raise DataError where the columns cannot fit into memory, before any is taken. Arrays are looked at as they are
    opened.
    """
    free = available_memory.available()
    if free is None:
        return
    need = 0
    with reworded(source.name):
        if isinstance(source.raw, Path):
            need = unpacked_size.csv_bytes(source.raw, len(source.names), free)
        elif source.path is not None and source.path.suffix.lower() in _JSON:
            need = unpacked_size.ndjson_bytes(source.path, len(columns), free)
        elif source.path is not None:
            schema = source.frame.collect_schema()
            need = _rows(source) * sum(
                count * _width(dtype) for dtype, count in Counter(schema[c] for c in columns).items()
            )
    _check_size(need, source.name, free)


def _width(dtype: pl.DataType) -> int:
    """The bytes that a cell takes in a frame, at the least; of text without its letters, which cells may share."""
    if dtype in (pl.String, pl.Binary):
        return 16
    return int(pl.Series([None] * 64, dtype=dtype).estimated_size()) // 64


def _without(frame: pl.DataFrame, rows: Array) -> pl.DataFrame:
    """The frame without these rows, counted from 0."""
    if not len(rows):
        return frame
    kept = np.ones(frame.height, dtype=bool)
    kept[rows] = False
    return frame.filter(pl.Series(kept))


def _explained(source: Source, problem: DataError | None) -> DataError:
    """What to raise where polars has failed: the place of the damage, where that can be found."""
    damage = "" if source.raw is None else look(source.raw, source.separator, source.names, failed=True)[0]
    return DataError(f"{source.name}: {damage or 'cannot be read'}") if damage or problem is None else problem


def _blank_lines(source: Source) -> Array:
    """Which rows of a CSV, as polars counts them from 0, are blank lines. Raises DataError for a damaged row."""
    if source.raw is None:
        return np.array([], dtype=np.int64)
    damage, blank = look(source.raw, source.separator, source.names)
    if damage:
        raise DataError(f"{source.name}: {damage}")
    return np.array(blank, dtype=np.int64)


# --- CSV


def _open_csv(raw: Path | bytes, name: str, separator: str, decimal: str, *, text: bool) -> Source:
    with opened(raw) as file:
        start = file.read(1 << 16)
        if not start.strip():
            raise DataError(f"{name}: is empty")
        if separator == "auto":
            separator = _separator(start, decimal)
        file.seek(0)
        try:
            header = next(row for row in csv.reader(file, delimiter=separator) if row)
        except (csv.Error, StopIteration) as error:
            if "new-line" in str(error):
                raise DataError(f"{name}: its lines end in CR alone; save it with the line ends LF or CR LF") from None
            raise DataError(f"{name}: the first line holds no columns' names") from None
    if any("\udc80" <= letter <= "\udcff" for letter in "".join(header)):
        raise DataError(f"{name}: is not UTF-8, in its first line")
    _refuse_twice(name, header)
    if decimal == "," and separator == ",":
        raise DataError(f'{name}: the separator cannot be "," where the decimal is')
    frame = _scan_csv(raw, separator, infer_schema=False)
    if (found := frame.collect_schema().names()) != header:
        odd = next((theirs for theirs, ours in zip(found, header, strict=False) if theirs != ours), "")
        raise DataError(f"{name}: the first line has quotes or line ends that are unclear, at {odd[:40]!r}")
    return Source(name, frame, tuple(header), raw=raw, separator=separator, guessed=not text and decimal == ".")


def _ways(source: Source, columns: Sequence[str]) -> Iterator[pl.LazyFrame]:
    """Frames of a CSV, each for where those before it fail."""
    if source.raw is not None and source.guessed:
        # The first rows tell the types, and mislead where there is other text further down, which most often stands
        # for a missing value. To look for those from the start would take a quarter longer.
        chosen = set(columns)
        others = {column: pl.String for column in source.names if column not in chosen}
        for marks in (None, list(MISSING)):
            yield _scan_csv(
                source.raw,
                source.separator,
                infer_schema_length=_SAMPLED,
                schema_overrides=others or None,
                null_values=marks,
            )
    yield source.frame


def _refuse_twice(name: str, columns: Sequence[str]) -> None:
    if twice := [column for column, count in Counter(columns).items() if count > 1]:
        shown = ", ".join(twice[:10]) + (f" and {len(twice) - 10} more" if len(twice) > 10 else "")
        raise DataError(f"{name}: every column needs a name of its own, and there are several of: {shown}")


def _scan_csv(raw: Path | bytes, separator: str, **options: Any) -> pl.LazyFrame:
    source = raw if isinstance(raw, Path) else io.BytesIO(raw)
    return pl.scan_csv(source, separator=separator, glob=False, **options)


def _separator(start: str, decimal: str) -> str:
    """The separator that stands most often in the first line, outside of quotes; the comma where there is none."""
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
        if file.read(4).startswith(_PACKED):  # polars would unpack it, however much that is
            raise DataError(f"{name}: is compressed, which of text only a CSV may be; unpack it")
    frame = pl.scan_ndjson(path, infer_schema_length=None)
    try:
        with reworded(name):
            frame.collect_schema()
    except DataError as problem:
        raise DataError(f"{name}: {damage}") if (damage := look_at_json(path)) else problem from None
    return frame


# --- arrays


def _open_arrays(path: Path, name: str, suffix: str) -> Source:
    try:
        pieces = array_files.frames(path, suffix, lambda need: _check_size(need, name))
    except ValueError as error:
        raise DataError(f"{name}: {unreadable(error)}") from None
    heights = {key: piece.height for key, piece in pieces.items()}
    if len(set(heights.values())) > 1:
        told = ", ".join(f"{key} has {height}" for key, height in islice(heights.items(), 5))
        raise DataError(f"{name}: the arrays must have the same number of rows: {told}")
    groups = {key: tuple(piece.columns) for key, piece in pieces.items() if piece.columns != [key]}
    names = [column for piece in pieces.values() for column in piece.columns]
    _refuse_twice(name, names)
    frame = pl.concat(pieces.values(), how="horizontal")
    return Source(name, frame.lazy(), tuple(names), groups)
