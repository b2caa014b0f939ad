"""Compares runs with the first one: what differs, and whether their histories agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twolayer.formatting import safe
from twolayer.reporting.summary import metrics
from twolayer.runs.history import Reader
from twolayer.runs.saved_run import SavedRun

COLUMNS = ("what", "run", "value", "reference", "difference", "relative")
ENVIRONMENT = ("twolayer", "torch", "python", "platform", "cpu_capability", "device")  # keys of run.json
# What a training starts with, and the keys of the config that determine it: all is drawn from one random stream.
_DRAWN = frozenset({"N", "D_in", "D_out", "seed", "dtype", "validation"})
STARTED_WITH = {"data_sha256": _DRAWN, "validation_sha256": _DRAWN, "initial_sha256": _DRAWN | {"H", "init"}}
LOSSES = ("loss", "val_loss")

Kind = Literal["setting", "checksum", "rows", "metric", "first_difference", "largest_difference", "time"]
Change = tuple[float, float | None]  # absolute and relative


@dataclass(frozen=True)
class Row:
    """One row of a comparison: a value for each run, the first run's first; None where a run has none.

    `differences` are those from the first run, None where there are none; `not_compared` says for each run why it has
    none though it has a value, and is empty otherwise.
    """

    kind: Kind
    name: str
    values: tuple[Any, ...]
    differences: tuple[Change | None, ...]
    not_compared: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Where a column of two histories differs: the row (from 1), the first run's number there, and the other's."""

    row: int
    reference: float
    value: float


_Where = Difference | Change | None


def compare(runs: Sequence[SavedRun]) -> list[Row]:
    """The rows: what differs in configs and environments, then numbers of rows, losses, other metrics and times."""
    found = [_setting("status", [run.status for run in runs])] if len({run.status for run in runs}) > 1 else []
    differ = differences(runs)
    found += [_setting(key, values) for key, values in differ.items()]
    found += [_setting(key, values) for key, values in environment(runs, set(differ))]
    units = [run.history.unit for run in runs]
    unit = units[0] if len(set(units)) == 1 else "row"
    if unit == "row":
        found.append(_setting("unit", units))
    other_unit = ["" if other == units[0] else "other unit" for other in units]
    counts = [len(run.history) for run in runs]
    found.append(_row("rows", "rows" if unit == "row" else f"{unit}s done", counts, other_unit))
    found += _metrics(runs)
    found.append(_row("time", f"seconds per {unit}", [run.each for run in runs], other_unit))
    return found


def _metrics(runs: Sequence[SavedRun]) -> Iterator[Row]:
    """The first, best, last and final value of every column, and where the histories differ in it."""
    found = [metrics(run) for run in runs]
    kinds = [run.loss_kind for run in runs]
    other_loss = ["other loss" if kind and kinds[0] and kind != kinds[0] else "" for kind in kinds]
    for name in dict.fromkeys(name for one in found for name in one):
        why = other_loss if name in LOSSES else [""] * len(runs)
        for figure in ("first", "best", "last", "final"):
            values = [getattr(one[name], figure) if name in one else None for one in found]
            if any(value is not None for value in values) and (name, figure) != ("lr", "best"):
                yield _row("metric", f"{figure} {name}", values, why)
        places = [
            (None, None) if reason else _places(runs[0].history, run.history, name)
            for run, reason in zip(runs, why, strict=True)
        ]
        yield _place("first_difference", f"{name} differs from", [first for first, _ in places])
        yield _place("largest_difference", f"{name} differs most at", [largest for _, largest in places])


