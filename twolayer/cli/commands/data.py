"""The command `data`."""

from __future__ import annotations

from collections.abc import Sequence
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
)
from twolayer.cli.resolving import reading_keys, resolve_data, training_that_works
from twolayer.errors import RunError, TableError, extra
from twolayer.formatting import alike
from twolayer.runs import names
from twolayer.tables.options import extra_of
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
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Show PATH as this run's model reads it: the columns that it needs, and those that are missing.",
            autocompletion=completion.runs,
        ),
    ] = None,
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Show a table's columns, and how a training would use them.

    Everything that prevents a training on this table is listed below, and the exit code is then 1.
    """
    if run is not None:
        _show_for_run(path, run, set_ or [], context, format_)
        return
    named = resolve_data(path, set_ or [], context)
    with extra("polars", extra_of(named.data.path)):
        from twolayer.tables import describe

    with without_panics():
        part = named.config.validation if isinstance(named.config.validation, float) else None
        found = describe.summary(
            named.data, named.data.path, targets=named.targets, loss=named.loss, validation=part, seed=named.config.seed
        )
    header = ("column", "type", "used as", "missing", "distinct", "min", "mean", "std", "max")
    if format_ == "table":
        terminal.say(f"{found.rows} rows\n")
    rows: list[Sequence[object]] = [tuple(vars(column).values()) for column in found.columns]
    if format_ == "table":
        rows = [_rounded(row, [4 if name in ("mean", "std") else 6 for name in header]) for row in rows]
    terminal.rows(header, rows, format_, drop=("distinct", "std", "mean", "min", "max"))
    for note in found.notes:
        terminal.note(note)
    if found.problems:
        command = training_that_works(found.problems, path, set_ or [], context) if named.targets else None
        raise TableError(named.data.path, found.problems, command or "")


def _show_for_run(path: str, run: str, sets: list[str], context: typer.Context, form: terminal.Format) -> None:
    """Print how a run's model reads a table, and why it cannot predict from it, if so."""
    if context.params.get("target"):
        raise RunError("--target and --run exclude each other: a run has its target", usage=True)
    from twolayer.runs import model_file  # with numpy, which help need not wait for

    given = reading_keys(sets)
    columns = model_file.encoding_of(names.find_model(run))
    with extra("polars", extra_of(path)):
        from twolayer.tables import for_run

    with without_panics():
        found = for_run.summary(path, path, columns, given)
    if form == "table":
        terminal.say(f"{found.rows} rows\n")
    rows: list[Sequence[object]] = [tuple(vars(column).values()) for column in found.columns]
    if form == "table":
        rows = [_rounded([_word(cell) for cell in row], [4] * len(row)) for row in rows]
    header = ("column", "used as", "in the table", "missing", "unknown", "mean", "mean in training")
    terminal.rows(header, rows, form, drop=("unknown", "missing", "mean", "mean in training"))
    for line in found.remarks:
        terminal.note(line)
    if found.problems:
        raise TableError(path, found.problems)


def _word(cell: object) -> object:
    """A truth as a word; all else unchanged."""
    return ("yes" if cell else "no") if isinstance(cell, bool) else cell


def _rounded(row: Sequence[object], digits: Sequence[int]) -> list[object]:
    """A row with its numbers in one notation, each to a number of significant digits; counts and text are unchanged."""
    places = [place for place, cell in enumerate(row) if isinstance(cell, float)]
    texts = alike([float(str(row[place])) for place in places], [digits[place] for place in places])
    found = dict(zip(places, texts, strict=True))
    return [found.get(place, cell) for place, cell in enumerate(row)]
