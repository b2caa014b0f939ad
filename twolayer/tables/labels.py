"""The names of categories and classes in columns of numbers, and in text that is numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import polars as pl

_PADDED = re.compile("0[0-9]{1,14}")  # longer digits are no exact float64


def labels(cells: pl.Series) -> pl.Series:
    """The names of classes in a column that is not text: `true`, `false`, or a number (10 for 10.0)."""
    if cells.dtype.is_float():
        whole = cells.fill_nan(None)
        return (
            pl.select(
                pl.when(whole == whole.round(0))
                .then(pl.coalesce(whole.cast(pl.Int64, strict=False).cast(pl.String), whole.cast(pl.String)))
                .otherwise(whole.cast(pl.String))
            )
            .to_series()
            .alias(cells.name)
        )
    return cells.cast(pl.String)


def named_by_number(cells: pl.Series, names: Sequence[str]) -> pl.Series:
    """Text that is a number as the one of these names that is the same number: 1.0 as 1, 1 as 01; null for other text.

    Spreadsheets take zeros in front of digits away.
    """
    padded = [name for name in names if _PADDED.fullmatch(name)]
    numbers = Counter(map(int, padded))
    full = {str(int(name)): name for name in padded if numbers[int(name)] == 1 and str(int(name)) not in names}
    found = labels(cells.cast(pl.Float64, strict=False))
    return found.replace(full) if full else found
