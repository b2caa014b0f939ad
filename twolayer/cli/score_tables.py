"""Scores with their standard errors, as a table on the screen, csv or JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twolayer import formatting
from twolayer.cli import terminal

if TYPE_CHECKING:
    from twolayer.evaluation.scores import Figure, Row


def print_scores(table: Sequence[Row], form: terminal.Format, rows: int) -> None:
    """Print the scores of models: on the screen `value ± error`, else with all digits and the number of rows."""
    scores = list(dict.fromkeys(score for row in table for score in row.figures))
    first = ("target", "model") if any(row.target is not None for row in table) else ("model",)
    starts = [(row.target, row.model)[-len(first) :] for row in table]
    if form == "table":
        cells = [[with_error(row.figures.get(score)) for score in scores] for row in table]
        order = sorted(range(len(scores)), key=lambda i: scores[i] == "loss")  # last, and dropped first
        short = [(*start, *(line[i] for i in order)) for start, line in zip(starts, cells, strict=True)]
        terminal.rows((*first, *(scores[i] for i in order)), short, form, drop=("loss", "MAE", "RMSE"))
        return
    values: list[tuple[Any, ...]] = []
    for start, row in zip(starts, table, strict=True):
        figures = [row.figures.get(score) for score in scores]
        numbers = [figure.value if figure else None for figure in figures]
        errors = [figure.error if figure else None for figure in figures]
        values.append((*start, *numbers, *errors, rows))
    terminal.rows((*first, *scores, *(f"{score} se" for score in scores), "rows"), values, form)


def with_error(figure: Figure | None) -> str:
    """A score with its standard error; empty where there is none."""
    if figure is None or figure.value is None:
        return ""
    plus_minus = "+-" if terminal.out().options.ascii_only else "±"
    return formatting.with_error(figure.value, figure.error, plus_minus)
