"""A sweep in a few lines and tables: the points by their loss, how they spread over seeds, the published losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twolayer.formatting import counted, duration, shown
from twolayer.runs.history import Reader
from twolayer.runs.run_files import HISTORY, has_whole_history
from twolayer.sweeps import statistics
from twolayer.sweeps.points import Plan
from twolayer.sweeps.published import curve_of
from twolayer.sweeps.results import Result, ranked, score_name
from twolayer.sweeps.saved_sweep import SavedSweep, varied
from twolayer.sweeps.statistics import Group

_FEW_SEEDS = 20  # fewer have no 95 % band
Table = tuple[list[str], list[list[str]]]  # the names of the columns, and the rows


def point_table(plan: Plan, results: Sequence[Result], micro: str = "µs") -> Table:
    """The points as rows, without the columns in which no point has a value."""
    cells = {
        **{key: [shown(result.point.values[key]) for result in results] for key in plan.keys},
        "status": [result.status for result in results],
        "loss": [number(result.number("final_loss")) for result in results],
        "val_loss": [number(result.number("final_val_loss")) for result in results],
        "accuracy": [number(result.number("final_accuracy")) for result in results],
        "val_accuracy": [number(result.number("final_val_accuracy")) for result in results],
        "best": [number(result.number("best_loss")) for result in results],
        "time": [_time(result.number("seconds"), micro) for result in results],
    }
    if {result.status for result in results} == {"completed"}:
        del cells["status"]
    kept = {name: column for name, column in cells.items() if any(column) or name in plan.keys}
    return list(kept), [list(row) for row in zip(*kept.values(), strict=True)]


def spread_table(plan: Plan, results: Sequence[Result]) -> Table:
    """Median, quartiles and range over the seeds that have a loss, a row for each combination of the other keys."""
    name, keys = score_name(results), [key for key in plan.keys if key != "seed"]
    rows = list[list[str]]()
    for group in statistics.groups(results):
        spread = statistics.spread(group.results, name)
        figures, count, every = [""] * 5, 0, len(group.results)
        if spread is not None:
            numbers = (spread.least, spread.lower, spread.median, spread.upper, spread.largest)
            figures, count = [*map(number, numbers)], spread.count
        values = [shown(group.values[key]) for key in keys]
        rows.append([*values, str(count) if count == every else f"{count} of {every}", *figures])
    return [*keys, "seeds", "min", "1st quartile", "median", "3rd quartile", "max"], rows


def value_table(plan: Plan, results: Sequence[Result]) -> Table:
    """Each value of each key that varies: its points, their median loss and range over all other keys."""
    name, rows = score_name(results), list[list[str]]()
    for key in plan.keys:
        by_value: dict[str, list[Result]] = {}
        for result in results:
            by_value.setdefault(shown(result.point.values[key]), []).append(result)
        order = {shown(point.values[key]): point.number for point in reversed(plan.points)}
        for value in sorted(by_value, key=order.__getitem__):
            spread = statistics.spread(by_value[value], name)
            count = len(by_value[value])
            figures = ["", "", ""]
            if spread is not None:
                figures = [*map(number, (spread.least, spread.median, spread.largest))]
            diverged = sum(result.status == "diverged" for result in by_value[value])
            rows.append([key, value, str(count), *figures, str(diverged or "")])
    label = name.removeprefix("final_")
    names = ["key", "value", "points", f"min {label}", f"median {label}", f"max {label}", "diverged"]
    if not any(row[-1] for row in rows):
        names, rows = names[:-1], [row[:-1] for row in rows]
    return names, rows


def summary_lines(sweep: SavedSweep) -> list[tuple[str, str]]:
    """What varies, what is done, and the config, each line with its name."""
    config, keys = sweep.plan.points[0].config, sweep.plan.keys
    lines = [("sweep", f"{sweep.name}, {sweep.status}, {sweep.done:,} of {len(sweep.plan.points):,} points")]
    fixed = [config.shape] if not {"N", "D_in", "H", "D_out"} & {*keys} else []
    fixed += [f"{key} {shown(getattr(config, key))}" for key in ("lr", "seed", "epochs") if key not in keys]
    lines.append(("config", ", ".join([Path(sweep.plan.source).name, *fixed])))
    lines += [(key, values) for key, values in varied(sweep.plan).items()]
    return [*lines, *([("note", sweep.note)] if sweep.note else [])]


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
    if left := len(plan.points) - sum(counts.values()):
        counts["not trained yet"] = left
    statuses = [f"{count:,} {status}" for status, count in counts.items() if count]
    yield f"{counted(len(plan.points), 'point')}: {', '.join(statuses)}"


def _best(results: Sequence[Result]) -> Iterator[str]:
    """The best of n, called that."""
    name, good = score_name(results), _scored(results)
    if len(good) < 2:
        return
    label, value = name.removeprefix("final_"), number(good[0].number(name))
    yield f"best of {len(good):,} by {label}: {good[0].point.name} ({label} {value})"
    if name == "final_val_loss":
        yield "being the best of them is partly luck: on other rows expect a larger loss than its val_loss"


def _scored(results: Sequence[Result]) -> list[Result]:
    """The completed points that have the figure by which they are compared, the best first."""
    name = score_name(results)
    return [result for result in ranked(results) if result.status == "completed" and result.number(name) is not None]


def best_of(results: Sequence[Result]) -> Result | None:
    """The completed point with the smallest validation loss, else final loss."""
    return next(iter(_scored(results)), None)


def _compared(group: Group, folder: Path | None, losses: Mapping[int, Mapping[int, float]] | None) -> Iterator[str]:
    """Where the published losses lie among those of the seeds."""
    good = [result for result in group.results if result.status == "completed"]
    published = curve_of(group.results[0].point.config)
    if published is None:
        return
    label = "".join(f"{key} {shown(value)}, " for key, value in group.values.items())
    if len(good) < _FEW_SEEDS:
        yield f"{label}published losses ({published.name}): compared from {_FEW_SEEDS} seeds on"
        return
    curves = [_curve(result, folder) if losses is None else losses[result.point.number] for result in good]
    if broken := sum(not curve for curve in curves):
        what = f"the history of {counted(broken, 'point')} is missing or damaged"
        yield f"{label}published losses ({published.name}): not compared, because {what}"
        return
    rows = [row for row in published.losses if all(row in curve for curve in curves)]
    if not rows:
        return
    band = statistics.band([[curve[row] for row in rows] for curve in curves])
    inside = sum(low <= published.losses[row] <= high for row, (low, high) in zip(rows, band, strict=True))
    where = f"at {inside} of {len(rows)} iterations" if inside < len(rows) else f"at all {len(rows)} iterations"
    yield f"{label}published losses ({published.name}): inside the 95 % band of {len(good)} seeds {where}"


def _curve(result: Result, folder: Path | None) -> dict[int, float]:
    """The losses of a saved point by iteration; none where its history is missing or damaged."""
    if folder is None or not has_whole_history(folder / result.path):
        return {}
    history = Reader(folder / result.path / HISTORY)
    history.read()
    return dict(enumerate(history.columns["loss"], 1))


def number(value: Any) -> str:
    """A number to six digits; empty for None."""
    return "" if value is None else f"{value:.6g}"


def _time(seconds: float | None, micro: str) -> str:
    return duration(seconds, micro) if seconds is not None else ""
