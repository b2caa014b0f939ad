"""Runs held against the first of them: what differs, and whether their histories agree. Reads run folders only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twolayer.formatting import safe
from twolayer.reporting.summary import metrics
from twolayer.runs.history import Reader
from twolayer.runs.saved_run import SavedRun

COLUMNS = ("what", "run", "value", "reference", "difference", "relative")
# What run.json says of the computing.
COMPUTED = ("twolayer", "torch", "python", "platform", "cpu_capability", "device")
# What a training begins with, and the keys of the config that it follows from: all is drawn from one stream.
_DRAWN = frozenset({"N", "D_in", "D_out", "seed", "dtype", "validation"})
BEGUN = {"data_sha256": _DRAWN, "validation_sha256": _DRAWN, "initial_sha256": _DRAWN | {"H", "init"}}


@dataclass(frozen=True)
class Row:
    """One thing of all the runs: `values` a run each, the first run's first; None where a run has no such thing.

    `gaps` are the differences from the first run, absolute and relative to it, a run each; None where there are none.
    `is_measured` tells a figure of the training from what was set.
    """

    what: str
    values: tuple[Any, ...]
    gaps: tuple[tuple[float, float | None] | None, ...]
    is_measured: bool = False


@dataclass(frozen=True)
class Difference:
    """Where a column of two histories differs: the row (from 1), the first run's number there, and the other's."""

    row: int
    reference: float
    value: float


_Where = Difference | tuple[float, float] | None


def compared(runs: Sequence[SavedRun]) -> list[Row]:
    """What differs in what the runs are (the configs key by key, what computed), and what came out of them all."""
    things = [_thing("status", [run.status for run in runs])] if len({run.status for run in runs}) > 1 else []
    differ = differences(runs)
    things += [_thing(key, values) for key, values in differ.items()]
    things += [_thing(key, values) for key, values in computed(runs, set(differ))]
    units = [run.history.unit for run in runs]
    unit = units[0] if len(set(units)) == 1 else "row"
    if unit == "row":
        things.append(_thing("unit", units))
    things.append(_counted(f"{unit}s", [len(run.history) for run in runs], units))
    found = [metrics(run) for run in runs]
    for name in dict.fromkeys(name for one in found for name in one):
        for figure in ("first", "best", "last", "final"):
            values = [getattr(one[name], figure) if name in one else None for one in found]
            if any(value is not None for value in values) and (name, figure) != ("lr", "best"):
                things.append(_figure(f"{figure} {name}", values))
        unlike = [_unlike(runs[0].history, run.history, name) for run in runs]
        things.append(_place(f"{name} differs from", [first for first, _ in unlike]))
        things.append(_place(f"{name} differs most at", [most for _, most in unlike]))
    things.append(_counted(f"seconds per {unit}", [run.each for run in runs], units))
    return things


def rows(things: Sequence[Row], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The same as tidy rows with COLUMNS, one for each thing and run but the first."""
    found = []
    for thing in things:
        for name, value, gap in list(zip(names, thing.values, thing.gaps, strict=True))[1:]:
            found.append((thing.what, name, value, thing.values[0], *(gap or (None, None))))
    return found


def disagreement(reference: SavedRun, run: SavedRun, tolerance: float = 0.0) -> str:
    """The first place where the two histories do not agree, and how; empty where they agree to the end.

    Numbers a and b, a the reference's, agree where |a - b| <= tolerance |a|, or both are nan, or the same infinity.
    A history that is damaged agrees with none.
    """
    for one in (reference, run):
        if one.history.problem:
            return f"{one.history.path}: {one.history.problem}"
        if damage := next((problem for problem in one.problems if problem.startswith(f"{one.history.path}: ")), ""):
            return damage
    a, b = reference.history, run.history
    if (a.unit, *a.columns) != (b.unit, *b.columns):
        return f"its history has {', '.join((b.unit, *b.columns))}, and not {', '.join((a.unit, *a.columns))}"
    places = {name: _first(a.columns[name], b.columns[name], tolerance) for name in a.columns}
    if found := {name: place for name, place in places.items() if place is not None}:
        name = min(found, key=found.__getitem__)
        place, was, now = found[name], a.columns[name][found[name]], b.columns[name][found[name]]
        gap = _gap(was, now)
        by = ", relative ".join(f"{number:+.3g}" for number in gap or () if number is not None)
        return f"{name} at {a.unit} {place + 1} is {now!r}, and not {was!r}{': ' if by else ''}{by}"
    if not len(a) and not len(b):
        return f"neither has {a.unit}s that could agree"
    if len(a) != len(b):
        return f"has {len(b)} {b.unit}s, and not {len(a)}"
    return ""


