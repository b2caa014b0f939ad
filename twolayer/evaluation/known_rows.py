"""Recognises the rows that a run was trained on, by a fingerprint of theirs in its run.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from twolayer.tables.features import Array, Encoding

_CHUNK = 2**20  # numbers that are hashed at a time
KEY = "row_sums"  # in run.json


class RowSum:
    """The number of rows, and the sum of a hash of each: equal for the same rows in any order. 64 bits."""

    def __init__(self) -> None:
        self.rows, self.sum = 0, 0

    def add(self, x: Array, y: Array) -> None:
        """Add rows as they are trained on, x (n, D_in) and y (n, D_out), in the training's dtype."""
        size = max(1, _CHUNK // (x.shape[1] + y.shape[1]))
        for start in range(0, len(x), size):
            part = np.concatenate([x[start : start + size], y[start : start + size]], axis=1)
            self.sum = (self.sum + int(_hashes(part).sum(dtype=np.uint64))) % 2**64
        self.rows += len(x)

    def document(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"rows": self.rows, "sum": f"{self.sum:016x}"}


def _hashes(rows: Array) -> Array:
    """A hash of each row, (n,) uint64: its bits times fixed odd numbers, added, and mixed as in SplitMix64."""
    bits = np.ascontiguousarray(rows).view(np.uint32)
    factors = np.random.Generator(np.random.PCG64(2)).integers(0, 2**63, bits.shape[1], dtype=np.uint64) * 2 + 1
    with np.errstate(over="ignore"):
        found = (bits.astype(np.uint64) * factors).sum(1, dtype=np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
        mixed: Array = found ^ (found >> np.uint64(31))
    return mixed


def row_sums(parts: Mapping[str, tuple[Array, Array]]) -> dict[str, Any]:
    """For run.json: of each part of the rows, such as `training`, its fingerprint."""
    found = {}
    for name, (x, y) in parts.items():
        rows = RowSum()
        rows.add(x, y)
        found[name] = rows.document()
    return found


def as_trained(x: Array, y: Array, columns: Encoding, dtype: str) -> tuple[Array, Array]:
    """Standardised inputs, and targets in their own units, float64, as they were trained on."""
    with np.errstate(over="ignore", invalid="ignore"):
        if columns.classes is None:
            y = y - [target.mean for target in columns.targets]
            y /= [target.deviation for target in columns.targets]
        return x.astype(dtype), y.astype(dtype)


def known_part(rows: RowSum, info: Mapping[str, Any]) -> str:
    """Which rows of a run these are: `training`, `validation`, `all` for both; empty if none of them, or unknown."""
    saved = info.get(KEY)
    parts = {name: _read(saved.get(name)) for name in ("training", "validation")} if isinstance(saved, dict) else {}
    sums = {name: part for name, part in parts.items() if part is not None}
    if len(sums) == 2:
        sums["all"] = _added(sums.values())
    return next((name for name, part in sums.items() if part == (rows.rows, rows.sum)), "")


def _read(part: Any) -> tuple[int, int] | None:
    try:
        return int(part["rows"]), int(part["sum"], 16)
    except (TypeError, ValueError, KeyError):
        return None


def _added(parts: Iterable[tuple[int, int]]) -> tuple[int, int]:
    rows, sums = zip(*parts, strict=True)
    return sum(rows), sum(sums) % 2**64
