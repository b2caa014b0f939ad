"""The commands that look at runs: `runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twolayer import console, listing, runs
from twolayer.options import FormatOption

commands = typer.Typer()


@commands.command("runs", epilog="Example:  twolayer runs --format csv")
def runs_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the runs are.")] = runs.RUNS,
    format_: FormatOption = "table",
) -> None:
    """List the runs, newest first."""
    rows, broken = listing.listed(folder)
    columns: tuple[str, ...] = listing.COLUMNS
    if format_ == "table":  # in eighty columns; the other formats have every column and every digit
        columns, rows = listing.brief(rows)
    console.rows(columns, rows, format_)
    for message in broken:
        console.note(message)
