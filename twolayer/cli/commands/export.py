"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twolayer.cli import process, terminal
from twolayer.cli.options import ExportedArgument, home
from twolayer.cli.process import computing
from twolayer.formatting import size
from twolayer.runs import names

commands = typer.Typer()

_LARGE = 10 * 2**20  # bytes of a JSON that programs read slowly


@commands.command(epilog="Example:  twolayer export my-1 -o model.onnx")
def export(
    run: ExportedArgument,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="A .onnx, .json, .py or .md: its suffix says what is written.",
            callback=home,
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a run's model as a file that is used without twolayer.

    It holds all that predictions need (columns, missing values, notations, categories, scaling, classes, weights), and
    no rows, paths or times. An .onnx has an input for each column, for any program that runs ONNX; a .json has every
    weight with every digit, for R or JavaScript; a .py reads a CSV and writes predictions, with numpy alone. Before
    such a file gets its name it is tried on rows whose predictions are known. An .md is a model card: what the model
    predicts, from what, how good it is, and what it cannot do.
    """
    path = names.find_model(run)
    with computing():
        if out.suffix.lower() == ".onnx":  # its extra brings polars, too: name that one
            from twolayer.exporters import onnx_graph  # noqa: F401
        from twolayer.exporters import writing  # a second, nearly all of it torch

    process.start_computing()
    written = writing.export(path, out, force=force)
    terminal.note(f"wrote {out} ({size(written.size)})")
    for note in written.notes:
        terminal.note(note)
    if written.rows:
        difference = f"{written.difference:.2g}{written.unit}"
        tried = f"tried on {written.rows} rows, with {written.reader}"
        terminal.note(f"{tried}: the largest difference from predict is {difference}")
    if out.suffix.lower() == ".json" and written.size > _LARGE:
        terminal.note(f"{out}: programs read so large a JSON slowly; an .onnx is a quarter of its size")
