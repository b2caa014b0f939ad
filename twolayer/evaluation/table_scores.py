"""The scores of a run's model on a table, and what is to be said about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twolayer.errors import DataError
from twolayer.evaluation.encoded_rows import table
from twolayer.evaluation.known_rows import RowSum, as_trained, known_part
from twolayer.evaluation.leakage import EXACT, MIN_ROWS, ClassSearch, TargetSearch
from twolayer.evaluation.predictor import Predictor, load_model
from twolayer.evaluation.remarks import few_rows, noise
from twolayer.evaluation.scores import Row, Scores
from twolayer.formatting import counted
from twolayer.runs.run_files import read_info
from twolayer.tables.encoding import listed
from twolayer.tables.target_encoding import encode_known_targets


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on a table, and sentences about them."""

    scores: Scores
    table: list[Row]
    remarks: list[str]


def scored(run: Path, data: str, given: Mapping[str, Any] | None = None) -> Evaluation:
    """Score the model of a run folder, or of a model file, on the rows of a table that have a target. Raises DataError.

    `given` is how the file is read, as for `encoded_rows.table`.
    """
    model = load_model(run)
    columns, scores, known = model.columns, Scores(model), RowSum()
    search = TargetSearch(columns) if columns.classes is None else ClassSearch(columns)
    dtype = str(model.w1.dtype).removeprefix("torch.")
    targets = tuple(target.column for target in columns.targets)
    with table(data, columns, (*columns.inputs, *targets), whole=False, given=given) as rows:
        total = 0
        for first, frame, every in rows.chunks(model):
            there, y = encode_known_targets(frame, rows.columns, rows.name, first)
            x, total = every[there], total + frame.height
            if not len(x):
                continue
            scores.add(x, y)
            search.add(x, y)
            known.add(*as_trained(x, y, columns, dtype))
    if not scores.rows:
        raise DataError(f"{rows.name}: has no rows" + (" with a target" if total else ""))
    info = read_info(run) if run.is_dir() else {}
    found = scores.table()
    gone = total - scores.rows
    dropped = [f"{rows.name}: {counted(gone, 'row')} of {total} without a target: left out"] if gone else []
    remarks = [*rows.remarks(), *dropped, *_known(known, info), *few_rows(scores.rows, found), *noise(found)]
    remarks += _exact(model, found, scores.rows, search, known_part(known, info) in ("training", "all"))
    return Evaluation(scores, found, remarks)


def _known(rows: RowSum, info: Mapping[str, Any]) -> Iterator[str]:
    """Whether the rows are those of the run's training."""
    part = known_part(rows, info)
    if part == "training":
        yield "these are the rows that the run was trained on; how good it is on other rows they do not show"
    elif part == "all":
        what = "trained on, and validated with"
        yield f"these are the rows that the run was {what}; how good it is on other rows they do not show"
    elif part == "validation":
        yield "these are the rows that the run was validated with; its weights may have been chosen by them"


def _exact(
    model: Predictor, table: list[Row], rows: int, search: TargetSearch | ClassSearch, are_training_rows: bool
) -> Iterator[str]:
    """Whether the linear model, or a column alone, is exact: an input may hold the target."""
    targets, D_in = model.columns.targets, len(model.columns.features)
    if rows < MIN_ROWS or (are_training_rows and rows <= 2 * D_in):  # as many weights as rows fit any rows
        return
    for number, target in enumerate(targets):
        name = f"target {target.column}: " if len(targets) > 1 else ""
        alone = search.found() if isinstance(search, ClassSearch) else search.found(number)
        linear, constant = (
            next(row for row in table if row.model == kind and row.target in (None, target.column) and _whole(row))
            for kind in ("linear", "constant")
        )
        if alone:
            which = "it" if len(alone) == 1 else "each"
            hint = "put it in data.exclude" if len(alone) == 1 else "put them in data.exclude"
            yield f"{name}{listed(alone)} enough for an exact prediction: does {which} hold the target? then {hint}"
        elif _is_exact(linear, constant):
            yield f"{name}the linear model is exact: does an input hold the target?"


def _whole(row: Row) -> bool:
    """Whether the row is of a target or of classes, not of the mean of all targets."""
    return "R2" in row.figures or "accuracy" in row.figures


def _is_exact(linear: Row, constant: Row) -> bool:
    """R2 is 1; or each class is right, with hardly any doubt."""
    if "R2" in linear.figures:
        r2 = linear.figures["R2"].value
        return r2 is not None and 1 - r2 < EXACT
    doubt, most = linear.figures["log loss"].value, constant.figures["log loss"].value
    return linear.figures["accuracy"].value == 1 and doubt is not None and most is not None and doubt < 0.02 * most
