"""The command `evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from twolayer.cli import process, terminal
from twolayer.cli.options import DataArgument, FormatOption, ModelArgument, ReadingOption
from twolayer.cli.process import computing
from twolayer.cli.resolving import reading_keys
from twolayer.cli.score_tables import print_scores
from twolayer.formatting import counted
from twolayer.runs import names
from twolayer.tables.options import extra_of

if TYPE_CHECKING:
    from twolayer.evaluation.scores import Scores


commands = typer.Typer()


_MAX_CLASSES = 20  # of a confusion matrix that is printed


@commands.command(epilog="Example:  twolayer evaluate my-1 test.csv")
def evaluate(
    run: ModelArgument, data: DataArgument, set_: ReadingOption = None, format_: FormatOption = "table"
) -> None:
    """Score a run's model on a table, beside two baselines.

    The baselines are a linear model and a constant (the mean, or the frequencies of the classes), fitted to the run's
    training rows. Each score has its standard error, also the network's difference from each baseline. The loss is in
    the units of the training; R2, RMSE and MAE are in those of the target.
    """
    path, given = names.find_model(run), reading_keys(set_ or [])
    with computing(extra_of(data)):
        from twolayer.evaluation import table_scores  # a second, nearly all of it torch

    process.start_computing()
    found = table_scores.scored(path, data, given)
    if format_ == "table":
        terminal.say(f"{counted(found.scores.rows, 'row')}\n")
    print_scores(found.table, format_, found.scores.rows)
    if format_ == "table":
        _print_confusion(found.scores)
        if found.remarks:
            terminal.say("")
    for remark in found.remarks:
        terminal.note(remark)


def _print_confusion(scores: Scores) -> None:
    """Print how many rows of each class are predicted as each class."""
    columns = scores.model.columns
    if columns.classes is None:
        return
    if len(columns.classes) > _MAX_CLASSES:
        terminal.note(f"no confusion matrix: there are {len(columns.classes)} classes, more than {_MAX_CLASSES}")
        return
    terminal.say(f"\n{columns.targets[0].column}: true classes in rows, predicted ones in columns")
    pairs = zip(columns.classes, scores.confusion.tolist(), strict=True)
    terminal.rows(("", *columns.classes), [(name, *counts) for name, counts in pairs], "table")
