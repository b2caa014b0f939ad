"""The command `evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from twolayer.cli import process, terminal
from twolayer.cli.options import DataArgument, FormatOption, ReadingOption, RunArgument, reading_keys
from twolayer.cli.process import computing
from twolayer.runs import names

if TYPE_CHECKING:
    from twolayer.evaluation.scores import Scores


commands = typer.Typer()


_MAX_CLASSES = 20  # of a confusion matrix that is printed


@commands.command(epilog="Example:  twolayer evaluate my-1 test.csv")
def evaluate(run: RunArgument, data: DataArgument, set_: ReadingOption = None, format_: FormatOption = "table") -> None:
    """Score a run's model on a table, beside two baselines.

    The baselines are a linear model and a constant (the mean, or the frequencies of the classes), fitted to the run's
    training rows. The loss is in the units of the training; R2, RMSE and MAE are in those of the target.
    """
    path, given = names.find(run), reading_keys(set_ or [])
    with computing():
        from twolayer.evaluation import encoded_rows  # a second, nearly all of it torch

    process.start_computing()
    scores, remarks = encoded_rows.scored(path, data, given)
    for remark in remarks:
        terminal.note(remark)
    _print_scores(scores, format_)


def _print_scores(scores: Scores, form: terminal.Format) -> None:
    """Print the scores of a model and of its baselines."""
    columns = scores.model.columns
    names, figures = scores.table()
    if form != "table":
        terminal.rows(names, figures, form)
        return
    short = [[f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in figures]
    terminal.rows(names, short, form, drop=("loss", "MAE", "RMSE"))
    if columns.classes is None:
        return
    if len(columns.classes) > _MAX_CLASSES:
        terminal.note(f"no confusion matrix: there are {len(columns.classes)} classes, more than {_MAX_CLASSES}")
        return
    terminal.say(f"\n{columns.targets[0].column}: true classes in rows, predicted ones in columns")
    pairs = zip(columns.classes, scores.confusion.tolist(), strict=True)
    terminal.rows(("", *columns.classes), [(name, *counts) for name, counts in pairs], form)
