"""A table as a run's model would read it, for `twolayer data --run`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from twolayer.errors import DataError
from twolayer.tables.encoding import Place, as_numbers, encode, listed, text, unknown
from twolayer.tables.features import Encoding
from twolayer.tables.readers import collect
from twolayer.tables.reading import Opened, open_for_model
from twolayer.tables.target_encoding import encode_targets


@dataclass(frozen=True)
class ColumnUse:
    """A column of the table or of the model: what the model uses it as, and the cells in this table.

    `missing` and `unknown` count the cells without a value and those with a category that the model does not know.
    `mean` is that of this table, `training_mean` that of the rows that the model was trained on. None if there is none.
    """

    column: str
    used_as: str
    in_table: bool
    missing: int | None = None
    unknown: int | None = None
    mean: float | None = None
    training_mean: float | None = None


@dataclass(frozen=True)
class RunSummary:
    """The rows and columns of a table, how it is read, and why the model can predict nothing from it, if so."""

    rows: int
    columns: tuple[ColumnUse, ...]
    remarks: tuple[str, ...]
    problems: tuple[str, ...]


def summary(path: Path | str, name: str, columns: Encoding, given: Mapping[str, Any] | None = None) -> RunSummary:
    """Describe a table for a model with these columns; `given` is as for `open_for_model`. Raises DataError."""
    try:
        opened = open_for_model(path, name, columns, None, given)
    except DataError:
        opened = open_for_model(path, name, columns, (), given)  # a column is missing, or it cannot be read at all
    there = set(opened.source.names)
    targets = [target.column for target in columns.targets]
    frame = collect(opened.source, [column for column in (*columns.inputs, *targets) if column in there])
    uses = tuple(_uses(frame, opened, name))
    remarks = (*opened.source.notes, *opened.remarks)
    return RunSummary(frame.height, uses, remarks, tuple(_problems(frame, opened.columns, targets, name)))


def _uses(frame: pl.DataFrame, opened: Opened, name: str) -> Iterator[ColumnUse]:
    """The columns of the model, then those of the table that it does not use."""
    columns = opened.columns
    strange = unknown(frame, columns)
    for column, features in columns.groups:
        kind = columns.kinds[column]
        count = sum(feature.kind == "category" for feature in features)
        use = {"number": "number", "boolean": "0 and 1", "category": f"{count} categories", "date": "date"}[kind]
        if column not in frame.columns:
            yield ColumnUse(column, use, in_table=False)
        elif kind == "category":
            yield ColumnUse(column, use, True, text(frame[column]).null_count(), strange.get(column, 0))
        elif kind == "date":
            yield ColumnUse(column, use, True, text(frame[column], columns.na).null_count())
        else:
            missing, mean = _of_numbers(frame[column], columns, Place(name, column))
            yield ColumnUse(column, use, True, missing, None, mean, features[0].mean)
    for target in columns.targets:
        use = "target" if columns.classes is None else f"target, {len(columns.classes)} classes"
        if target.column not in frame.columns:
            yield ColumnUse(target.column, use, in_table=False)
        elif columns.classes is not None:
            yield ColumnUse(target.column, use, True, text(frame[target.column]).null_count())
        else:
            missing, mean = _of_numbers(frame[target.column], columns, Place(name, target.column))
            yield ColumnUse(target.column, use, True, missing, None, mean, target.mean)
    for column in opened.source.names:
        if column not in frame.columns:
            yield ColumnUse(column, "not used", in_table=True)


def _of_numbers(cells: pl.Series, columns: Encoding, where: Place) -> tuple[int | None, float | None]:
    """How many numbers are missing, and the mean of the others; None if they cannot be read."""
    with suppress(DataError):
        found = as_numbers(cells, "boolean", columns, where)
        mean = found.mean()
        return found.null_count(), float(mean) if isinstance(mean, int | float) else None
    return None, None


def _problems(frame: pl.DataFrame, columns: Encoding, targets: list[str], name: str) -> Iterator[str]:
    if lacking := [column for column in columns.inputs if column not in frame.columns]:
        yield f"{listed(lacking)} missing, and the model needs {'it' if len(lacking) == 1 else 'them'}"
        return
    for check in (encode, encode_targets) if set(targets) <= set(frame.columns) else (encode,):
        try:
            check(frame, columns, name)
        except DataError as error:
            yield str(error)