def tidy(found: Sequence[Row], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows with COLUMNS: one for each row and each run after the first."""
    return [
        (row.name, name, value, row.values[0], *(difference or (None, None)))
        for row in found
        for name, value, difference in list(zip(names, row.values, row.differences, strict=True))[1:]
    ]


def disagreement(reference: SavedRun, run: SavedRun, tolerance: float = 0.0) -> str:
    """Where the two histories first disagree, and by how much; empty where all rows agree.

    Numbers a and b, a the reference's, agree where |a - b| <= tolerance |a|, or both are nan, or the same infinity.
    A damaged history agrees with no other.
    """
    for one in (reference, run):
        if one.history.problem:
            return f"{one.history.path}: {one.history.problem}"
        if damage := next((problem for problem in one.problems if problem.startswith(f"{one.history.path}: ")), ""):
            return damage
    a, b = reference.history, run.history
    if reference.loss_kind and run.loss_kind and reference.loss_kind != run.loss_kind:
        return f"its loss is {run.loss_kind}, not {reference.loss_kind}"
    if (a.unit, *a.columns) != (b.unit, *b.columns):
        return f"its history has {', '.join((b.unit, *b.columns))}, not {', '.join((a.unit, *a.columns))}"
    places = {name: _first(a.columns[name], b.columns[name], tolerance) for name in a.columns}
    if found := {name: place for name, place in places.items() if place is not None}:
        name = min(found, key=found.__getitem__)
        place, was, now = found[name], a.columns[name][found[name]], b.columns[name][found[name]]
        change = _change(was, now)
        by = ", relative ".join(f"{number:+.3g}" for number in change or () if number is not None)
        return f"{name} at {a.unit} {place + 1} is {now!r}, not {was!r}{': ' if by else ''}{by}"
    if not len(a) and not len(b):
        return f"neither has any {a.unit}s to compare"
    if len(a) != len(b):
        return f"has {len(b)} {b.unit}s, not {len(a)}"
    return ""


def _agree(a: float, b: float, tolerance: float) -> bool:
    if math.isfinite(a) and math.isfinite(b):
        return abs(a - b) <= tolerance * abs(a)
    return a == b or (math.isnan(a) and math.isnan(b))


def _first(a: Sequence[float], b: Sequence[float], tolerance: float) -> int | None:
    """The first index at which two columns do not agree, among those that both have."""
    return next((i for i, pair in enumerate(zip(a, b, strict=False)) if not _agree(*pair, tolerance)), None)


def _places(reference: Reader, history: Reader, name: str) -> tuple[_Where, _Where]:
    """Where a column first differs from the reference's, and where its relative difference is largest.

    Only the rows that both have are compared: no difference, absolute and relative, where those are equal. None where
    the column is not in both, or one has rows of epochs and the other of iterations.
    """
    if reference.unit != history.unit or name not in reference.columns or name not in history.columns:
        return None, None
    a, b = reference.columns[name], history.columns[name]
    first = _first(a, b, 0.0)
    if first is None:
        return (0.0, 0.0), (0.0, 0.0)
    largest = max(range(first, min(len(a), len(b))), key=lambda i: _size(a[i], b[i]))
    return Difference(first + 1, a[first], b[first]), Difference(largest + 1, a[largest], b[largest])


def _size(a: float, b: float) -> float:
    """The size of the relative difference; infinite where a number is not finite, or the reference is 0."""
    if _agree(a, b, 0.0):
        return 0.0
    change = _change(a, b)
    return abs(change[1]) if change is not None and change[1] is not None else math.inf


def _change(a: float, b: float) -> Change | None:
    """The difference b - a, absolute and relative to |a|; None where it is not finite."""
    difference = b - a
    if not math.isfinite(difference):
        return None
    relative = difference / abs(a) if a else (0.0 if not difference else None)
    return difference, relative if relative is not None and math.isfinite(relative) else None


def _setting(name: str, values: Sequence[Any]) -> Row:
    kind: Kind = "checksum" if name.endswith("_sha256") else "setting"
    return Row(kind, name, tuple(values), (None,) * len(values), ("",) * len(values))


def _row(kind: Kind, name: str, values: Sequence[float | None], not_compared: Sequence[str]) -> Row:
    """A number of each run, and its difference from the first run's."""
    first = values[0]
    found = [
        _change(first, value) if first is not None and value is not None and not reason else None
        for value, reason in zip(values, not_compared, strict=True)
    ]
    return Row(kind, name, tuple(values), (None, *found[1:]), tuple(not_compared))


def _place(kind: Kind, name: str, places: Sequence[_Where]) -> Row:
    """A row of each run's history, and the difference from the first run's there."""
    values = [place.row if isinstance(place, Difference) else None for place in places]
    found = [_change(place.reference, place.value) if isinstance(place, Difference) else place for place in places]
    return Row(kind, name, tuple(values), (None, *found[1:]), ("",) * len(values))


def environment(runs: Sequence[SavedRun], differ: set[str]) -> Iterator[tuple[str, list[str | None]]]:
    """What differs in the environments; and in what the runs started with, where their configs do not explain it.

    `differ` are the keys of the configs that differ.
    """
    keys = [key for key in ENVIRONMENT if key not in differ]
    if not any(key.startswith("data.") for key in differ):
        keys += [key for key, causes in STARTED_WITH.items() if not differ & causes]
    for key in keys:
        values = [run.texts(key) or None for run in runs]
        if len({value for value in values if value is not None}) > 1:
            yield key, values


def names(runs: Sequence[SavedRun]) -> list[str]:
    """Names of the runs: their folders' names, or their paths where two names are the same."""
    short = [safe(run.name) for run in runs]
    return short if len(set(short)) == len(short) else [safe(run.path) for run in runs]


def differences(runs: Sequence[SavedRun]) -> dict[str, list[Any]]:
    """The keys whose values differ among the configs that can be read, with the value of each run.

    The value is None for a run whose config cannot be read or does not have the key.
    """
    known = [run.values for run in runs]
    keys = dict.fromkeys(key for values in known for key in values)
    differ = [key for key in keys if len({repr(values.get(key)) for values in known if values}) > 1]
    return {key: [values.get(key) for values in known] for key in differ}
