"""How a CSV is laid out: its separator, its header, and what stands before them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from twolayer.errors import DataError
from twolayer.tables.file_checks import check_size
from twolayer.tables.headers import about_width, cleaned, refuse_data, refuse_twice, repeats_names
from twolayer.tables.options import SEPARATORS, Header
from twolayer.tables.row_errors import MAX_LINE, Lines, LineTooLongError, as_text, check_lines, not_utf8, opened

BLANKS = " "  # the separator of files whose cells stand between any number of blanks
_START = 1 << 16  # bytes that the separator is found from
_SAMPLED = 100  # rows that the header is compared with
_SAMPLE = 1 << 20  # characters of them, at most
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_BLANK_CELL = re.compile(r'"(?:[^"]|"")*"(?=\s|$)|\S+')


@dataclass(frozen=True)
class CsvLayout:
    """A CSV: its text, the character between its cells, the names of its columns, and where its rows are.

    `skipped` is the number of lines before the header or the first row. `separator` is as the key has it; `delimiter`
    is the character in `raw`, which may be rewritten.
    """

    raw: Path | bytes
    separator: str
    delimiter: str
    names: tuple[str, ...]
    has_header: bool
    skipped: int = 0


def scan_csv(layout: CsvLayout, **options: Any) -> pl.LazyFrame:
    """A CSV as a lazy frame with the names of its layout; the options are those of `polars.scan_csv`."""
    names = list(layout.names)
    return pl.scan_csv(
        layout.raw if isinstance(layout.raw, Path) else io.BytesIO(layout.raw),
        separator=layout.delimiter,
        has_header=layout.has_header,
        skip_lines=layout.skipped,
        with_column_names=lambda found: names if len(found) == len(names) else found,
        glob=False,
        **options,
    )


def find_layout(
    raw: Path | bytes, name: str, *, separator: str, decimal: str, header: Header, wanted: Collection[str]
) -> CsvLayout:
    """The layout of a CSV. `wanted` are names of columns to be taken as they stand in the file. Raises DataError."""
    with opened(raw) as file:
        read = file.read(_START)
    start = as_text(read, is_start=True)
    if not start.strip():
        raise DataError(f"{name}: is empty")
    if "\r" in start and "\n" not in start:
        raw, start = _with_lf(raw, name), start.replace("\r", "\n")
    _check_lines(raw, name)
    if len(read) == _START and "\n" in start:
        start = start[: start.rindex("\n")]  # whole lines
    skipped, given = _before_table(start, name)
    start = start.split("\n", skipped)[skipped]
    if separator == "auto":
        separator = given or find_separator(start, decimal)
    if decimal == "," == separator:
        raise DataError(f'{name}: the separator and the decimal point cannot both be ","')
    delimiter = separator
    if separator == BLANKS:
        raw, delimiter, skipped = _with_tabs(raw, name, skipped), "\t", 0
    rows = _first_rows(raw, name, delimiter, skipped)
    names, has_header = _names(name, rows, header, wanted)
    return CsvLayout(raw, separator, delimiter, tuple(names), has_header, skipped)


def _names(name: str, rows: Sequence[Sequence[str]], header: Header, wanted: Collection[str]) -> tuple[list[str], bool]:
    """The names of the columns, and whether they are the first row. Raises DataError."""
    first = rows[0]
    if not_utf8("".join(first)):
        raise DataError(f"{name}: is not UTF-8, in its first line; save it as UTF-8")
    own = cleaned(first, wanted)
    if header == "none":
        return [str(j) for j in range(len(first))], False
    if isinstance(header, tuple):
        refuse_twice(name, header)
        if repeats_names(name, own, header, rows[1:]):
            return own, True
        if len(first) != len(header):
            raise DataError(f"{name}: {about_width(header, len(first))}")
        return list(header), False
    if header == "auto":
        refuse_data(name, first, rows[1:])
    refuse_twice(name, own)
    return own, True


def _first_rows(raw: Path | bytes, name: str, delimiter: str, skipped: int) -> list[list[str]]:
    """The first row that is not blank, and rows below it as far as they can be read. Raises DataError."""
    rows: list[list[str]] = []
    with opened(raw) as file:
        lines = Lines(file)
        length = 0
        try:
            for row in csv.reader(islice(lines, skipped, None), delimiter=delimiter):
                if row:
                    rows.append(row)
                    length += sum(map(len, row))
                if len(rows) > _SAMPLED or length > _SAMPLE:
                    break
        except LineTooLongError as error:
            if not rows:
                raise DataError(f"{name}: {error}") from None
        except csv.Error as error:
            if not rows:
                what = "has a CR without an LF" if "new-line" in str(error) else "has no column names"
                raise DataError(f"{name}: the first line {what}") from None
    if not rows:
        raise DataError(f"{name}: the first line has no column names")
    return rows


def _check_lines(raw: Path | bytes, name: str) -> None:
    """Raise DataError if a line is too long: polars would read all of it, and may abort for lack of memory."""
    if (raw.stat().st_size if isinstance(raw, Path) else len(raw)) <= MAX_LINE:
        return
    try:
        with opened(raw) as file:
            check_lines(file)
    except LineTooLongError as error:
        raise DataError(f"{name}: {error}") from None


def _before_table(start: str, name: str) -> tuple[int, str | None]:
    """How many lines stand before the header, and the separator that Excel's line `sep=;` names."""
    lines = start.split("\n")
    filled = [number for number, line in enumerate(lines) if line.strip()]
    match = _SEP_LINE.fullmatch(lines[filled[0]])
    if match is None:
        return filled[0], None
    if match[1] not in SEPARATORS:
        raise DataError(f'{name}: its first line names the separator "{match[1]}"; use one of , ; | or a tab')
    if len(filled) == 1:
        raise DataError(f"{name}: has no line but the one that names its separator")
    return filled[1], match[1]


