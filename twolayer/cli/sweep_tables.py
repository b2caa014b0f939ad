"""The results of a sweep as tables, and what is to be said about them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from twolayer.cli import terminal
from twolayer.cli.terminal import Format, out
from twolayer.formatting import duration, json_number, microseconds_unit, safe, shown
from twolayer.reporting import sweep_summary
from twolayer.runs import names
from twolayer.sweeps.points import Plan
from twolayer.sweeps.results import Result, cells, columns, ranked, score_name, table
from twolayer.sweeps.saved_sweep import SavedSweep

_ROWS = 20  # of a table on the screen
_DROP = ("time", "best", "accuracy", "iterations", "status")  # columns that a narrow screen leaves out


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


def in_words(result: Result) -> str:
    """A point that has ended, in a line."""
    said = [result.status]
    for name in ("final_loss", "final_val_loss"):
        if (value := result.number(name)) is not None:
            said.append(f"{name.removeprefix('final_')} {value:.6g}")
    if (seconds := result.number("seconds")) is not None:
        said.append(duration(seconds, microseconds_unit(terminal.err().options.ascii_only)))
    return f"{result.point.name}: {', '.join(said)}"


def print_rows(plan: Plan, results: Sequence[Result], form: Format) -> None:
    """Print all points in order: as a table, or as csv or JSON lines."""
    ordered = sorted(results, key=lambda result: result.point.number)
    if form == "table":
        _print(plan, ordered)
    elif form == "csv":
        terminal.write(table(plan, ordered))
    else:
        terminal.write("".join(json_line(plan, result) for result in ordered))


def print_sweep(sweep: SavedSweep) -> None:
    """Print a sweep: what varies, its tables, and what is to be said about them."""
    lines = sweep_summary.summary_lines(sweep)
    indent = max(len(name) for name, _ in lines) + 2
    for name, text in lines:
        out().print(Text.assemble((f"{name:<{indent}}", "bold"), safe(text)))
    if sweep.results:
        out().print()
        print_tables(sweep.plan, sweep.results)
        out().print()
        for line in sweep_summary.remarks(sweep.plan, sweep.results, sweep.path):
            out().print(Text(safe(line)))


def print_values(sweep: SavedSweep, form: Format) -> None:
    """Print the values of each key that varies side by side."""
    names, rows = sweep_summary.value_table(sweep.plan, sweep.results)
    terminal.rows(names, rows, form)


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
    _print(plan, rows)
    if len(rows) < len(order):
        out().print(f"and {len(order) - len(rows):,} more points")


def _print(plan: Plan, rows: Sequence[Result]) -> None:
    names, cells = sweep_summary.point_table(plan, rows, microseconds_unit(out().options.ascii_only))
    terminal.rows(names, cells, "table", drop=_DROP)


def print_spreads(plan: Plan, results: Sequence[Result]) -> None:
    """Print median, quartiles and range over the seeds, for each combination of the other keys."""
    names, rows = sweep_summary.spread_table(plan, results)
    out().print(f"{score_name(results).removeprefix('final_')} over seeds", style="bold")
    terminal.rows(names, rows, "table", drop=("min", "max"))
