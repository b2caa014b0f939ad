"""Cross-validation: a network for each fold of a table's rows, trained on all others and scored on the fold."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from twolayer.config.schema import Config
from twolayer.evaluation.baselines import linear_baseline
from twolayer.evaluation.predictor import predictor_of
from twolayer.evaluation.scores import MODELS, Figure, Row, Scores
from twolayer.formatting import json_number
from twolayer.tables.features import Array, Encoding
from twolayer.tables.options import FileData
from twolayer.training.loop import Fit
from twolayer.training.setup import prepare


@dataclass(frozen=True)
class Fold:
    """A fold, counted from 1 over all repeats: `fit` is the training on all other rows, to be iterated to its end."""

    number: int
    fit: Fit
    x: Array  # (n, D_in) float64, the fold's rows
    y: Array  # (n, D_out)

    def scores(self) -> list[Row]:
        """The scores of the trained network and of its baselines on the fold's rows. Raises DivergedError."""
        self.fit.finish()
        data, columns = self.fit.data, cast(Encoding, self.fit.data.columns)
        baseline = linear_baseline(data.x, data.y, columns.classes is not None)
        found = Scores(predictor_of(self.fit.model, columns, baseline))
        size = max(256, 2**23 // max(self.x.shape[1], self.fit.config.H))
        for start in range(0, len(self.x), size):
            found.add(self.x[start : start + size], self.y[start : start + size])
        return found.table()


def folds(config: Config, survey: Any, count: int, repeats: int) -> Iterator[Fold]:
    """The folds of a table, one after another, each ready to be trained with the config.

    `survey` is that of `dataset.read`. Raises DataError if there are too few rows, else as `prepare` does.
    """
    from twolayer.tables import dataset

    data = cast(FileData, config.data)
    tables = dataset.folds(
        survey, count, repeats, data, validation=config.validation, seed=config.seed, dtype=config.dtype
    )
    for number, (table, x, y) in enumerate(tables, 1):
        rows, inputs = table.x.shape
        own, tensors, model = prepare(config.model_copy(update={"N": rows, "D_in": inputs}), table)
        yield Fold(number, Fit(model, tensors, own), x, y)


def mean_scores(tables: Sequence[Sequence[Row]], repeats: int) -> list[Row]:
    """The mean of each score over the folds, with its standard error; `tables` has the folds of each repeat in turn.

    The standard error is the standard deviation of a repeat's scores over the square root of its number of folds.
    Repeats do not make it smaller, because each uses the same rows: it is the quadratic mean of the repeats' own.
    """
    count = len(tables) // repeats
    means = []
    for rows in zip(*tables, strict=True):
        figures = {}
        for score in rows[0].figures:
            values = [row.figures[score].value for row in rows]
            known = [value for value in values if value is not None]
            if len(known) < len(values):  # such as R2 of a fold of one row
                figures[score] = Figure(None, None)
                continue
            parts = [known[start : start + count] for start in range(0, len(known), count)]
            variance = statistics.fmean(_variance(part) for part in parts)
            figures[score] = Figure(statistics.fmean(known), (variance / count) ** 0.5)
        means.append(Row(rows[0].target, rows[0].model, figures))
    return means


def _variance(values: Sequence[float]) -> float:
    mean = statistics.fmean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def document(tables: Sequence[Sequence[Row]], means: Sequence[Row], rows: int, repeats: int) -> dict[str, Any]:
    """For run.json: the number of rows, folds and repeats, the mean scores, and those of each fold."""
    return {
        "folds": len(tables) // repeats,
        "repeats": repeats,
        "rows": rows,
        "scores": [
            {"target": row.target, "model": row.model, "figures": {name: _plain(f) for name, f in row.figures.items()}}
            for row in means
        ],
        "each": [
            [
                {"target": row.target, "model": row.model}
                | {name: _plain(f)["value"] for name, f in row.figures.items()}
                for row in table
                if row.model in MODELS
            ]
            for table in tables
        ],
    }


def _plain(figure: Figure) -> dict[str, float | None]:
    """A score as JSON can hold it."""
    return {
        name: None if number is None else json_number(number)
        for name, number in (("value", figure.value), ("error", figure.error))
    }
