"""The command `runs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from twolayer.cli import sweep_tables, terminal
from twolayer.cli.options import FormatOption, home
from twolayer.cli.terminal import Format
from twolayer.formatting import duration, microseconds_unit
from twolayer.runs import listing
from twolayer.runs.listing import RunRow
from twolayer.runs.names import RUNS
from twolayer.sweeps import saved_sweep
from twolayer.sweeps.folder import is_sweep

commands = typer.Typer()

# The columns that may be left out where the screen is too narrow, the first one first.
DROP = ("device", "time", "first", "shape", "best", "seed", "note", "loss", "done", "lr", "target", "val_loss", "last")


@commands.command("runs", epilog="Example:  twolayer runs --format csv")
def runs_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder that holds the runs.", callback=home)
    ] = RUNS,
    format_: FormatOption = "table",
) -> None:
    """List the runs, newest first.

    A sweep is one row, with the smallest losses of its points; `twolayer runs runs/NAME` lists these.
    """
    if is_sweep(folder):
        _print_sweep(folder, format_)
        return
    sweeps, wrong = saved_sweep.list_sweeps(folder)
    rows, problems = listing.list_runs(folder, sweeps)
    if format_ == "table":
        if rows:
            _print(rows)
    else:
        terminal.rows(listing.COLUMNS, [row.values() for row in rows], format_)
    for problem in [*problems, *wrong]:
        terminal.note(problem)


def _print_sweep(folder: Path, form: Format) -> None:
    sweep = saved_sweep.read(folder)
    sweep_tables.print_rows(sweep.plan, sweep.results, form)
    for problem in sweep.problems:
        terminal.note(problem)


def _print(rows: Sequence[RunRow]) -> None:
    """Print a table for the screen: rounded numbers, and no column in which no run has a value."""
    micro = microseconds_unit(terminal.out().options.ascii_only)
    columns = {
        "run": [row.run for row in rows],
        "status": [row.status for row in rows],
        "target": [row.target for row in rows],
        "loss": _loss_kinds(rows),
        "shape": [str(row.shape or "").replace(" ", "") for row in rows],
        "lr": [_number(row.lr) for row in rows],
        "seed": [_number(row.seed) for row in rows],
        "done": [_number(row.iterations) for row in rows],
        "first": [_number(row.first_loss) for row in rows],
        "best": [_number(row.best_loss) for row in rows],
        "last": [_number(row.last_loss) for row in rows],
        "val_loss": [_number(row.val_loss) for row in rows],
        "time": [duration(row.seconds, micro) if isinstance(row.seconds, float) else "" for row in rows],
        "device": [str(row.device or "") for row in rows],
        "note": [str(row.note or "") for row in rows],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells) or not rows}
    # The columns in which all runs are equal make room first: what distinguishes two runs stays.
    drop = sorted(DROP, key=lambda name: len(set(columns[name])) > 1)
    terminal.rows(tuple(shown), list(zip(*shown.values(), strict=True)), "table", drop=drop)


def _loss_kinds(rows: Sequence[RunRow]) -> list[str]:
    """The kind of each run's loss, without its reduction where all runs with that loss have the same one."""
    kinds = {row.loss for row in rows}
    names = [kind.partition(", ")[0] for kind in kinds]
    found = []
    for row in rows:
        name = row.loss.partition(", ")[0]
        found.append(name if names.count(name) == 1 else row.loss)
    return found


def _number(value: Any) -> str:
    """A number to four digits; text as it is."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
