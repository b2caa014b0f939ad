"""Sentences about scores: where their rows are few, and where a difference is noise."""

from __future__ import annotations

from collections.abc import Iterator

from twolayer.evaluation.scores import MODELS, Figure, Row
from twolayer.formatting import counted

FEW_ROWS = 50  # of fewer rows one changes an accuracy by more than 0.02


def few_rows(rows: int, table: list[Row]) -> Iterator[str]:
    """Whether the rows are few, and what that means for an accuracy."""
    if rows >= FEW_ROWS:
        return
    accuracy = table[0].figures.get("accuracy")
    if accuracy is None:
        yield f"{counted(rows, 'row')} {_are(rows)} few: on others the scores may differ much"
    elif accuracy.value == 1:
        low = 0.05 ** (1 / rows)  # then no row in n is wrong with a probability of 5 %
        start = f"{counted(rows, 'row')} {_are(rows)} few"
        yield f"{start}: the class is right in all, but the accuracy on others may be {low:.2f} (95 %)"
    else:
        yield f"{counted(rows, 'row')} {_are(rows)} few: one row is {1 / rows:.2g} of the accuracy"


def _are(rows: int) -> str:
    return "is" if rows == 1 else "are"


def noise(table: list[Row]) -> Iterator[str]:
    """The differences of the network from the baselines that are not larger than two standard errors."""
    several = len({row.target for row in table if row.target is not None}) > 1
    for row in table:
        for score in ("R2", "accuracy", "log loss"):
            figure = row.figures.get(score)
            if row.model in MODELS or figure is None or not figure.is_noise:
                continue
            start = f"{row.target}: " if several else ""
            yield f"{start}{score}, {row.model}: {_in_words(figure)}; the rows do not show which of the two is better"


def _in_words(difference: Figure) -> str:
    if not difference.value and not difference.error:
        return "no difference"
    return f"{difference.value:+.2g} is noise, less than two standard errors (of {difference.error:.2g})"
