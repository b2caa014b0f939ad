"""The memory that the frame of a file of text needs, at least: counted without keeping any of its text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twolayer.tables.row_errors import opened

_CELL = 8  # bytes of a cell in a frame, at least: a number, or half of the reference to a text
_PART = 2**20
_LONG = 2**12


def csv_bytes(raw: Path | bytes, columns: int, enough: int) -> int:
    """The bytes of a CSV's frame, at least.

    If they cannot be more than `enough`, nothing is read and the result is 0; else reading stops once they are.
    """
    if _length(raw) * columns * _CELL <= enough:
        return 0
    need, is_quoted = -columns * _CELL, False  # the first line is not a row
    with opened(raw) as file:
        while need <= enough and (part := file.read(_PART)):
            if is_quoted or b'"' in part:
                pieces = part.split(b'"')
                rows = sum(map(_lines, pieces[is_quoted::2]))
                is_quoted ^= len(pieces) % 2 == 0  # an odd number of quotes
            else:
                rows = _lines(part)
            need += rows * columns * _CELL
    return need


def ndjson_bytes(raw: Path | bytes, columns: int, enough: int) -> int:
    """The bytes of an NDJSON file's frame, at least: every row has every column. 0 as for a CSV."""
    if _length(raw) * columns * _CELL <= enough:
        return 0
    need = 0
    with opened(raw) as file:
        while need <= enough and (part := file.read(_PART)):
            need += _lines(part) * columns * _CELL
    return need


def _lines(part: bytes) -> int:
    """How many lines end in it; several times as fast as its own `count` where it is long."""
    if len(part) < _LONG:
        return part.count(b"\n")
    return int(np.count_nonzero(np.frombuffer(part, dtype=np.uint8) == ord("\n")))


def _length(raw: Path | bytes) -> int:
    return len(raw) if isinstance(raw, bytes) else raw.stat().st_size
