"""The commands that put a run's model to use on a table: `evaluate` and `predict`."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from twolayer.cli import terminal
from twolayer.errors import RunError

if TYPE_CHECKING:
    from twolayer.evaluation.scores import Scores


_MOST_CLASSES = 20  # that a confusion table is printed of


def print_scores(scores: Scores, form: terminal.Format) -> None:
    """Print how good a model is, beside the linear model and the constant."""
    columns = scores.model.columns
    names, figures = scores.table()
    if form == "jsonl":  # JSON has no infinity
        figures = [tuple(None if isinstance(f, float) and not isfinite(f) else f for f in row) for row in figures]
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


def check_out(out: Path, data: str) -> None:
    """Raise RunError where the output would take the input's place, or that of something that is no file."""
    if out.exists() and not out.is_file():
        raise RunError(f"{out}: is there already, and is no file; take another name", usage=True)
    if data != "-" and out.exists() and Path(data).exists() and out.samefile(data):
        raise RunError(f"{out}: is the input; take another name", usage=True)
