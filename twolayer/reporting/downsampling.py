"""What a screen can show of a hundred thousand losses: fewer points of the same shape, on the scale that suits them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

Scale = Literal["auto", "log", "linear"]


def downsample(values: Sequence[float], most: int) -> list[int]:
    """The places of at most `most` of the values (4 or more), in order: all finite ones where there are no more.

    Otherwise the first, the last, and the least and the greatest of every stretch of equally many.
    """
    places = [i for i, value in enumerate(values) if math.isfinite(value)]
    if len(places) <= most:
        return places
    stretch = math.ceil((len(places) - 2) / ((most - 2) // 2))
    kept = {places[0], places[-1]}
    for start in range(1, len(places) - 1, stretch):
        part = places[start : min(start + stretch, len(places) - 1)]
        kept.add(min(part, key=values.__getitem__))
        kept.add(max(part, key=values.__getitem__))
    return sorted(kept)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` (2 or more) of the places 0 .. count - 1, evenly: the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def spans_decades(values: Iterable[float]) -> bool:
    """Whether the range asks for a log scale: the greatest of the positive values is over 100 times the least."""
    positive = [value for value in values if 0 < value < math.inf]
    return bool(positive) and max(positive) / 100 > min(positive)
