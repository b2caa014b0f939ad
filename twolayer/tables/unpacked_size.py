"""How many bytes a file of text unpacks to, and how many of cells, counted without keeping any of them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO, cast

DEFLATED = 1032  # bytes that a deflated byte holds at most
_CELL = 8  # bytes in a frame, at the least: a number, or half of what leads to a text
_PART = 2**20


def csv_bytes(path: Path, columns: int, enough: int) -> int:
    """The bytes that the frame of a CSV takes, at the least, with those that it is unpacked to where it is compressed.

    Where they cannot be more than `enough` nothing is read and the answer is 0; else reading stops where they are.
    """
    size, is_packed = path.stat().st_size, path.suffix.lower() == ".gz"
    most = size * DEFLATED if is_packed else size
    if most * (columns * _CELL + is_packed) <= enough:
        return 0
    need, is_quoted = -columns * _CELL, False  # the first line is no row
    with cast(BinaryIO, gzip.open(path)) if is_packed else path.open("rb") as file:
        while need <= enough and (part := file.read(_PART)):
            pieces = part.split(b'"')
            rows = sum(piece.count(b"\n") for piece in pieces[is_quoted::2])
            need += rows * columns * _CELL + len(part) * is_packed
            is_quoted ^= len(pieces) % 2 == 0
    return need


def ndjson_bytes(path: Path, columns: int, enough: int) -> int:
    """The bytes that the frame of NDJSON takes, at the least: every row has every column. 0 as for a CSV."""
    if path.stat().st_size * columns * _CELL <= enough:
        return 0
    need = 0
    with path.open("rb") as file:
        while need <= enough and (part := file.read(_PART)):
            need += part.count(b"\n") * columns * _CELL
    return need
