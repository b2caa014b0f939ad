"""The encoding of a table, with means and standard deviations of its training rows."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

import numpy as np
import polars as pl

from twolayer.errors import DataError
from twolayer.tables.dates import part_of
from twolayer.tables.encoding import shown
from twolayer.tables.features import FLAT, PARTS, Array, Encoding, Feature, Target, safe_deviation
from twolayer.tables.options import FileData
from twolayer.tables.survey import NEARLY_CONSTANT, Survey


def fit_encoding(found: Survey, held: Array, data: FileData) -> Encoding:
    """The encoding: features in the order of their columns, scaled by the rows that are not held out."""
    frame, kept = found.frame, ~held
    regression = found.classes is None
    plain = [column for column, kind in found.kinds.items() if kind in ("number", "boolean")]
    fill_all = data.missing == "mean"
    moments = _moments(frame, [*plain, *(found.targets if regression else ())], kept, data.path)
    features: list[Feature] = []
    for column, kind in found.kinds.items():
        marked = column in found.missing
        if kind == "category":
            features += _categories(frame[column], column, kept)
        elif kind == "date":
            features += _dates(frame[column], column, kept, filled=marked or fill_all)
        else:
            mean, deviation = moments[column]
            fill = mean if marked or fill_all else None
            features.append(Feature(column, column, "number", None, fill, mean, deviation))
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
    used = {*found.kinds, *(found.targets if regression else ())}
    decimal = "," if data.decimal == "," else "."
    return Encoding(
        tuple(features), tuple(targets), found.classes, found.kinds, decimal,
        {column: notation for column, notation in found.notations.items() if column in used},
        {column: order for column, order in found.orders.items() if column in used},
        tuple(data.na), data.missing,
    )  # fmt: skip


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


def _dates(cells: pl.Series, column: str, kept: Array, *, filled: bool) -> list[Feature]:
    """The time that has elapsed, and what of month, weekday and hour varies in the training rows."""
    features = []
    for part in PARTS:
        values = part_of(cells, part)[kept]
        there = values[~np.isnan(values)]
        mean = float(there.mean()) if len(there) else 0.0
        spread = float(there.std()) * (len(there) / len(values)) ** 0.5 if len(there) else 0.0
        if part == "elapsed" or spread > FLAT:
            name = f"{column} {part}" if part != "elapsed" else column
            features.append(Feature(name, column, "date", None, mean if filled else None, mean, spread, part))
    return features


def _of_share(share: float) -> tuple[float, float]:
    """Mean and standard deviation of a feature that is 1 in this share of the rows and 0 in the others."""
    return share, float(np.sqrt(share * (1 - share)))
