"""The command `plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twolayer.cli import terminal
from twolayer.cli.options import RunsArgument, ScaleOption, home, sweep_alone
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
    published: Annotated[
        bool, typer.Option("--published", help="Lay the tutorial's losses over a sweep of scratch or modules.")
    ] = False,
) -> None:
    """Draw the loss curves of runs, or of a sweep, into a file.

    Losses on the validation rows are dashed. A page (.html) is a single file that needs no network: it shows the
    numbers under the pointer, and can be moved and zoomed. Of a sweep it shows a line for each combination, over seeds
    the median with a band, and a heat map where two keys vary.
    """
    from twolayer.reporting import plot as plotting

    plotting.check_name(out)
    paths = list(dict.fromkeys(map(find, names)))
    if (sweep := sweep_alone(paths)) is not None:
        for line in [*sweep.problems, *plotting.write_sweep(sweep, out, scale, published=published)]:
            terminal.note(line)
        terminal.note(f"wrote {out}")
        return
    if published:
        raise typer.BadParameter("--published is for a sweep, such as that of twolayer train modules --seeds 200")
    found = [saved_run.read(path) for path in paths]
    for problem in (problem for run in found for problem in run.problems):
        terminal.note(problem)
    for reason in plotting.write(found, out, scale):
        terminal.note(reason)
    terminal.note(f"wrote {out}")
