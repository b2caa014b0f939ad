"""The folds of `train --folds`, in front of a user: trained, scored, and shown beside the baselines."""

from __future__ import annotations

from typing import Any

from twolayer.cli import progress, terminal
from twolayer.cli.score_tables import print_scores, with_error
from twolayer.config.validation import Resolved
from twolayer.errors import DataError, DivergedError
from twolayer.evaluation.remarks import noise
from twolayer.evaluation.scores import Row
from twolayer.formatting import counted
from twolayer.training.folds import Fold, document, folds, mean_scores


def score_folds(resolved: Resolved, count: int, repeats: int, form: terminal.Format) -> dict[str, Any]:
    """Train and score each fold, and show the means; what run.json keeps of it. Raises TwolayerError.

    After Ctrl-C a line says how far it came, and the KeyboardInterrupt goes on.
    """
    table = resolved.table
    if table is None or table.survey is None:
        raise DataError("--folds requires a table")
    rows, total = table.survey.frame.height, count * repeats
    tables: list[list[Row]] = []
    many = f", {repeats} times" if repeats > 1 else ""
    terminal.note(f"{counted(rows, 'row')} in {count} folds{many}: each is scored by a network trained on the others")
    try:
        with progress.Bar(total) as bar:
            for fold in folds(resolved.config, table.survey, count, repeats):
                bar.draw(fold.number - 1, f"fold {fold.number}")
                tables.append(_scored(fold))
    except (KeyboardInterrupt, SystemExit):
        terminal.note(f"interrupted in fold {len(tables) + 1} of {total}; nothing is saved")
        raise
    means = mean_scores(tables, repeats)
    _show(means, form, rows, count)
    return document(tables, means, rows, repeats)


def _scored(fold: Fold) -> list[Row]:
    try:
        for _ in fold.fit:
            pass
        return fold.scores()
    except DivergedError as error:
        terminal.note(f"fold {fold.number} has diverged, so there are no scores of the folds")
        raise error from None


def _show(means: list[Row], form: terminal.Format, rows: int, count: int) -> None:
    """Show the mean scores: as a table, or where stdout is for the rows of the training, as lines on stderr."""
    if form == "table":
        print_scores(means, form, rows)
    else:
        for row in means:
            name = f"{row.target}, {row.model}" if row.target is not None else row.model
            scores = (f"{score} {with_error(figure)}" for score, figure in row.figures.items() if with_error(figure))
            terminal.note(f"{name}: {', '.join(scores)}")
    for line in noise(means):
        terminal.note(line)
    terminal.note(f"means of {count} folds, with their standard errors: what to expect on other rows")
    if form == "table":
        terminal.say("")
