"""Frames -> arrays of targets, by an encoding."""

from __future__ import annotations

import numpy as np
import polars as pl

from twolayer.errors import DataError
from twolayer.tables.encoding import Place, as_numbers, known_text, require_columns, text
from twolayer.tables.features import Array, Encoding
from twolayer.tables.labels import named_by_number


def with_targets(frame: pl.DataFrame, columns: Encoding) -> Array:
    """Which rows have all targets: (rows,) booleans. Raises DataError if a target is no column."""
    there = np.ones(frame.height, dtype=bool)
    for target in columns.targets:
        cells = frame[target.column]
        if cells.dtype in (pl.String, pl.Categorical, pl.Enum):
            cells = text(cells, columns.na) if columns.classes is not None else known_text(cells, columns)["cell"]
        there &= (cells.fill_nan(None) if cells.dtype.is_float() else cells).is_not_null().to_numpy()
    return there


def encode_known_targets(frame: pl.DataFrame, columns: Encoding, name: str, first_row: int) -> tuple[Array, Array]:
    """Which rows have all targets, (rows,) booleans; and the targets of these rows, as `encode_targets` gives them."""
    there = with_targets(frame, columns)
    numbers = first_row + np.flatnonzero(there)
    return there, encode_targets(frame.filter(pl.Series(there)), columns, name, numbers=numbers)


def encode_targets(
    frame: pl.DataFrame, columns: Encoding, name: str, first_row: int = 1, numbers: Array | None = None
) -> Array:
    """The targets: (rows, D_out), float64, numbers before standardising or one-hot classes. Raises DataError."""
    require_columns(frame.columns, (), name, targets=[target.column for target in columns.targets])
    if columns.classes is not None:
        where = Place(name, columns.targets[0].column, first_row, numbers)
        return _one_hot(frame[columns.targets[0].column], columns, where)
    y = np.empty((frame.height, len(columns.targets)))
    for j, target in enumerate(columns.targets):
        where = Place(name, target.column, first_row, numbers)
        cells = as_numbers(frame[target.column], "boolean", columns, where)
        if cells.null_count():
            raise DataError(f"{where.row(cells.is_null())} the target has no value")
        y[:, j] = cells.to_numpy()
    return y


def _one_hot(cells: pl.Series, columns: Encoding, where: Place) -> Array:
    classes = columns.classes or ()
    found = text(cells, columns.na)
    # Text may write a class in another way than in training: True for true, 1.0 for 1.
    others = [found, found.str.to_lowercase()] if classes == ("false", "true") else [found]
    others.append(named_by_number(found, classes))
    frame = pl.DataFrame([other.cast(pl.Enum(classes), strict=False).alias(str(i)) for i, other in enumerate(others)])
    code = frame.select(pl.coalesce(pl.all()).to_physical()).to_series()
    if code.null_count():
        if found.null_count():
            raise DataError(f"{where.row(found.is_null())} the target has no value")
        cell = found[code.is_null().arg_max() or 0]
        raise DataError(f"{where.row(code.is_null())} {cell[:40]!r} is not a class that the model knows")
    y = np.zeros((cells.len(), len(classes)))
    y[np.arange(cells.len()), code.to_numpy()] = 1
    return y
