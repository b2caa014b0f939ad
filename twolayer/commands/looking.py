"""The commands that look at runs: `runs`, `plot`, `report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated, Literal

import typer

from twolayer import console, listing, runs
from twolayer.options import FormatOption, RunsArgument

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


@commands.command(epilog="Example:  twolayer plot default-1 default-2 -o loss.png")
def plot(
    names: RunsArgument,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FILE", help="A .png, .svg, .pdf or .html to write; one that is there is replaced."
        ),
    ],
    scale: Annotated[
        Literal["auto", "log", "linear"],
        typer.Option("--scale", help="Of the loss; auto takes log where losses span a factor of 100."),
    ] = "auto",
) -> None:
    """Draw the losses of runs, a line each; those of validation dashed.

    A page (.html) is one file and asks the network for nothing: it tells the numbers, moves and zooms.
    """
    from twolayer import plotting, saved

    plotting.check_name(out)
    found = [saved.read(path) for path in dict.fromkeys(map(runs.find, names))]
    for problem in (problem for run in found for problem in run.problems):
        console.note(problem)
    for reason in plotting.write(found, out, scale):
        console.note(reason)
    console.note(f"wrote {out}")


@commands.command(epilog="Example:  twolayer report default-1 default-2 --open")
def report(
    names: RunsArgument,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="The page to write; one that is there is replaced.")
    ] = Path("report.html"),
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write a page of one run, or of several beside each other.

    It is one file and asks the network for nothing: the config, what computed, the curve, every row of the history, and
    a picture of the weights.
    """
    from twolayer import report, saved

    report.check_name(out)
    problems = report.write([saved.read(runs.find(name)) for name in names], out)
    for problem in problems:
        console.note(problem)
    console.note(f"wrote {out}")
    if open_ and not webbrowser.open(out.absolute().as_uri()):
        console.note("no browser was found to open it with")
