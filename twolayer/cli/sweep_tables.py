"""The results of a sweep as tables, and what is to be said about them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twolayer.cli import terminal
from twolayer.cli.terminal import out
from twolayer.formatting import counted, duration, json_number, microseconds_unit, shown
from twolayer.runs import names
from twolayer.runs.history import Reader
from twolayer.runs.run_files import HISTORY
from twolayer.sweeps import statistics
from twolayer.sweeps.points import Plan
from twolayer.sweeps.published import curve_of
from twolayer.sweeps.results import Result, cells, columns, ranked, score_name
from twolayer.sweeps.statistics import Group

_ROWS = 20  # of a table on the screen
_DROP = ("time", "best", "accuracy", "iterations", "status")  # columns that a narrow screen leaves out
_FEW_SEEDS = 20  # fewer have no 95 % band


def json_line(plan: Plan, result: Result) -> str:
    """A result as a line of JSON."""
    row = [json_number(cell) if isinstance(cell, float) else cell for cell in cells(result)]
    values = [value if isinstance(value, (int, float, str, list, type(None))) else shown(value)
              for value in result.point.values.values()]  # fmt: skip
    row[: len(values)] = values
    return json.dumps(dict(zip(columns(plan), row, strict=True))) + "\n"


def name_of(path: Path) -> str:
    """A sweep or a run as a command takes it: its name in runs/, or its path."""
    is_named = path.parent == names.RUNS and names.is_name(path.name) and not Path(path.name).is_dir()
    return shlex.quote(path.name if is_named else str(path))


def print_tables(plan: Plan, results: Sequence[Result]) -> None:
    """Print the points, the best first; and, where the seed varies, how they spread over it."""
    print_points(plan, results)
    if "seed" in plan.keys and len(results) > 1:
        out().print()
        print_spreads(plan, results)


def print_points(plan: Plan, results: Sequence[Result]) -> None:
    """Print the points by their validation loss, else their final loss, the smallest first; on a screen the first."""
    order = ranked(results)
    rows = order[:_ROWS] if out().is_terminal and len(order) > _ROWS + 5 else order
    micro = microseconds_unit(out().options.ascii_only)
    cells = {
        **{key: [shown(result.point.values[key]) for result in rows] for key in plan.keys},
        "status": [result.status for result in rows],
        "loss": [_number(result.number("final_loss")) for result in rows],
        "val_loss": [_number(result.number("final_val_loss")) for result in rows],
        "accuracy": [_number(result.number("final_accuracy")) for result in rows],
        "val_accuracy": [_number(result.number("final_val_accuracy")) for result in rows],
        "best": [_number(result.number("best_loss")) for result in rows],
        "time": [_time(result.number("seconds"), micro) for result in rows],
    }
    cells = {name: column for name, column in cells.items() if any(column)}
    if {result.status for result in order} == {"completed"}:
        del cells["status"]
    terminal.rows(tuple(cells), list(zip(*cells.values(), strict=True)), "table", drop=_DROP)
    if len(rows) < len(order):
        out().print(f"and {len(order) - len(rows):,} more points")


def print_spreads(plan: Plan, results: Sequence[Result]) -> None:
    """Print median, quartiles and range over the seeds, for each combination of the other keys."""
    name, found = score_name(results), statistics.groups(results)
    keys = [key for key in plan.keys if key != "seed"]
    rows = list[tuple[str, ...]]()
    for group in found:
        spread = statistics.spread(group.results, name)
        figures: tuple[str, ...] = ("",) * 5
        if spread is not None:
            numbers = (spread.least, spread.lower, spread.median, spread.upper, spread.largest)
            figures = tuple(map(_number, numbers))
        without = len(group.results) - (spread.count if spread is not None else 0)
        values = [shown(group.values[key]) for key in keys]
        rows.append((*values, str(spread.count if spread is not None else 0), *figures, str(without or "")))
    header = (*keys, "seeds", "min", "quartile", "median", "3rd quartile", "max", "no loss")
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    out().print(f"{name.removeprefix('final_')} over seeds", style="bold")
    terminal.rows(header, rows, "table", drop=("no loss", "min", "max"))


def remarks(
    plan: Plan, results: Sequence[Result], folder: Path | None, losses: Mapping[int, Mapping[int, float]] | None = None
) -> Iterator[str]:
    """The best point, the published losses, and how many points have ended how.

    The losses of the points, by number and iteration, are read from the folder where they are not given.
    """
    yield from _best(results)
    if "seed" in plan.keys:
        for group in statistics.groups(results):
            yield from _compared(group, folder, losses)
    counts = {
        status: sum(result.status == status for result in results) for status in ("completed", "diverged", "failed")
    }
    told = [f"{count:,} {status}" for status, count in counts.items() if count]
    yield f"{counted(len(plan.points), 'point')}: {', '.join(told) or 'none has ended'}"


def _best(results: Sequence[Result]) -> Iterator[str]:
    """The best of so many, called that."""
    name, good = score_name(results), [result for result in ranked(results) if result.status == "completed"]
    good = [result for result in good if result.number(name) is not None]
    if len(good) < 2:
        return
    label, value = name.removeprefix("final_"), _number(good[0].number(name))
    yield f"best of {len(good):,} by {label}: {good[0].point.name} ({label} {value})"
    if name == "final_val_loss":
        yield "being the best of them is partly luck: on other rows expect a larger loss than its val_loss"


def _compared(group: Group, folder: Path | None, losses: Mapping[int, Mapping[int, float]] | None) -> Iterator[str]:
    """Where the published losses lie among those of the seeds."""
    good = [result for result in group.results if result.status == "completed"]
    published = curve_of(group.results[0].point.config)
    if published is None:
        return
    label = "".join(f"{key} {shown(value)}, " for key, value in group.values.items())
    if len(good) < _FEW_SEEDS:
        yield f"{label}published losses ({published.name}): compared with {_FEW_SEEDS} seeds or more"
        return
    curves = [_curve(result, folder) if losses is None else losses[result.point.number] for result in good]
    rows = [row for row in published.losses if all(row in curve for curve in curves)]
    if not rows:
        return
    band = statistics.band([[curve[row] for row in rows] for curve in curves])
    inside = sum(low <= published.losses[row] <= high for row, (low, high) in zip(rows, band, strict=True))
    where = f"at {inside} of {len(rows)} iterations" if inside < len(rows) else f"at all {len(rows)} iterations"
    yield f"{label}published losses ({published.name}): inside the 95 % band of {len(good)} seeds {where}"


def _curve(result: Result, folder: Path | None) -> dict[int, float]:
    """The losses of a saved point by iteration."""
    if folder is None:
        return {}
    history = Reader(folder / result.path / HISTORY)
    history.read()
    return dict(enumerate(history.columns["loss"], 1))


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.6g}"


def _time(seconds: float | None, micro: str) -> str:
    return duration(seconds, micro) if seconds is not None else ""
