"""Files of tables, opened as lazy frames: CSV, Parquet, Arrow, NDJSON and arrays."""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TypeAlias

import polars as pl

from twolayer.errors import DataError, MissingFileError
from twolayer.files import reason, unreadable
from twolayer.system import available_memory
from twolayer.system.names import path_in_utf8
from twolayer.tables import array_files, json_files
from twolayer.tables.csv_layout import CsvLayout, find_layout, scan_csv
from twolayer.tables.excel import read_sheet
from twolayer.tables.file_checks import check_size, reworded
from twolayer.tables.file_kind import PACKED, REFUSED, Kind, about_url, format_of, kind_of, url_of
from twolayer.tables.headers import about_width, cleaned, refuse_data, refuse_twice
from twolayer.tables.options import TABLES, Header, table_suffix
from twolayer.tables.row_errors import opened
from twolayer.tables.unpacking import unpacked

# The texts that stand for a missing value, in every format, blanks around them aside.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null")

_PART = 2**20  # bytes that are read at a time
_START = 4096  # bytes that show what a file is

Raw: TypeAlias = Path | bytes


@dataclass(frozen=True)
class Reading:
    """How the text of a file becomes cells: the keys of `data` that say so, as they are or as they were found."""

    separator: str = "auto"
    decimal: str = "auto"
    header: Header = "auto"
    sheet: str | None = None


@dataclass(frozen=True)
class Source:
    """A table that has been opened: `frame` reads it when collected; `groups` are the arrays with several columns.

    `csv` is set for a CSV, whose frame is all text; `guessed` says that `collect` finds the types, and `is_quoted` that
    text loses the quotes of `formulas`. `ndjson` and `binary` are what polars reads itself. `reading` is how to read
    the next file of this kind, and `takes` has those keys of it that only some formats have a use for. `notes` are for
    the user, a sentence each.
    """

    name: str
    frame: pl.LazyFrame
    names: tuple[str, ...]
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    csv: CsvLayout | None = None
    guessed: bool = False
    is_quoted: bool = True
    ndjson: Raw | None = None
    binary: Raw | None = None
    reading: Reading = Reading()
    takes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def raw(self) -> Raw | None:
        """The text of a CSV; None for other formats, whose cells have types."""
        return self.csv.raw if self.csv is not None else None

    @property
    def separator(self) -> str:
        """The separator of a CSV."""
        return self.csv.separator if self.csv is not None else ","


def open_table(
    path: Path | str,
    name: str,
    *,
    separator: str = "auto",
    decimal: str = "auto",
    header: str | Sequence[str] = "auto",
    sheet: str | None = None,
    text: bool = False,
    named: Sequence[str] | None = None,
    keep_quotes: bool = False,
) -> Source:
    """Open a table; its rows are read by `readers.collect` or `readers.batches`.

    The suffix and the first bytes give the format; "-" is stdin. `collect` finds the types of a CSV's columns; with
    `text` all of them stay text, exactly as in the file, but for quotes before formulas, unless `keep_quotes`. If part
    of the path is a symbolic link, the file must have one of the columns `named` (unless that is None): the link may
    lead to any file, and no error may show what is in it. Raises DataError.
    """
    reading = Reading(separator, decimal, _header(header), sheet)
    raw: Raw = _stdin(name) if path == "-" else Path(path)
    wanted = named or ()
    if isinstance(raw, bytes):
        source = _opened(raw, name, None, reading, wanted)
    else:
        if (url := url_of(str(path))) is not None:
            raise DataError(f"{url}: {about_url(url)}")
        _check_file(raw, name)
        suffix = _suffix(raw, name)
        is_linked = any(part.is_symlink() for part in (raw, *raw.parents))
        with reworded(name):
            raw = path_in_utf8(raw)  # polars requires it
        if named is None or not is_linked:
            source = _opened(raw, name, suffix, reading, wanted)
        else:
            source = _opened_link(raw, name, suffix, reading, named)
    return replace(source, guessed=source.csv is not None and not text and decimal != ",", is_quoted=not keep_quotes)


def _header(value: str | Sequence[str]) -> Header:
    if value in ("auto", "first", "none"):
        return value  # type: ignore[return-value]  # mypy does not narrow a str by `in`
    return (value,) if isinstance(value, str) else tuple(value)


def _opened_link(path: Path, name: str, suffix: str, reading: Reading, named: Sequence[str]) -> Source:
    """A table behind a link, which may lead to any file of this user: no message may show its text."""
    try:
        source = _opened(path, name, suffix, reading, named)
    except DataError:
        raise DataError(f"{name}: is a link, and the file that it leads to cannot be read as a table") from None
    if source.csv is not None and not source.csv.has_header:
        raise DataError(f"{name}: is a link, and its file has no names of columns; name the file itself")
    is_alone = source.csv is not None and len(source.names) == 1  # as any text is
    if is_alone or not {*source.names, *source.groups} & set(named):
        lacking = "has one column only" if is_alone else "has none of the columns that are named"
        raise DataError(f"{name}: is a link, and its file {lacking}; to see its columns, name the file itself")
    return source


def _stdin(name: str) -> bytes:
    """All of stdin. Raises DataError if that is more than the available memory."""
    parts, length, free = [], 0, available_memory.available()
    while part := sys.stdin.buffer.read(_PART):
        parts.append(part)
        length += len(part)
        check_size(2 * length, name, free)  # the parts, and the whole
    return b"".join(parts)


def _check_file(path: Path, name: str) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise MissingFileError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be read: {reason(error)}") from None
    if not S_ISREG(mode):
        raise DataError(f"{name}: is {'a folder' if S_ISDIR(mode) else 'not a regular file, which can be read twice'}")


