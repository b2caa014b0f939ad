"""The command `plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twolayer.cli import terminal
from twolayer.cli.options import RunsArgument, ScaleOption, home
from twolayer.runs import saved_run
from twolayer.runs.names import find

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer plot default-1 default-2 -o loss.png")
def plot(
    names: RunsArgument,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="A .png, .svg, .pdf or .html; an existing file is replaced.",
            callback=home,
        ),
    ],
    scale: ScaleOption = "auto",
) -> None:
    """Draw the loss curves of runs into a file.

    Losses on the validation rows are dashed. A page (.html) is a single file that needs no network: it shows the
    numbers under the pointer, and can be moved and zoomed.
    """
    from twolayer.reporting import plot as plotting

    plotting.check_name(out)
    found = [saved_run.read(path) for path in dict.fromkeys(map(find, names))]
    for problem in (problem for run in found for problem in run.problems):
        terminal.note(problem)
    for reason in plotting.write(found, out, scale):
        terminal.note(reason)
    terminal.note(f"wrote {out}")
