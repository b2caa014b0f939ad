"""What is wrong with a file of text, row by row, where polars does not say. Never imports torch or polars."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def opened(raw: Path | bytes) -> Iterator[IO[str]]:
    """The file as text, a byte-order mark left out, bytes that are not UTF-8 as surrogates; lines end in LF only."""
    if isinstance(raw, bytes):
        file: Any = io.BytesIO(raw)
    else:
        file = gzip.open(raw) if raw.suffix.lower() == ".gz" else raw.open("rb")  # noqa: SIM115 (closed by what wraps it)
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as text:
        yield text


def look(raw: Path | bytes, separator: str, names: Sequence[str], *, failed: bool = False) -> tuple[str, list[int]]:
    """The first thing that is wrong with the rows of a CSV, "" where nothing is; and which, from 0, are blank lines.

    Those are no rows. Where polars has `failed`, a quote inside of a cell is wrong, which it may read well else.
    """
    blank: list[int] = []
    stray = re.compile(rf'(^|{re.escape(separator)})[^"{re.escape(separator)}]+"')
    line = ""

    def lines(file: IO[str]) -> Iterator[str]:
        nonlocal line
        for line in file:  # noqa: UP028 (the last one is kept)
            yield line

    number = 0
    with opened(raw) as file:
        rows = csv.reader(lines(file), delimiter=separator, strict=True)
        try:
            width = len(next(row for row in rows if row))
            for row in rows:
                if width > 1 and (not row or (len(row) == 1 and not row[0].strip())):
                    blank.append(number + len(blank))
                    continue
                number += 1
                if row and len(row) != width:
                    return f"row {number} has {_counted(len(row))}, and the first line {width}", blank
                if not (cells := "".join(row)).isascii() and any("\udc80" <= letter <= "\udcff" for letter in cells):
                    at = next(j for j, cell in enumerate(row) if any("\udc80" <= letter <= "\udcff" for letter in cell))
                    return f"row {number}, column {names[at]}: is not UTF-8; save the file as UTF-8", blank
                if failed and '"' in cells and stray.search(line):
                    return f"row {number}: a quote stands inside of a cell that does not begin with one", blank
        except csv.Error as error:
            return f"row {number + 1}: {_csv_error(error)}", blank
    return "", blank


def _counted(cells: int) -> str:
    return f"{cells} cell{'s' * (cells != 1)}"


def _csv_error(error: csv.Error) -> str:
    if "end of data" in str(error):
        return "a quote is opened and not closed"
    return "a CR stands alone, outside of quotes" if "new-line" in str(error) else str(error)


def look_at_json(path: Path) -> str:
    """The first thing that is wrong with the lines of NDJSON; "" where nothing is."""
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate((line for line in file if line.strip()), 1):
            try:
                if not isinstance(json.loads(line), dict):
                    return f"row {number}: is no JSON object"
            except (ValueError, RecursionError):
                return f"row {number}: is no JSON"
    return "" if number else "is empty"
