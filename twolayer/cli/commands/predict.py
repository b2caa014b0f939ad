"""The command `predict`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from twolayer.cli import process, terminal
from twolayer.cli.options import DataArgument, ModelArgument, ReadingOption, home
from twolayer.cli.process import computing
from twolayer.cli.resolving import reading_keys
from twolayer.errors import DataError, RunError
from twolayer.files import replacing
from twolayer.formatting import counted
from twolayer.runs import names
from twolayer.tables.options import extra_of

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer predict my-1 new.csv -o predicted.csv")
def predict(
    run: ModelArgument,
    data: DataArgument,
    set_: ReadingOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="A .csv, .tsv, .parquet, .arrow or .ndjson file.  [default: stdout]",
            callback=home,
        ),
    ] = None,
    format_: Annotated[
        Literal["csv", "parquet", "ndjson"] | None, typer.Option("--format", help="[default: by FILE's suffix, or csv]")
    ] = None,
) -> None:
    """Write a table's rows with a run's predictions added.

    Inputs are found by the names of their columns; all other columns are copied. In a CSV, text that a spreadsheet
    would read as a formula gets a single quote before it. Stdout is written part by part: an error in a later row comes
    after the rows before it. FILE is written whole, or not at all.
    """
    path, given = names.find_model(run), reading_keys(set_ or [])
    with computing(extra_of(data)):
        from twolayer.evaluation import encoded_rows, predictor  # a second, nearly all of it torch
        from twolayer.tables import writers

    process.start_computing()
    form: writers.Format | None = format_
    if out is not None:
        form = form or writers.FORMATS.get(out.suffix.lower())
        if form is None:
            known = " ".join(writers.FORMATS)
            raise RunError(
                "the suffix names no known format", path=out, hint=f"use one of {known}, or --format", usage=True
            )
        _check_out(out, data)
    form = form or "csv"
    if out is None and form == "parquet":
        raise RunError(f"--format {form}: is not text and cannot be printed; name a file with -o", usage=True)
    model = predictor.load_model(path)
    with encoded_rows.table(data, model.columns, model.columns.inputs, whole=True, given=given) as rows:
        writers.check_writable(rows.schema, form, rows.name)
        schema, frames, odd = encoded_rows.predictions(model, rows)
        if out is None:
            _print(writers.parts(frames, schema, form))
        else:
            with replacing(out) as file:
                written = writers.sink(frames, schema, form, file)
            terminal.note(f"wrote {counted(written, 'row')} to {out}")
    for remark in rows.remarks():
        terminal.note(remark)
    for column, count in odd.items():
        where = "1 row: its inputs" if count == 1 else f"{count} rows: their inputs"
        terminal.note(f"{rows.name}: {column} is not a finite number in {where} are too large")


def _print(parts: Iterable[bytes]) -> None:
    """Write the parts to stdout; where an error comes after some of them, say that they are not all."""
    has_begun = False
    try:
        for part in parts:
            terminal.write_bytes(part)
            has_begun = True
    except DataError:
        if has_begun:
            terminal.note("the rows above are not all: the next ones cannot be predicted")
        raise


def _check_out(out: Path, data: str) -> None:
    """Raise RunError where the output would replace the input, or something that is not a file."""
    if out.exists() and not out.is_file():
        raise RunError("exists and is not a file", path=out, hint="choose another name", usage=True)
    if data != "-" and out.exists() and Path(data).exists() and out.samefile(data):
        raise RunError("is the input", path=out, hint="choose another name", usage=True)
