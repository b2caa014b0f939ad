"""How results spread over seeds: median, quartiles, range, and the 95 % band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twolayer.sweeps.results import Result

BAND = (0.025, 0.975)  # the quantiles between which 95 % of the seeds lie


@dataclass(frozen=True)
class Spread:
    """The spread of a figure over points (those that have it), and how many have none."""

    count: int
    least: float
    lower: float  # quartile
    median: float
    upper: float  # quartile
    largest: float
    without: int


@dataclass(frozen=True)
class Group:
    """The results that differ in their seed alone; `values` has the other keys that vary."""

    values: Mapping[str, Any]
    results: tuple[Result, ...]


def quantile(values: Sequence[float], part: float) -> float:
    """The quantile of sorted numbers, between two of them interpolated linearly, as numpy's default is."""
    place = part * (len(values) - 1)
    below = min(int(place), len(values) - 2) if len(values) > 1 else 0
    if len(values) == 1 or values[below] == values[below + 1]:
        return values[below]
    weight = place - below
    return values[below] * (1 - weight) + values[below + 1] * weight


def groups(results: Sequence[Result]) -> list[Group]:
    """The results by what varies besides the seed, in the order of the points."""
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.point.number):
        key = repr([value for name, value in result.point.values.items() if name != "seed"])
        found.setdefault(key, []).append(result)
    return [
        Group({name: value for name, value in some[0].point.values.items() if name != "seed"}, tuple(some))
        for some in found.values()
    ]


def spread(results: Sequence[Result], name: str) -> Spread | None:
    """The spread of a figure of completed points; None where none has it."""
    found = [result.number(name) for result in results if result.status == "completed"]
    values = sorted(value for value in found if value is not None)
    if not values:
        return None
    low, median, high = (quantile(values, part) for part in (0.25, 0.5, 0.75))
    return Spread(len(values), values[0], low, median, high, values[-1], len(results) - len(values))


def band(curves: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """The 95 % band of curves of equal length: its lower and its upper end at each place."""
    columns = [sorted(column) for column in zip(*curves, strict=True)]
    return [(quantile(column, BAND[0]), quantile(column, BAND[1])) for column in columns]
