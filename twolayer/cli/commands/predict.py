"""The command `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from twolayer.cli import process, terminal
from twolayer.cli.options import DataArgument, RunArgument
from twolayer.cli.process import computing
from twolayer.errors import RunError
from twolayer.files import replacing
from twolayer.runs import folder

commands = typer.Typer()


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
        _check_out(out, data)
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


def _check_out(out: Path, data: str) -> None:
    """Raise RunError where the output would take the input's place, or that of something that is no file."""
    if out.exists() and not out.is_file():
        raise RunError(f"{out}: is there already, and is no file; take another name", usage=True)
    if data != "-" and out.exists() and Path(data).exists() and out.samefile(data):
        raise RunError(f"{out}: is the input; take another name", usage=True)
