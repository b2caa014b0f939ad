"""JSON as tables: an object a line (NDJSON), or one array of objects."""

from __future__ import annotations

import json
from math import isinf
from pathlib import Path

import polars as pl

from twolayer.errors import DataError
from twolayer.formatting import size as in_words
from twolayer.tables.file_checks import check_size, reworded
from twolayer.tables.row_errors import Lines, LineTooLongError, opened

BOM = b"\xef\xbb\xbf"
_MAX_ARRAY = 2**30  # bytes; of an array nothing can be read before its end


def scan_ndjson(raw: Path | bytes, name: str) -> tuple[pl.LazyFrame, Path | bytes]:
    """The lines as a frame, and what it is read from: rewritten where polars reads no NaN and no byte-order mark.

    Raises DataError, with the row where it is known.
    """
    with opened(raw) as file:
        is_marked = file.read(3) == BOM
    problem = None
    if not is_marked:
        try:
            return _scan(raw, name), raw
        except DataError as error:
            problem = error
    text = _plain(raw, name)
    if text is None and problem is not None:
        raise problem
    rewritten = text if text is not None else _without_mark(raw, name)
    return _scan(rewritten, name), rewritten


def _scan(raw: Path | bytes, name: str) -> pl.LazyFrame:
    frame = pl.scan_ndjson(raw, infer_schema_length=None)
    with reworded(name):
        frame.collect_schema()
    return frame


def _without_mark(raw: Path | bytes, name: str) -> bytes:
    with opened(raw) as file:
        check_size(2 * (len(raw) if isinstance(raw, bytes) else raw.stat().st_size), name)
        return file.read().removeprefix(BOM)


def _plain(raw: Path | bytes, name: str) -> bytes | None:
    """The lines with null in the place of NaN; None if no line has one. Raises DataError for a malformed line."""
    if damage := check_ndjson(raw):
        raise DataError(f"{name}: {damage}")
    with opened(raw) as file:
        odd = any("NaN" in line for line in Lines(file))
    if not odd:
        return None
    check_size(2 * (len(raw) if isinstance(raw, bytes) else raw.stat().st_size), name)
    with opened(raw) as file:
        return "".join(_without_nan(line) for line in Lines(file)).encode(errors="surrogateescape")


def _without_nan(line: str) -> str:
    if "NaN" not in line or not line.strip():
        return line
    return json.dumps(json.loads(line, parse_constant=lambda _: None)) + "\n"


def check_ndjson(raw: Path | bytes) -> str:
    """The first thing that is wrong with the lines of an NDJSON file; "" if nothing. NaN is a missing value."""
    number = 0
    with opened(raw) as file:
        try:
            for line in Lines(file):
                if not line.strip():
                    continue
                number += 1
                if damage := _damage(json.loads(line)):
                    return f"row {number}{damage}"
        except LineTooLongError as error:
            return str(error)
        except (ValueError, RecursionError):
            return f"row {number}: is not JSON"
    return "" if number else "is empty"


def _damage(row: object) -> str:
    """What is wrong with a row as JSON holds it; "" if nothing."""
    if not isinstance(row, dict):
        return ": is not a JSON object"
    for column, cell in row.items():
        if isinstance(cell, float) and isinf(cell):  # Python reads Infinity and 1e999 so
            return f", column {column}: is infinite"
    return ""


def read_array(raw: Path | bytes, name: str) -> pl.DataFrame:
    """The objects of one JSON array as rows. Raises DataError."""
    length = len(raw) if isinstance(raw, bytes) else raw.stat().st_size
    if length > _MAX_ARRAY:
        raise DataError(f"{name}: is a JSON array of {in_words(length)}; write it as NDJSON, an object a line")
    check_size(3 * length, name)  # the text, its parsed form and the frame
    with opened(raw) as file:
        text = file.read().removeprefix(BOM)
    try:
        return pl.read_json(text, infer_schema_length=None)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        pass
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{name}: is not JSON") from None
    for number, row in enumerate(rows, 1):
        if damage := _damage(row):
            raise DataError(f"{name}: row {number}{damage}")
    # NaN alone differs from itself.
    without = [{key: None if cell != cell else cell for key, cell in row.items()} for row in rows]
    with reworded(name):
        return pl.read_json(json.dumps(without).encode(), infer_schema_length=None)
