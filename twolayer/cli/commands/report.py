"""The command `report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from twolayer.cli import terminal
from twolayer.cli.options import RunsArgument, home
from twolayer.runs import saved_run
from twolayer.runs.names import find

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer report default-1 default-2 --open")
def report(
    names: RunsArgument,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FILE", help="The page to write; an existing file is replaced.", callback=home
        ),
    ] = Path("report.html"),
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write an HTML report on one or more runs.

    It is a single file that needs no network: the configs and environments, the loss curves, every row of the
    histories, and images of the weights.
    """
    from twolayer.reporting.html.report import check_name, write

    check_name(out)
    problems = write([saved_run.read(find(name)) for name in names], out)
    for problem in problems:
        terminal.note(problem)
    terminal.note(f"wrote {out}")
    if open_ and not webbrowser.open(out.absolute().as_uri()):
        terminal.note("no browser was found to open the page")
