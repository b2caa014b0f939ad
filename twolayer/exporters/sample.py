"""Rows to try a model on: made from its columns alone, so that no table is needed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np

from twolayer.tables.features import Array, Encoding, Feature, Notation

_UNKNOWN = "a category that no training had"
_DAY = 86_400.0  # seconds


def rows(columns: Encoding, count: int) -> dict[str, Array]:
    """Values for all columns, (count,): missing ones, unknown categories and ordinary ones, always the same.

    Numbers are float64 (NaN if missing), dates days since 1970-01-01, categories text ("" if missing).
    """
    random = np.random.default_rng(0)
    found = {}
    for column, features in columns.groups:
        kind = columns.kinds[column]
        gone = random.random(count) < (0.2 if _may_lack(columns, features) else 0)
        if kind == "category":
            names = [f.category for f in features if f.category is not None]
            cells = np.array([*names, _UNKNOWN], dtype=object)[random.integers(0, len(names) + 1, count)]
            cells[gone] = ""
            found[column] = cells.astype(np.str_)
            continue
        numbers = features[0].mean + (features[0].deviation or 1.0) * random.normal(size=count)
        if kind == "boolean":
            numbers = random.integers(0, 2, count).astype(np.float64)
        elif columns.orders.get(column) == "time":
            numbers = random.integers(0, 24 * 60, count) / (24 * 60)
        elif kind == "date":
            numbers = np.round(np.clip(numbers, -20_000, 40_000) * _DAY) / _DAY  # the years 1915 to 2079
        found[column] = np.where(gone, np.nan, numbers)
    return found


def _may_lack(columns: Encoding, features: tuple[Feature, ...]) -> bool:
    return features[-1].kind == "missing" or features[0].fill is not None or columns.missing == "mean"


def as_text(values: dict[str, Array], columns: Encoding) -> dict[str, list[str]]:
    """The values as the cells of a CSV, in the notations of the columns."""
    found: dict[str, list[str]] = {}
    for column, kind in columns.kinds.items():
        cells: list[Any] = values[column].tolist()
        if kind == "date":
            texts = [_date(cell, time_only=columns.orders.get(column) == "time") for cell in cells]
        elif kind == "category":
            texts = cells
        else:
            texts = [_number(cell, columns.notation(column)) for cell in cells]
        found[column] = texts
    return found


def _number(value: float, form: Notation | None) -> str:
    if value != value:  # NaN
        return ""
    if form is None:
        return repr(value)
    sign = "-" if value < 0 else ""
    return f"{sign}{form.prefix}{repr(abs(value)).replace('.', form.decimal)}{form.suffix}"


def _date(days: float, *, time_only: bool) -> str:
    if days != days:
        return ""
    when = datetime(1970, 1, 1) + timedelta(seconds=round(days * _DAY))
    return f"{when:%H:%M:%S}" if time_only else f"{when:%Y-%m-%d %H:%M:%S}"