def _agree(a: float, b: float, tolerance: float) -> bool:
    if math.isfinite(a) and math.isfinite(b):
        return abs(a - b) <= tolerance * abs(a)
    return a == b or (math.isnan(a) and math.isnan(b))


def _first(a: Sequence[float], b: Sequence[float], tolerance: float) -> int | None:
    """The first place at which two columns, as far as both go, do not agree."""
    return next((i for i, pair in enumerate(zip(a, b, strict=False)) if not _agree(*pair, tolerance)), None)


def _unlike(reference: Reader, history: Reader, name: str) -> tuple[_Where, _Where]:
    """Where a column first differs from the reference's, and where most for its size; as far as both go.

    No difference, absolute and relative, where it does nowhere; None where it is not in both, for rows of one unit.
    """
    if reference.unit != history.unit or name not in reference.columns or name not in history.columns:
        return None, None
    a, b = reference.columns[name], history.columns[name]
    first = _first(a, b, 0.0)
    if first is None:
        return (0.0, 0.0), (0.0, 0.0)
    most = max(range(first, min(len(a), len(b))), key=lambda i: _size(a[i], b[i]))
    return Difference(first + 1, a[first], b[first]), Difference(most + 1, a[most], b[most])


def _size(a: float, b: float) -> float:
    """How large a difference is for the reference; infinite where one is not finite, or the reference is 0."""
    if _agree(a, b, 0.0):
        return 0.0
    gap = _gap(a, b)
    return abs(gap[1]) if gap is not None and gap[1] is not None else math.inf


def _gap(a: float, b: float) -> tuple[float, float | None] | None:
    """The difference from the reference a, absolute and relative, as far as there are such numbers."""
    difference = b - a
    if not math.isfinite(difference):
        return None
    relative = difference / abs(a) if a else (0.0 if not difference else None)
    return difference, relative if relative is not None and math.isfinite(relative) else None


def _thing(what: str, values: Sequence[Any]) -> Row:
    return Row(what, tuple(values), (None,) * len(values))


def _figure(what: str, values: Sequence[float | None]) -> Row:
    """A number of each run, and how far it is from the first run's."""
    first = values[0]
    gaps = [_gap(first, value) if first is not None and value is not None else None for value in values]
    return Row(what, tuple(values), (None, *gaps[1:]), is_measured=True)


def _counted(what: str, values: Sequence[float | None], units: Sequence[str]) -> Row:
    """A figure that is of rows: one of epochs is not held against one of iterations."""
    thing = _figure(what, values)
    gaps = (gap if unit == units[0] else None for gap, unit in zip(thing.gaps, units, strict=True))
    return replace(thing, gaps=tuple(gaps))


def _place(what: str, found: Sequence[_Where]) -> Row:
    """A row of each run's history, and how far it is there from the first run's."""
    values = [one.row if isinstance(one, Difference) else None for one in found]
    gaps = [_gap(one.reference, one.value) if isinstance(one, Difference) else one for one in found]
    return Row(what, tuple(values), (None, *gaps[1:]), is_measured=True)


def computed(runs: Sequence[SavedRun], differ: set[str]) -> Iterator[tuple[str, list[str | None]]]:
    """What computed, where that differs, and what the runs began with, where the configs do not explain it."""
    keys = [key for key in COMPUTED if key not in differ]
    if not any(key.startswith("data.") for key in differ):
        keys += [key for key, causes in BEGUN.items() if not differ & causes]
    for key in keys:
        values = [run.texts(key) or None for run in runs]
        if len({value for value in values if value is not None}) > 1:
            yield key, values


def names(runs: Sequence[SavedRun]) -> list[str]:
    """What to call the runs: by their folders' names, and by their paths where two of those are the same."""
    short = [safe(run.name) for run in runs]
    return short if len(set(short)) == len(short) else [safe(run.path) for run in runs]


def differences(runs: Sequence[SavedRun]) -> dict[str, list[Any]]:
    """The keys whose values are not the same in all the configs that can be read, and those values, a run each.

    A run whose config cannot be read, or does not have the key, stands there with None.
    """
    known = [run.values for run in runs]
    keys = dict.fromkeys(key for values in known for key in values)
    differ = [key for key in keys if len({repr(values.get(key)) for values in known if values}) > 1]
    return {key: [values.get(key) for values in known] for key in differ}