def _suffix(path: Path, name: str) -> str:
    """The file's suffix without that of a compression. Raises DataError for one that is not a table's."""
    if (suffix := table_suffix(path.name)) is None:
        short = [known for known in (*TABLES, ".json") if known.count(".") == 1]
        raise DataError(f"{name}: the suffix must be one of {' '.join(short)}")
    return suffix


def _opened(raw: Raw, name: str, suffix: str | None, reading: Reading, wanted: Collection[str]) -> Source:
    """A table, unpacked and read as what it is. `suffix` is None for stdin, which has none."""
    with reworded(name):
        start = _first_bytes(raw)
        kind = kind_of(start)
        for _ in range(2):  # an archive may hold a table that is compressed once more
            if kind in PACKED and format_of(raw, kind, suffix, start) is None:
                raw, suffix = unpacked(raw, kind, name, None if suffix == ".zip" else suffix)
                start = _first_bytes(raw)
                kind = kind_of(start)
        if kind in PACKED and format_of(raw, kind, suffix, start) is None:
            raise DataError(f"{name}: is compressed several times; unpack it")
        if kind in REFUSED:
            raise DataError(f"{name}: {REFUSED[kind]}")
        form = format_of(raw, kind, suffix, start)
        if kind.startswith("utf-") and kind != "utf-8":
            raw = _as_utf8(raw, kind, name)
            form = "csv" if form is None else form
        return _open_as(form or "csv", raw, name, suffix, reading, wanted)


def _open_as(form: str, raw: Raw, name: str, suffix: str | None, reading: Reading, wanted: Collection[str]) -> Source:
    if form == "csv":
        return _open_csv(raw, name, reading, wanted)
    if form == "excel":
        return _open_excel(raw, name, reading, wanted)
    if form == "ndjson":
        frame, raw = json_files.scan_ndjson(raw, name)
        return _checked(Source(name, frame, tuple(frame.collect_schema().names()), ndjson=raw))
    if form == "json":
        found = json_files.read_array(raw, name)
        return _checked(Source(name, found.lazy(), tuple(found.columns)))
    if form == "arrays":
        if isinstance(raw, bytes):
            raise DataError(f"{name}: holds NumPy arrays; unpack it")
        return _open_arrays(raw, name, suffix or ".npy")
    source = raw if isinstance(raw, Path) else io.BytesIO(raw)
    frame = pl.scan_parquet(source, glob=False) if form == "parquet" else pl.scan_ipc(source, glob=False)
    return _checked(Source(name, frame, tuple(frame.collect_schema().names()), binary=raw))


def _checked(source: Source) -> Source:
    if not source.names:
        raise DataError(f"{source.name}: has no columns")
    return source


def _first_bytes(raw: Raw) -> bytes:
    with opened(raw) as file:
        return file.read(_START)


def _as_utf8(raw: Raw, kind: Kind, name: str) -> bytes:
    """A text in UTF-16 or UTF-32, with its byte-order mark, as UTF-8. Raises DataError."""
    check_size(4 * (len(raw) if isinstance(raw, bytes) else raw.stat().st_size), name)
    with opened(raw) as file:
        try:
            return file.read().decode(kind).encode()
        except UnicodeError:
            raise DataError(f"{name}: is not {kind.upper()}, though it begins so; save it as UTF-8") from None


# --- formats


def _open_csv(raw: Raw, name: str, reading: Reading, wanted: Collection[str]) -> Source:
    layout = find_layout(
        raw, name, separator=reading.separator, decimal=reading.decimal, header=reading.header, wanted=wanted
    )
    frame = scan_csv(layout, infer_schema=False)
    if (found := frame.collect_schema().names()) != list(layout.names):
        odd = next((theirs for theirs, ours in zip(found, layout.names, strict=False) if theirs != ours), "")
        raise DataError(f"{name}: the first line has quotes or line breaks that are ambiguous, at {odd[:40]!r}")
    header = reading.header if layout.has_header and isinstance(reading.header, str) else layout.names
    found_so = replace(reading, separator=layout.separator, header=header)
    return Source(name, frame, layout.names, csv=layout, reading=found_so, takes=("header",))


def _open_excel(raw: Raw, name: str, reading: Reading, wanted: Collection[str]) -> Source:
    frame, first = read_sheet(raw, name, reading.sheet, has_header=reading.header in ("auto", "first"))
    if isinstance(reading.header, tuple) and cleaned(first, wanted) == list(reading.header):
        frame, first = read_sheet(raw, name, reading.sheet, has_header=True)
    elif reading.header == "none":
        first = [str(j) for j in range(frame.width)]
    elif isinstance(reading.header, tuple):
        if len(reading.header) != frame.width:
            raise DataError(f"{name}: {about_width(reading.header, frame.width)}")
        first = list(reading.header)
    elif reading.header == "auto":
        rows = frame.head(100).select(pl.all().cast(pl.String, strict=False).fill_null("")).rows()
        refuse_data(name, first, rows)
    names = cleaned(first, wanted)
    refuse_twice(name, names)
    frame.columns = names
    empty = {c for c in names if c.startswith("Unnamed: ") and not frame[c].count()}
    frame = frame.select(c for c in names if c not in empty)
    header = reading.header if reading.header in ("auto", "first") else tuple(names)
    reading = replace(reading, header=header)
    return _checked(Source(name, frame.lazy(), tuple(frame.columns), reading=reading, takes=("header", "sheet")))


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
    refuse_twice(name, names)
    frame = pl.concat(pieces.values(), how="horizontal")
    return Source(name, frame.lazy(), tuple(names), groups)
