"""The commands that put a run's model to use on a table: `evaluate` and `predict`."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from twolayer import console
from twolayer.errors import RunError
from twolayer.evaluation.encoded_rows import predictions, table
from twolayer.evaluation.predictor import load_model
from twolayer.evaluation.scores import Scores
from twolayer.files import replacing
from twolayer.tables import writers

_MOST_CLASSES = 20  # that a confusion table is printed of


def print_scores(scores: Scores, form: console.Format) -> None:
    """Print how good a model is, beside the linear model and the constant."""
    columns = scores.model.columns
    names, figures = scores.table()
    if form == "jsonl":  # JSON has no infinity
        figures = [tuple(None if isinstance(f, float) and not isfinite(f) else f for f in row) for row in figures]
    if form != "table":
        console.rows(names, figures, form)
        return
    short = [[f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in figures]
    console.rows(names, short, form)
    if columns.classes is None:
        return
    if len(columns.classes) > _MOST_CLASSES:
        console.note(f"no table of confusions: there are {len(columns.classes)} classes")
        return
    console.say(f"\n{columns.targets[0].column}: true classes by predicted ones")
    pairs = zip(columns.classes, scores.confusion.tolist(), strict=True)
    console.rows(("", *columns.classes), [(name, *counts) for name, counts in pairs], form)


def write_predictions(run: Path, data: str, out: Path | None, form: writers.Format | None) -> None:
    """Write a table with a run's predictions beside it, to a file or to stdout."""
    if out is not None:
        form = form or writers.FORMATS.get(out.suffix.lower())
        if form is None:
            known = " ".join(writers.FORMATS)
            raise RunError(f"{out}: the suffix says no format; take one of {known}, or --format", usage=True)
        _check_out(out, data)
    form = form or "csv"
    if out is None and form == "parquet":
        raise RunError(f"--format {form}: is no text to print; name a file by -o", usage=True)
    model = load_model(run)
    with table(data, model.columns, model.columns.inputs, whole=True) as rows:
        writers.check_writable(rows.schema, form, rows.name)
        schema, frames, odd = predictions(model, rows)
        if out is None:
            for part in writers.parts(frames, schema, form):
                console.write_bytes(part)
        else:
            with replacing(out) as file:
                writers.sink(frames, schema, form, file)
    for remark in rows.remarks():
        console.note(remark)
    for column, count in odd.items():
        where = "1 row: its inputs" if count == 1 else f"{count} rows: their inputs"
        console.note(f"{rows.name}: {column} is no finite number in {where} are too large")


def _check_out(out: Path, data: str) -> None:
    """Raise RunError where the output would take the input's place, or that of something that is no file."""
    if out.exists() and not out.is_file():
        raise RunError(f"{out}: is there already, and is no file; take another name", usage=True)
    if data != "-" and out.exists() and Path(data).exists() and out.samefile(data):
        raise RunError(f"{out}: is the input; take another name", usage=True)
