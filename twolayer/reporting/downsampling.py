"""Fewer points of a curve with the same shape, and the choice between a linear and a log scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

Scale = Literal["auto", "log", "linear"]


def downsample(values: Sequence[float], limit: int) -> list[int]:
    """The indices of at most `limit` (4 or more) of the finite values, in order.

    Where there are more: the first, the last, and the smallest and largest of every stretch of equal length.
    """
    places = [i for i, value in enumerate(values) if math.isfinite(value)]
    if len(places) <= limit:
        return places
    stretch = math.ceil((len(places) - 2) / ((limit - 2) // 2))
    kept = {places[0], places[-1]}
    for start in range(1, len(places) - 1, stretch):
        part = places[start : min(start + stretch, len(places) - 1)]
        kept.add(min(part, key=values.__getitem__))
        kept.add(max(part, key=values.__getitem__))
    return sorted(kept)


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` (2 or more) of the indices 0 .. count - 1, evenly spaced, with the first and the last."""
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)]


def spans_decades(values: Iterable[float]) -> bool:
    """Whether a log scale suits the values: the largest positive one is over 100 times the smallest."""
    positive = [value for value in values if 0 < value < math.inf]
    return bool(positive) and max(positive) / 100 > min(positive)
