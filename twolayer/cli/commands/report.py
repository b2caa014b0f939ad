"""The command `report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from twolayer.cli import terminal
from twolayer.cli.options import RunsArgument
from twolayer.runs import saved_run
from twolayer.runs.folder import find

commands = typer.Typer()


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
    from twolayer.reporting.html.report import check_name, write

    check_name(out)
    problems = write([saved_run.read(find(name)) for name in names], out)
    for problem in problems:
        terminal.note(problem)
    terminal.note(f"wrote {out}")
    if open_ and not webbrowser.open(out.absolute().as_uri()):
        terminal.note("no browser was found to open it with")
