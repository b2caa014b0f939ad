"""Finds the first malformed row of a CSV or NDJSON file, where polars does not name it."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import BinaryIO

from twolayer.formatting import counted, size

MAX_LINE = 64 * 2**20  # bytes; a longer line is not a row of any table, and may not fit into memory
_PART = 2**20  # bytes that are read at a time


class LineTooLongError(Exception):
    """A line has more than MAX_LINE bytes; it has not been read to its end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"line {number} is longer than {size(MAX_LINE)}")


class Lines:
    """The lines of a file, as text: UTF-8 without a byte-order mark, other bytes as surrogates; only LF ends a line.

    An iterator, for csv.reader; `last` is the line that it returned last. Raises LineTooLongError.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._number, self.last = file, 0, ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._number += 1
        line = self._file.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_LINE:
            raise LineTooLongError(self._number)
        self.last = as_text(line, is_start=self._number == 1)
        return self.last


def as_text(data: bytes, *, is_start: bool) -> str:
    """The bytes as text: UTF-8, other bytes as surrogates; at the start of a file without a byte-order mark."""
    return (data.removeprefix(codecs.BOM_UTF8) if is_start else data).decode(errors="surrogateescape")


def not_utf8(text: str) -> bool:
    """Whether bytes of the text were not UTF-8."""
    return not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text)


def opened(raw: Path | bytes) -> BinaryIO:
    """The bytes of a file."""
    return io.BytesIO(raw) if isinstance(raw, bytes) else raw.open("rb")


def check_lines(file: BinaryIO) -> None:
    """Raise LineTooLongError if a line has more than MAX_LINE bytes.

    Such a line fills at least one of the windows of half that size, so a line end in each is enough: of a sound file
    only the start of every window is read.
    """
    window = MAX_LINE // 2
    for start in count(0, window):
        file.seek(start)
        length = 0
        while length < window:
            part = file.read(_PART)
            if not part:
                return
            if b"\n" in part:
                break
            length += len(part)
        else:
            file.seek(0)
            _measure_lines(file)
            return


def _measure_lines(file: BinaryIO) -> None:
    """Raise LineTooLongError, with the line's number, for the first one of more than MAX_LINE bytes."""
    number, length = 1, 0
    while part := file.read(_PART):
        if (end := part.rfind(b"\n")) < 0:
            length += len(part)
        else:  # no line inside of a part is too long
            length += part.index(b"\n")
        if length > MAX_LINE:
            raise LineTooLongError(number)
        if end >= 0:
            number, length = number + part.count(b"\n"), len(part) - end - 1


def check_csv(
    raw: Path | bytes,
    separator: str,
    names: Sequence[str],
    *,
    failed: bool = False,
    skipped: int = 0,
    has_header: bool = True,
) -> tuple[str, list[int]]:
    """The first thing that is wrong with the rows of a CSV ("" if nothing), and which lines, from 0, are blank.

    Blank lines are not rows, and the first `skipped` lines are no part of the table. A quote inside a cell is an error
    only if polars has `failed`: often it reads such cells.
    """
    blank: list[int] = []
    stray_quote = re.compile(rf'(^|{re.escape(separator)})[^"{re.escape(separator)}]+"')
    number, width = 0, len(names)
    first = "the first line has" if has_header else "the first one has"
    with opened(raw) as file:
        lines = Lines(file)
        rows = csv.reader(islice(lines, skipped, None), delimiter=separator, strict=True)
        try:
            if has_header:
                next(row for row in rows if row)
            for row in rows:
                if width > 1 and (not row or (len(row) == 1 and not row[0].strip())):
                    blank.append(number + len(blank))
                    continue
                number += 1
                if row and len(row) != width:
                    return f"row {number} has {counted(len(row), 'cell')}, and {first} {width}", blank
                cells = "".join(row)
                if not_utf8(cells):
                    column = next(name for name, cell in zip(names, row, strict=True) if not_utf8(cell))
                    return f"row {number}, column {column}: is not UTF-8; save the file as UTF-8", blank
                if failed and '"' in cells and stray_quote.search(lines.last):
                    return f"row {number}: a cell has a quote inside it, but does not begin with one", blank
        except LineTooLongError as error:
            return str(error), blank
        except csv.Error as error:
            return f"row {number + 1}: {_csv_error(error, separator)}", blank
    return "", blank


def _csv_error(error: csv.Error, separator: str) -> str:
    if "end of data" in str(error):
        return "a quote is opened and not closed"
    if "expected after" in str(error):
        mark = "a tab" if separator == "\t" else f'"{separator}"'
        return f"after a quoted cell comes no {mark}; if another sign separates the cells, set data.separator"
    return "has a CR without an LF, outside quotes" if "new-line" in str(error) else str(error)
