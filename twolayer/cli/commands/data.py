"""The commands of tables: `data`, `evaluate`, `predict`."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Annotated, Literal

import typer

from twolayer.cli import process, terminal
from twolayer.cli.commands.predict import check_out
from twolayer.cli.options import (
    DataArgument,
    FormatOption,
    RunArgument,
    SetOption,
    TargetOption,
    computing,
    resolve_data,
)
from twolayer.errors import RunError, extra
from twolayer.files import replacing
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


@commands.command(epilog="Example:  twolayer evaluate my-1 test.csv")
def evaluate(run: RunArgument, data: DataArgument, format_: FormatOption = "table") -> None:
    """Measure a run's model on a table, beside a linear model and a constant.

    The linear model and the constant (the mean, or the frequencies of the classes) are those of the run's training
    rows. The loss is in the training's units; R2, RMSE and MAE are in the target's own.
    """
    path = folder.find(run)
    with computing():
        from twolayer.cli.commands.predict import print_scores  # a second, nearly all of it torch
        from twolayer.evaluation import encoded_rows

    process.start_computing()
    scores, remarks = encoded_rows.scored(path, data)
    for remark in remarks:
        terminal.note(remark)
    print_scores(scores, format_)


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
        from twolayer.evaluation import encoded_rows, predictor  # a second, nearly all of it torch
        from twolayer.tables import writers

    process.start_computing()
    form: writers.Format | None = format_
    if out is not None:
        form = form or writers.FORMATS.get(out.suffix.lower())
        if form is None:
            known = " ".join(writers.FORMATS)
            raise RunError(f"{out}: the suffix says no format; take one of {known}, or --format", usage=True)
        check_out(out, data)
    form = form or "csv"
    if out is None and form == "parquet":
        raise RunError(f"--format {form}: is no text to print; name a file by -o", usage=True)
    model = predictor.load_model(path)
    with encoded_rows.table(data, model.columns, model.columns.inputs, whole=True) as rows:
        writers.check_writable(rows.schema, form, rows.name)
        schema, frames, odd = encoded_rows.predictions(model, rows)
        if out is None:
            for part in writers.parts(frames, schema, form):
                terminal.write_bytes(part)
        else:
            with replacing(out) as file:
                writers.sink(frames, schema, form, file)
    for remark in rows.remarks():
        terminal.note(remark)
    for column, count in odd.items():
        where = "1 row: its inputs" if count == 1 else f"{count} rows: their inputs"
        terminal.note(f"{rows.name}: {column} is no finite number in {where} are too large")
