"""The command `evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from twolayer.cli import process, terminal
from twolayer.cli.options import DataArgument, FormatOption, RunArgument
from twolayer.cli.process import computing
from twolayer.runs import folder

if TYPE_CHECKING:
    from twolayer.evaluation.scores import Scores


commands = typer.Typer()


_MOST_CLASSES = 20  # that a confusion table is printed of


@commands.command(epilog="Example:  twolayer evaluate my-1 test.csv")
def evaluate(run: RunArgument, data: DataArgument, format_: FormatOption = "table") -> None:
    """Measure a run's model on a table, beside a linear model and a constant.

    The linear model and the constant (the mean, or the frequencies of the classes) are those of the run's training
    rows. The loss is in the training's units; R2, RMSE and MAE are in the target's own.
    """
    path = folder.find(run)
    with computing():
        from twolayer.evaluation import encoded_rows  # a second, nearly all of it torch

    process.start_computing()
    scores, remarks = encoded_rows.scored(path, data)
    for remark in remarks:
        terminal.note(remark)
    _print_scores(scores, format_)


def _print_scores(scores: Scores, form: terminal.Format) -> None:
    """Print how good a model is, beside the linear model and the constant."""
    columns = scores.model.columns
    names, figures = scores.table()
    if form != "table":
        terminal.rows(names, figures, form)
        return
    short = [[f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in figures]
    terminal.rows(names, short, form)
    if columns.classes is None:
        return
    if len(columns.classes) > _MOST_CLASSES:
        terminal.note(f"no table of confusions: there are {len(columns.classes)} classes")
        return
    terminal.say(f"\n{columns.targets[0].column}: true classes by predicted ones")
    pairs = zip(columns.classes, scores.confusion.tolist(), strict=True)
    terminal.rows(("", *columns.classes), [(name, *counts) for name, counts in pairs], form)
