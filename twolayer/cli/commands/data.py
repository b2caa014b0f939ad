"""The command `data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Annotated

import typer

from twolayer.cli import completion, terminal
from twolayer.cli.options import (
    ClassesOption,
    ExcludeOption,
    FormatOption,
    InputsOption,
    MissingOption,
    SetOption,
    TargetOption,
    home,
    resolve_data,
    training_that_works,
)
from twolayer.errors import extra
from twolayer.tables.panics import without_panics

commands = typer.Typer()


@commands.command("data", epilog="Example:  twolayer data my.csv --target price")
def data_command(
    context: typer.Context,
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A table, or a config that names one.",
            autocompletion=completion.tables_and_configs,
            callback=home,
        ),
    ],
    target: TargetOption = None,
    inputs: InputsOption = None,
    exclude: ExcludeOption = None,
    missing: MissingOption = None,
    classes: ClassesOption = False,
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Show a table's columns, and how a training would use them.

    Everything that prevents a training on this table is listed below, and the exit code is then 1.
    """
    named = resolve_data(path, set_ or [], context)
    with extra("polars", "data"):
        from twolayer.tables import describe

    with without_panics():
        part = named.config.validation if isinstance(named.config.validation, float) else None
        found = describe.summary(
            named.data, named.data.path, targets=named.targets, loss=named.loss, validation=part, seed=named.config.seed
        )
    names = ("column", "type", "used as", "missing", "distinct", "min", "mean", "std", "max")
    if format_ == "table":
        terminal.say(f"{found.rows} rows\n")
    rows: list[Sequence[object]] = [astuple(column) for column in found.columns]
    if format_ == "table":
        digits = dict.fromkeys(("min", "max"), 6) | dict.fromkeys(("mean", "std"), 4)
        rows = [[_short(cell, digits.get(name, 6)) for name, cell in zip(names, row, strict=True)] for row in rows]
    terminal.rows(names, rows, format_, drop=("distinct", "std", "mean", "min", "max"))
    for note in found.notes:
        terminal.note(note)
    for problem in found.problems:
        terminal.note(problem.text)
    if found.problems:
        if named.targets and (command := training_that_works(found.problems, path, set_ or [], context)):
            terminal.works(command)
        raise typer.Exit(1)


def _short(cell: object, digits: int) -> object:
    """A number to this many significant digits; all else unchanged."""
    return f"{cell:.{digits}g}" if isinstance(cell, float) else cell
