"""The command `plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twolayer.cli import terminal
from twolayer.cli.options import RunsArgument, ScaleOption
from twolayer.runs import saved_run
from twolayer.runs.folder import find

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer plot default-1 default-2 -o loss.png")
def plot(
    names: RunsArgument,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FILE", help="A .png, .svg, .pdf or .html to write; one that is there is replaced."
        ),
    ],
    scale: ScaleOption = "auto",
) -> None:
    """Draw the losses of runs, a line each; those of validation dashed.

    A page (.html) is one file and asks the network for nothing: it tells the numbers, moves and zooms.
    """
    from twolayer.reporting import plot as plotting

    plotting.check_name(out)
    found = [saved_run.read(path) for path in dict.fromkeys(map(find, names))]
    for problem in (problem for run in found for problem in run.problems):
        terminal.note(problem)
    for reason in plotting.write(found, out, scale):
        terminal.note(reason)
    terminal.note(f"wrote {out}")
