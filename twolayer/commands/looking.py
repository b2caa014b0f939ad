"""The commands that look at runs: `runs`, `show`, `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from twolayer import console, listing, runs, saved
from twolayer.options import FormatOption

commands = typer.Typer()

SavedArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run: its folder, or its name in runs.")]


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


@commands.command(epilog="Example:  twolayer show default-1 --follow")
def show(
    run: SavedArgument,
    everything: Annotated[bool, typer.Option("--all", help="Print all rows, not as many as the screen holds.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Stay with a run that is going on, until it ends.")] = False,
    scale: Annotated[
        Literal["auto", "log", "linear"], typer.Option("--scale", help="auto is log over more than two decades.")
    ] = "auto",
    format_: FormatOption = "table",
) -> None:
    """Show a run: in brief, its loss as a curve, and its table.

    csv and jsonl print all rows with every digit, and nothing else.
    """
    found = saved.read(runs.find(run))
    from twolayer import showing  # a tenth of a second, nearly all of it numpy

    if follow and found.status == "running":
        raise typer.Exit(showing.follow(found, format_, scale))
    is_there = not found.history.problem or len(found.history) or (format_ == "table" and (found.info or found.config))
    if is_there:
        showing.show(found, format_, scale, everything=everything)
    for problem in found.problems:
        console.note(problem)
    if not is_there:
        raise typer.Exit(1)
