"""The loss curves of a sweep: for each group of seeds the median, the quartiles and the range at every iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from twolayer.formatting import shown
from twolayer.reporting.downsampling import evenly
from twolayer.runs.history import Reader
from twolayer.runs.run_files import HISTORY, has_whole_history
from twolayer.sweeps import statistics
from twolayer.sweeps.published import Published, curve_of
from twolayer.sweeps.results import Result, score_name
from twolayer.sweeps.saved_sweep import SavedSweep
from twolayer.sweeps.statistics import Group

_Losses: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float64]]

MAX_GROUPS = 24  # curves that can still be distinguished
_MAX_ROWS = 300  # of a curve
QUANTILES = {"least": 0.0, "low": 0.025, "lower": 0.25, "median": 0.5, "upper": 0.75, "high": 0.975, "largest": 1.0}


@dataclass(frozen=True)
class Curve:
    """The curve of a group: at each of the `rows` (iterations or epochs, from 1) the QUANTILES over its seeds."""

    label: str
    count: int
    rows: tuple[int, ...]
    quantiles: dict[str, tuple[float, ...]]
    is_best: bool


@dataclass(frozen=True)
class Curves:
    """The curves that are drawn, of `column` of the history by `unit`; what is not drawn, a line each."""

    curves: tuple[Curve, ...]
    column: str
    unit: str
    left_out: tuple[str, ...]
    published: Published | None


def curves(sweep: SavedSweep) -> Curves:
    """The curves of the groups with the smallest median loss, in the order of the points."""
    name = score_name(sweep.results)
    column, unit = name.removeprefix("final_"), sweep.plan.points[0].config.unit
    scored, without = list[tuple[float, Group]](), list[str]()
    for group in statistics.groups(sweep.results):
        spread = statistics.spread(group.results, name)
        if spread is None:
            without.append(_label(group, sweep))
        else:
            scored.append((spread.median, group))
    best = min(scored, key=lambda item: item[0])[1] if scored else None
    chosen = {id(group) for _, group in sorted(scored, key=lambda item: item[0])[:MAX_GROUPS]}
    left_out = [f"not drawn, because no point was completed: {'; '.join(without[:5])}{' ...' * (len(without) > 5)}"]
    left_out = left_out if without else []
    if len(scored) > MAX_GROUPS:
        left_out.append(f"the {MAX_GROUPS} of {len(scored):,} combinations with the smallest {column} are drawn")
    damaged = list[str]()
    drawn = [
        curve
        for _, group in scored
        if id(group) in chosen
        and (curve := _curve(group, sweep, column, damaged, is_best=group is best and len(scored) > 1))
    ]
    if damaged:
        some = f"{', '.join(damaged[:5])}{' ...' * (len(damaged) > 5)}"
        left_out.append(f"not drawn, because the history is missing or damaged: {some}")
    published = curve_of(sweep.plan.points[0].config) if column == "loss" else None
    return Curves(tuple(drawn), column, unit, tuple(left_out), published)


def _curve(group: Group, sweep: SavedSweep, column: str, damaged: list[str], *, is_best: bool) -> Curve | None:
    """The curve of a group; None where no history has a row. Points whose history is `damaged` are added to that."""
    found = list[_Losses]()
    for result in group.results:
        if result.status == "completed":
            if has_whole_history(sweep.path / result.path):
                found.append(_losses(result, sweep, column))
            else:
                damaged.append(result.path or result.point.name)
    found = [losses for losses in found if len(losses)]
    if not found:
        return None
    longest = max(map(len, found))
    rows = evenly(longest, _MAX_ROWS)
    table = np.full((len(found), len(rows)), math.nan)
    for place, losses in enumerate(found):
        here = [row for row in rows if row < len(losses)]  # patience ends some earlier
        table[place, : len(here)] = losses[here]
    values = np.nanquantile(table, list(QUANTILES.values()), axis=0)
    quantiles = {name: tuple(map(float, line)) for name, line in zip(QUANTILES, values, strict=True)}
    label = _label(group, sweep)
    return Curve(label, len(found), tuple(row + 1 for row in rows), quantiles, is_best)


def _losses(result: Result, sweep: SavedSweep, column: str) -> _Losses:
    history = Reader(sweep.path / result.path / HISTORY)
    history.read()
    return np.asarray(history.columns.get(column, ()), dtype=np.float64)


def _label(group: Group, sweep: SavedSweep) -> str:
    """What a group is called: the values of all keys but the seed."""
    said = ", ".join(f"{key} {_short(shown(value))}" for key, value in group.values.items())
    return said or f"{len(group.results):,} seeds"


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:11]}…{text[-12:]}"


@dataclass(frozen=True)
class Cell:
    """One cell of the heat map: its median loss over the seeds, if any; None where no point was completed."""

    x: str
    y: str
    loss: float | None
    is_best: bool


@dataclass(frozen=True)
class Grid:
    """The heat map of two keys: the keys, their values in order, and the cells; whether one has several seeds."""

    x: str
    y: str
    x_values: tuple[str, ...]
    y_values: tuple[str, ...]
    cells: tuple[Cell, ...]
    column: str
    has_seeds: bool


def grid(sweep: SavedSweep) -> Grid | None:
    """The heat map, where exactly two keys vary besides the seed."""
    keys = [key for key in sweep.plan.keys if key != "seed"]
    if len(keys) != 2:
        return None
    y, x = keys
    name = score_name(sweep.results)
    found = [(group.values, statistics.spread(group.results, name)) for group in statistics.groups(sweep.results)]
    losses = [spread.median for _, spread in found if spread is not None]
    cells = [
        Cell(
            _short(shown(values[x])),
            _short(shown(values[y])),
            spread.median if spread is not None else None,
            spread is not None and spread.median == min(losses),
        )
        for values, spread in found
    ]
    values = [_values(sweep, key) for key in (x, y)]
    has_seeds = any(spread is not None and spread.count > 1 for _, spread in found)
    return Grid(x, y, values[0], values[1], tuple(cells), name.removeprefix("final_"), has_seeds) if cells else None


def _values(sweep: SavedSweep, key: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_short(shown(point.values[key])) for point in sweep.plan.points))


def with_seeds(found: Sequence[Curve]) -> bool:
    """Whether a curve has a band."""
    return any(curve.count > 1 for curve in found)
