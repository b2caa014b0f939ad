"""The command `data`."""

from __future__ import annotations

from dataclasses import astuple
from typing import Annotated

import typer

from twolayer.cli import terminal
from twolayer.cli.options import FormatOption, SetOption, TargetOption, resolve_data
from twolayer.errors import extra
from twolayer.tables.panics import without_panics

commands = typer.Typer()


@commands.command("data", epilog="Example:  twolayer data my.csv --target price")
def data_command(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A table, or a config that names one.")],
    target: TargetOption = None,
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Show a table's columns, and how a training would use them.

    Whatever prevents a training on this table is listed below, and the exit code is then 1.
    """
    data, targets = resolve_data(path, set_ or [], context)
    with extra("polars", "data"):
        from twolayer.tables import describe

    with without_panics():
        found = describe.summary(
            data.path,
            data.path,
            target=targets,
            inputs=data.inputs,
            exclude=data.exclude,
            missing=data.missing,
            separator=data.separator,
            decimal=data.decimal,
        )
    names = ("column", "type", "used as", "missing", "distinct", "least", "mean", "most")
    if format_ == "table":
        terminal.say(f"{found.rows} rows\n")
    digits = format_ == "table"
    terminal.rows(
        names,
        [
            [f"{cell:.4g}" if digits and isinstance(cell, float) else cell for cell in astuple(column)]
            for column in found.columns
        ],
        format_,
    )
    for problem in found.problems:
        terminal.note(problem)
    if found.problems:
        raise typer.Exit(1)
