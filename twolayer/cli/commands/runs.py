"""The command `runs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from twolayer.cli import terminal
from twolayer.cli.options import FormatOption
from twolayer.runs import listing
from twolayer.runs.folder import RUNS
from twolayer.runs.listing import COLUMNS

commands = typer.Typer()


@commands.command("runs", epilog="Example:  twolayer runs --format csv")
def runs_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that holds the runs.")] = RUNS,
    format_: FormatOption = "table",
) -> None:
    """List the runs, newest first."""
    rows, broken = listing.listed(folder)
    columns: tuple[str, ...] = listing.COLUMNS
    if format_ == "table":  # in eighty columns; the other formats have every column and every digit
        columns, rows = brief(rows)
    terminal.rows(columns, rows, format_)
    for message in broken:
        terminal.note(message)


def brief(rows: Sequence[tuple[Any, ...]]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The columns and rows that a terminal has room for: without the step, and without notes where there are none."""
    has_notes = any(row[-1] for row in rows)
    columns = (
        "run",
        "status",
        "shape",
        "done",
        "first",
        "best",
        "last",
        "time",
        "device",
        *(["note"] if has_notes else []),
    )
    short = []
    for row in rows:
        value = dict(zip(COLUMNS, row, strict=True))
        digits = [f"{number:.3g}" if isinstance(number, float) else "" for number in row[8:12]]
        time = f"{digits.pop()} s" if digits[-1] else digits.pop()
        shape, notes = str(value["shape"]).replace(" ", ""), [value["note"]] if has_notes else []
        short.append(
            (value["run"], value["status"], shape, value["iterations"], *digits, time, value["device"], *notes)
        )
    return columns, short
