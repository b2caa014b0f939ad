"""A file, split and standardised, as arrays x and y."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np
import polars as pl

from twolayer.errors import DataError, TableError
from twolayer.formatting import counted
from twolayer.tables.column_types import NEARLY_CONSTANT, Survey, check_columns, select_columns
from twolayer.tables.encoding import encode_targets, require_columns, shown, unscaled
from twolayer.tables.features import FLAT, Array, Encoding, Feature, Target, safe_deviation
from twolayer.tables.options import FileData
from twolayer.tables.readers import collect
from twolayer.tables.sources import Source, open_table

_BLOCK = 1 << 18  # numbers that are processed at a time: they fit into the cache
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Table:
    """Training data: x (N, D_in) and y (N, D_out), standardised; the rows held out; the number of rows of the file."""

    columns: Encoding
    x: Array
    y: Array
    x_validation: Array | None
    y_validation: Array | None
    rows: int


def scan(path: Path | str, columns: Encoding | None = None, *, name: str | None = None) -> Source:
    """Open a table, to be read by `readers.batches`; "-" is a CSV on stdin.

    The columns of a CSV are all text, exactly as in the file, so that they can be written unchanged; `encode` converts
    them to numbers. Other formats keep their types. Raises DataError.
    """
    decimal, named = (columns.decimal, columns.inputs) if columns is not None else (".", None)
    return open_table(path, name or str(path), decimal=decimal, text=True, named=named)


def read(
    data: FileData,
    *,
    validation: float | str | None,
    seed: int,
    loss: str | None,
    dtype: str = "float32",
) -> Table:
    """The file's columns as x and y in the dtype, standardised by means and standard deviations of the training rows.

    A `validation` in (0, 1) is the part of the rows to hold out, drawn with the seed; a path is another file. Text is
    one-hot encoded. If `loss` is None, classes are predicted if there is one target, of text or booleans. Raises
    DataError with everything that keeps the table from being trained on.
    """
    named = [*data.target, *(data.inputs or ()), *data.exclude]
    source = open_table(data.path, data.path, separator=data.separator, decimal=data.decimal, named=named)
    inputs, targets = select_columns(source, data.target, data.inputs, data.exclude)
    found = check_columns(
        collect(source, [*inputs, *targets]), inputs, targets, missing=data.missing, loss=loss, decimal=data.decimal,
        typed=source.raw is None,
    )  # fmt: skip
    if found.problems:
        raise TableError(data.path, found.problems)
    rows = found.frame.height
    held = _held_out(rows, validation if isinstance(validation, float) else None, seed, data.path)
    columns = _fit(found, held, data)
    x, x_held = _split(found.frame, held, columns, data.path, dtype)
    y, y_held = _split_targets(found.frame, held, columns, data.path, dtype)
    if not data.scale:  # if scaled, no training row is further from 0 than the square root of their number
        _refuse_large(x, y, np.flatnonzero(~held), columns, data.path, scale=False)
    if isinstance(validation, str):
        frame = _other(validation, data, columns)
        every = np.ones(frame.height, dtype=bool)
        _, x_held = _split(frame, every, columns, validation, dtype)
        _, y_held = _split_targets(frame, every, columns, validation, dtype)
        _refuse_large(x_held, y_held, np.arange(frame.height), columns, validation, scale=bool(data.scale))
    else:
        _refuse_large(x_held, y_held, np.flatnonzero(held), columns, data.path, scale=bool(data.scale))
    if validation is None:
        return Table(columns, x, y, None, None, rows)
    return Table(columns, x, y, x_held, y_held, rows)


def _refuse_large(x: Array, y: Array, rows: Array, columns: Encoding, name: str, *, scale: bool) -> None:
    """Raise DataError, with the place in the file, if the square of a number overflows. `rows` count from 0."""
    names = [feature.column for feature in columns.features], [target.column for target in columns.targets]
    for array, columns_of in zip((x, y), names, strict=True):
        limit = float(np.sqrt(np.finfo(array.dtype).max))
        if not array.size or (array.max() <= limit and array.min() >= -limit):
            continue
        row, column = np.argwhere(~(np.abs(array) <= limit))[0].tolist()
        place = f"{name}: row {rows[row] + 1}, column {shown(columns_of[column])}: the number"
        if not scale:
            raise DataError(f"{place} is too large for {array.dtype}; set data.scale: true")
        raise DataError(f"{place} is too far from the training rows for {array.dtype}; drop the row")


def _other(path: str, data: FileData, columns: Encoding) -> pl.DataFrame:
    """The rows of the validation file, for `encode`. Raises DataError."""
    needed = [*columns.inputs, *(target.column for target in columns.targets)]
    source = open_table(path, path, separator=data.separator, decimal=data.decimal, text=True, named=needed)
    require_columns(source.names, needed, path)
    frame = collect(source, needed)
    if not frame.height:
        raise DataError(f"{path}: has no rows")
    return frame


def _held_out(rows: int, part: float | None, seed: int, name: str) -> Array:
    """Which rows are held out: (rows,) booleans. Raises DataError if fewer than 2 are left."""
    held = np.zeros(rows, dtype=bool)
    if part is not None and rows:
        count = max(1, round(part * rows))
        held[np.random.default_rng([seed, 1]).choice(rows, count, replace=False, shuffle=False)] = True
    if (left := rows - int(held.sum())) < 2:
        out = f", of which {rows - left} are held out" if left < rows else ""
        raise DataError(f"{name}: has {counted(rows, 'row')}{out}; training needs 2 or more")
    return held


# --- means and standard deviations, over the training rows


def _fit(found: Survey, held: Array, data: FileData) -> Encoding:
    """The encoding: features in the order of their columns, scaled by the rows that are not held out."""
    frame, kept = found.frame, ~held
    regression = found.classes is None
    plain = [column for column, kind in found.kinds.items() if kind != "category"]
    moments = _moments(frame, [*plain, *(found.targets if regression else ())], kept, data.path)
    features: list[Feature] = []
    for column, kind in found.kinds.items():
        marked = column in found.missing
        if kind == "category":
            features += _categories(frame[column], column, kept)
        else:
            mean, deviation = moments[column]
            features.append(Feature(column, column, "number", None, mean if marked else None, mean, deviation))
        if marked:
            share = float(frame[column].is_null().to_numpy()[kept].mean())
            features.append(Feature(f"{column} missing", column, "missing", None, None, *_of_share(share)))
    targets = [Target(column, *(moments[column] if regression else (0.0, 1.0))) for column in found.targets]
    # A target that varies only in rows that are held out is not scaled.
    targets = [t if _varies(t.mean, t.deviation) else replace(t, deviation=1.0) for t in targets]
    if data.scale == "numbers":  # divided by its deviation, a category of few rows would weigh most
        marks = ("category", "missing")
        features = [replace(f, deviation=float(f.deviation > 0)) if f.kind in marks else f for f in features]
    if not data.scale:
        features = [replace(feature, mean=0.0, deviation=1.0) for feature in features]
        targets = [Target(target.column) for target in targets]
    return Encoding(tuple(features), tuple(targets), found.classes, found.kinds, data.decimal)


def _varies(mean: float, deviation: float) -> bool:
    return bool(np.isfinite(safe_deviation(np.array(mean), np.array(deviation))))


def _moments(frame: pl.DataFrame, columns: list[str], kept: Array, name: str) -> dict[str, tuple[float, float]]:
    """Means and standard deviations in float64, missing values counted as the mean. Raises DataError."""
    if not columns:
        return {}
    rows = frame.select(pl.col(columns))
    rows = rows if kept.all() else rows.filter(pl.Series(kept))
    values = pl.all().cast(pl.Float64)
    statistics = (values.mean(), values.std(ddof=0), values.count())
    means, deviations, counts = (rows.select(statistic).row(0) for statistic in statistics)
    found = {}
    for column, mean, deviation, count in zip(columns, means, deviations, counts, strict=True):
        spread = (deviation or 0.0) * (count / rows.height) ** 0.5
        flat = not spread or spread <= FLAT * abs(mean or 0.0)
        if not isfinite(spread) or (flat and count and rows[column].min() != rows[column].max()):
            if spread and isfinite(spread):
                raise DataError(f"{name}: column {shown(column)} is {NEARLY_CONSTANT}")
            raise DataError(f"{name}: column {shown(column)}: its numbers are too large or too small; scale them")
        found[column] = (mean or 0.0, spread)
    return found


def _categories(cells: pl.Series, column: str, kept: Array) -> list[Feature]:
    names = cells.drop_nulls().unique().sort().to_list()
    code = cells.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(len(names)).to_numpy()[kept]
    shares = np.bincount(code, minlength=len(names)) / len(code)
    return [
        Feature(f"{column}={name}", column, "category", name, None, *_of_share(float(share)))
        for name, share in zip(names, shares, strict=False)
    ]


def _of_share(share: float) -> tuple[float, float]:
    """Mean and standard deviation of a feature that is 1 in this share of the rows and 0 in the others."""
    return share, float(np.sqrt(share * (1 - share)))


# --- the arrays


def _split(frame: pl.DataFrame, held: Array, columns: Encoding, name: str, dtype: str) -> tuple[Array, Array]:
    """X of the training rows and of those held out, in the dtype and the order of the file."""
    mean, deviation = columns.mean, safe_deviation(columns.mean, columns.deviation)
    out = int(held.sum())
    D_in = len(columns.features)
    x: Array = np.empty((frame.height - out, D_in), dtype)
    x_held: Array = np.empty((out, D_in), dtype)
    block = max(1 << 10, _BLOCK // D_in)
    before = np.concatenate([[0], np.cumsum(held)])  # the number of rows above each that are held out

    def work(start: int) -> None:
        end = min(start + block, frame.height)
        numbers = unscaled(frame.slice(start, block), columns, name, start + 1)
        mask, at, to = held[start:end], before[start], before[end]
        with np.errstate(over="ignore", invalid="ignore"):  # `read` checks for numbers that are too large
            numbers -= mean
            numbers /= deviation
            x[start - at : end - to] = numbers if at == to else numbers[~mask]
            x_held[at:to] = numbers[mask]

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(work, range(0, frame.height, block)):
            pass
    return x, x_held


def _split_targets(frame: pl.DataFrame, held: Array, columns: Encoding, name: str, dtype: str) -> tuple[Array, Array]:
    y = encode_targets(frame, columns, name)
    with np.errstate(over="ignore", invalid="ignore"):
        if columns.classes is None:
            y -= [target.mean for target in columns.targets]
            y /= [target.deviation for target in columns.targets]
        y = y.astype(dtype)
    return y[~held], y[held]
