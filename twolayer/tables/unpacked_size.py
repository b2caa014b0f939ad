"""The memory that a file of text needs, at least: counted without keeping any of its text."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO, cast

DEFLATED = 1032  # bytes that one deflated byte unpacks to, at most
_CELL = 8  # bytes of a cell in a frame, at least: a number, or half of the reference to a text
_PART = 2**20


def csv_bytes(path: Path, columns: int, enough: int) -> int:
    """The bytes of a CSV's frame, at least, and of the unpacked text if it is compressed.

    If they cannot be more than `enough`, nothing is read and the result is 0; else reading stops once they are.
    """
    size, is_packed = path.stat().st_size, path.suffix.lower() == ".gz"
    most = size * DEFLATED if is_packed else size
    if most * (columns * _CELL + is_packed) <= enough:
        return 0
    need, is_quoted = -columns * _CELL, False  # the first line is not a row
    with cast(BinaryIO, gzip.open(path)) if is_packed else path.open("rb") as file:
        while need <= enough and (part := file.read(_PART)):
            pieces = part.split(b'"')
            rows = sum(piece.count(b"\n") for piece in pieces[is_quoted::2])
            need += rows * columns * _CELL + len(part) * is_packed
            if len(pieces) % 2 == 0:  # an odd number of quotes
                is_quoted = not is_quoted
    return need


def ndjson_bytes(path: Path, columns: int, enough: int) -> int:
    """The bytes of an NDJSON file's frame, at least: every row has every column. 0 as for a CSV."""
    if path.stat().st_size * columns * _CELL <= enough:
        return 0
    need = 0
    with path.open("rb") as file:
        while need <= enough and (part := file.read(_PART)):
            need += part.count(b"\n") * columns * _CELL
    return need
