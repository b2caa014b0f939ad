"""The commands of tables: `data`, `evaluate`, `predict`."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Annotated, Literal

import typer

from twolayer import console, process
from twolayer.errors import extra
from twolayer.options import DataArgument, FormatOption, RunArgument, SetOption, TargetOption, computing, resolve_data
from twolayer.runs import folder

commands = typer.Typer()


@commands.command("data", epilog="Example:  twolayer data my.csv --target price")
def data_command(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A table, or a config that names one.")],
    target: TargetOption = None,
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Show what a table holds, what would be trained on, and how.

    What keeps the table from being trained on stands below, and makes the exit code 1.
    """
    data, targets = resolve_data(path, set_ or [], context)
    with extra("polars", "data"):
        from twolayer.tables import describe

    with process.without_panics():
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
        console.say(f"{found.rows} rows\n")
    digits = format_ == "table"
    console.rows(
        names,
        [
            [f"{cell:.4g}" if digits and isinstance(cell, float) else cell for cell in astuple(column)]
            for column in found.columns
        ],
        format_,
    )
    for problem in found.problems:
        console.note(problem)
    if found.problems:
        raise typer.Exit(1)


@commands.command(epilog="Example:  twolayer evaluate my-1 test.csv")
def evaluate(run: RunArgument, data: DataArgument, format_: FormatOption = "table") -> None:
    """Measure a run's model on a table, beside a linear model and a constant.

    The linear model and the constant (the mean, or the frequencies of the classes) are those of the run's training
    rows. The loss is in the training's units; R2, RMSE and MAE are in the target's own.
    """
    path = folder.find(run)
    with computing():
        from twolayer import serving  # a second, nearly all of it torch
        from twolayer.evaluation import encoded_rows

    process.start_computing()
    scores, remarks = encoded_rows.scored(path, data)
    for remark in remarks:
        console.note(remark)
    serving.print_scores(scores, format_)


@commands.command(epilog="Example:  twolayer predict my-1 new.csv -o predicted.csv")
def predict(
    run: RunArgument,
    data: DataArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help=".csv, .tsv, .parquet, .arrow, .ndjson; stdout, unless given."
        ),
    ] = None,
    format_: Annotated[
        Literal["csv", "parquet", "ndjson"] | None, typer.Option("--format", help="csv, unless FILE says otherwise.")
    ] = None,
) -> None:
    """Write a table's rows with a run's predictions beside them.

    The inputs are found by their columns' names; all other columns are carried along. In a CSV, text that a
    spreadsheet would take for a formula is led by a single quote.
    """
    path = folder.find(run)
    with computing():
        from twolayer import serving  # a second, nearly all of it torch

    process.start_computing()
    serving.write_predictions(path, data, out, format_)