# --- the separator


def find_separator(start: str, decimal: str = ".") -> str:
    """The separator of a text that begins so; the comma if there is none.

    Of those in the first line, one by which the rows below have as many cells counts more than one that is more
    frequent: names may hold commas. Blanks separate where nothing else does, and all rows agree.
    """
    counts = {s: count for s in SEPARATORS if s != decimal and (count := _first_line(start).count(s))}
    if not counts:
        return BLANKS if _are_blanks_between(start) else "," if decimal != "," else ";"
    even = [s for s in counts if _is_even(start, s)]
    # The comma comes last: it may be a decimal one.
    return max(even or counts, key=lambda s: (s != "," if even else True, counts[s]))


def _first_line(start: str) -> str:
    """The first line that is not blank, without what is in quotes."""
    line: list[str] = []
    quoted = False
    for letter in start:
        if letter == '"':
            quoted = not quoted
        elif not quoted:
            if letter in "\r\n" and line:
                break
            line.append(letter)
    return "".join(line)


def _is_even(start: str, separator: str) -> bool:
    """Whether the first rows all have the same number of cells, two or more."""
    widths: list[int] = []
    try:
        for row in islice(csv.reader(io.StringIO(start, newline=""), delimiter=separator), 21):
            if row:
                widths.append(len(row))
    except csv.Error:
        pass
    return len(set(widths)) == 1 and widths[0] > 1


def _are_blanks_between(start: str) -> bool:
    """Whether all of the first lines have the same number of cells between blanks, two or more, in two lines or more.

    The first may have one less: R leaves out the name of the column of row names.
    """
    widths = [len(cells) for line in start.split("\n")[:_SAMPLED] if (cells := _BLANK_CELL.findall(line))]
    return len(widths) > 1 and len(set(widths[1:])) == 1 and widths[0] > 1 and widths[1] - widths[0] in (0, 1)


# --- texts that polars does not read as they are


def _whole(raw: Path | bytes, name: str) -> bytes:
    """All of a file, if there is memory for it and its copies. Raises DataError."""
    check_size(4 * (raw.stat().st_size if isinstance(raw, Path) else len(raw)), name)
    return raw.read_bytes() if isinstance(raw, Path) else raw


def _with_lf(raw: Path | bytes, name: str) -> bytes:
    """A text whose lines end in CR alone, with LF in its place."""
    return _whole(raw, name).replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _with_tabs(raw: Path | bytes, name: str, skipped: int) -> bytes:
    """A text with a tab for the blanks between its cells, without blank lines."""
    lines = as_text(_whole(raw, name), is_start=True).split("\n", skipped)[skipped].split("\n")
    rows = [cells for line in lines if (cells := _BLANK_CELL.findall(line))]
    if len(rows) > 1 and len(rows[1]) == len(rows[0]) + 1:
        rows[0].insert(0, '""')
    return "".join("\t".join(map(_quoted, cells)) + "\n" for cells in rows).encode(errors="surrogateescape")


def _quoted(cell: str) -> str:
    """A cell between blanks as a CSV has it: one with a quote inside it, such as 5'10", in quotes."""
    return cell if '"' not in cell or cell.startswith('"') else '"' + cell.replace('"', '""') + '"'
