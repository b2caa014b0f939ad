"""The command `report`."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from twolayer.cli import terminal
from twolayer.cli.options import RunsArgument, home, sweep_alone
from twolayer.runs import saved_run
from twolayer.runs.names import find

commands = typer.Typer()


@commands.command("report", epilog="Example:  twolayer report default-1 default-2 --open")
def report_command(
    names: RunsArgument,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FILE", help="The page to write; an existing file is replaced.", callback=home
        ),
    ] = Path("report.html"),
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write an HTML report on one or more runs, or on a sweep.

    It is a single file that needs no network: the configs and environments, the loss curves, every row of the
    histories, and images of the weights. Of a sweep it shows the curves with a band over seeds, a heat map where two
    keys vary, and a table of all points.
    """
    from twolayer.reporting.html import report, sweep_report

    report.check_name(out)
    paths = list(map(find, names))
    if (sweep := sweep_alone(paths)) is not None:
        problems: Sequence[str] = sweep_report.write(sweep, out)
    else:
        problems = report.write(list(map(saved_run.read, paths)), out)
    for problem in problems:
        terminal.note(problem)
    terminal.note(f"wrote {out}")
    if open_ and not webbrowser.open(out.absolute().as_uri()):
        terminal.note("no browser was found to open the page")
