"""What became of the points of a sweep, and its table `sweep.csv`: a row a point."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twolayer.formatting import no_formula, shown
from twolayer.sweeps.points import Plan, Point

FIGURES = (
    *("iterations", "first_loss", "best_loss", "last_loss"),
    *("final_loss", "final_accuracy", "final_val_loss", "final_val_accuracy", "seconds"),
)  # the keys of run.json
ENDED = ("completed", "diverged")  # the statuses of results: a point that has one is not trained again


@dataclass(frozen=True)
class Result:
    """What became of a point: its status as that of a run, and the figures that its run.json has.

    `path` is the name of its run folder in the sweep's, empty where nothing is saved; `error` says what failed.
    """

    point: Point
    status: str
    figures: Mapping[str, Any]
    path: str = ""
    error: str = ""

    def number(self, name: str) -> float | None:
        """A figure; None where it is missing or not a finite number."""
        value = self.figures.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return None
        return value

    @property
    def is_result(self) -> bool:
        """Whether the training has come to its end; diverging is one."""
        return self.status in ENDED


def result_of(point: Point, info: Mapping[str, Any], path: str) -> Result:
    """The result in a run.json."""
    error = info.get("error", "")
    figures = {name: info[name] for name in FIGURES if name in info}
    return Result(point, str(info.get("status")), figures, path, error if isinstance(error, str) else "")


def score_name(results: Iterable[Result]) -> str:
    """The figure that points are compared by: the validation loss where there is one, else the final loss."""
    has_validation = any(result.number("final_val_loss") is not None for result in results)
    return "final_val_loss" if has_validation else "final_loss"


def ranked(results: Sequence[Result]) -> list[Result]:
    """The results, the smallest validation loss (else final loss) first; those without one last, in order."""
    name = score_name(results)

    def place(result: Result) -> tuple[bool, float, int]:
        value = result.number(name) if result.status == "completed" else None
        return value is None, value if value is not None else 0.0, result.point.number

    return sorted(results, key=place)


def columns(plan: Plan) -> list[str]:
    """The columns of the table."""
    return [*plan.keys, "status", *FIGURES, "path", "error"]


def cells(result: Result) -> list[Any]:
    """A row of the table: text as it is, numbers as such, None where there is no value."""
    values = [value if isinstance(value, (int, float)) else shown(value) for value in result.point.values.values()]
    return [*values, result.status, *map(result.number, FIGURES), result.path, result.error]


def csv_line(row: Iterable[Any]) -> str:
    """A line of csv: numbers with every digit, and no cell that a spreadsheet would take for a formula."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(map(_cell, row))
    return buffer.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return no_formula(value) if isinstance(value, str) else repr(value)


def table(plan: Plan, results: Iterable[Result]) -> str:
    """The content of `sweep.csv` with these results."""
    return "".join([csv_line(columns(plan)), *(csv_line(cells(result)) for result in results)])


def read_table(plan: Plan, text: str) -> tuple[list[Result], str]:
    """The results in a `sweep.csv`, in its order; and what is wrong with it, empty where nothing is.

    A last line that was cut off by a kill is left out.
    """
    whole = text[: text.rfind("\n") + 1]
    rows = csv.reader(io.StringIO(whole, newline=""))
    names = columns(plan)
    by_values = {tuple(map(_cell, cells(Result(point, "", {}))[: len(plan.keys)])): point for point in plan.points}
    found, width = dict[int, Result](), len(plan.keys)
    try:
        if next(rows, None) != [_cell(name) for name in names]:
            return [], "is damaged: it does not have the columns of this sweep"
        for row in rows:
            point = by_values[tuple(row[:width])]
            status, *figures, path, error = row[width:]
            if path in (".", "..") or Path(path).name != path:
                raise ValueError("not the name of a folder")
            known = {name: _number(figure) for name, figure in zip(FIGURES, figures, strict=True) if figure}
            found[point.number] = Result(point, status, known, path, error.removeprefix("'"))
    except (KeyError, ValueError, csv.Error):
        return list(found.values()), f"is damaged after row {len(found)}"
    return list(found.values()), ""


def _number(text: str) -> float | int:
    return int(text) if text.isdecimal() else float(text)
