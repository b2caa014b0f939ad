"""Suspects inputs that hold the target: a single column from which the target follows exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from twolayer.evaluation.predictor import Array
from twolayer.tables.features import Encoding

EXACT = 1e-6  # of the target's variance: what may be left unexplained, as by rounding
MIN_ROWS = 10  # of fewer rows nothing is suspected
_CHANCE = 1e-6  # how probable it may be that a column without any relation to the classes separates them
_MAX_NUMBERS = 2**22  # features times classes that are counted


class TargetSearch:
    """Finds columns of numbers of which a target is a linear function. Sums over chunks of rows, float64."""

    def __init__(self, columns: Encoding) -> None:
        self.columns, self.rows = columns, 0

    def add(self, x: Array, y: Array) -> None:
        """Add rows: x (n, D_in) standardised, y (n, D_out) in their own units."""
        if not self.rows:
            self._x, self._y = x[0].copy(), y[0].copy()  # subtracted, so that the sums lose no digits
            self._sums = [np.zeros(1) for _ in range(5)]
        scale = [target.deviation for target in self.columns.targets]
        with np.errstate(over="ignore", invalid="ignore"):
            x, y = x - self._x, (y - self._y) / scale
            new = (x.sum(0), y.sum(0), np.square(x).sum(0), np.square(y).sum(0), x.T @ y)
            self._sums = [before + more for before, more in zip(self._sums, new, strict=True)]
        self.rows += len(x)

    def found(self, target: int) -> list[str]:
        """The columns that give this target exactly."""
        if self.rows < MIN_ROWS:
            return []
        n = self.rows
        sum_x, sum_y, square_x, square_y, products = self._sums
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            var_x = square_x - sum_x**2 / n
            var_y = square_y[target] - sum_y[target] ** 2 / n
            unexplained = 1 - (products[:, target] - sum_x * sum_y[target] / n) ** 2 / (var_x * var_y)
        features = self.columns.features
        return [features[j].column for j in np.flatnonzero(unexplained < EXACT) if features[j].kind == "number"]


class ClassSearch:
    """Finds columns that tell the class in each row: numbers in ranges, or categories, that have one class each."""

    def __init__(self, columns: Encoding) -> None:
        self.columns, self.rows = columns, 0
        inputs, classes = len(columns.features), len(columns.classes or ())
        self._is_on = inputs * classes <= _MAX_NUMBERS
        shape = (inputs, classes) if self._is_on else (0, 0)
        self._counts = np.zeros(shape)  # rows of each class in which a feature of 0 and 1 is 1
        self._low, self._high = np.full(shape, np.inf), np.full(shape, -np.inf)
        self._sizes = np.zeros(classes, dtype=np.int64)
        self._half = (0.5 - columns.mean) / np.where(columns.deviation > 0, columns.deviation, 1)

    def add(self, x: Array, y: Array) -> None:
        """Add rows: x (n, D_in) standardised, y (n, classes) one-hot."""
        self.rows += len(x)
        if not self._is_on:
            return
        self._counts += (x > self._half).T.astype(float) @ y
        self._sizes += y.sum(0).astype(np.int64)
        classes = y.argmax(1)
        order = np.argsort(classes, kind="stable")
        there, starts = np.unique(classes[order], return_index=True)
        low, high = (f.reduceat(x[order], starts, axis=0).T for f in (np.minimum, np.maximum))
        self._low[:, there] = np.minimum(self._low[:, there], low)
        self._high[:, there] = np.maximum(self._high[:, there], high)

    def found(self) -> list[str]:
        """The columns that tell the class in each row."""
        there = np.flatnonzero(self._sizes)
        if self.rows < MIN_ROWS or len(there) < 2 or not self._is_on:
            return []
        limit = math.log(_CHANCE / len(self.columns.groups))
        ranges_are_chance = math.lgamma(len(there) + 1) + _log_share(self._sizes[there].tolist()) > limit
        found, start = [], 0
        for column, features in self.columns.groups:
            part = slice(start, start + len(features))
            start = part.stop
            counts = self._counts[part][:, there]
            if self.columns.kinds[column] == "category":
                is_exact = self._is_pure(counts, limit)
            else:
                is_exact = not ranges_are_chance and _is_parted(self._low[part][0, there], self._high[part][0, there])
                if features[-1].kind == "missing":  # whether there is a value may tell the class, too
                    is_exact |= self._is_pure(np.stack([counts[-1], self._sizes[there] - counts[-1]]), limit)
            if is_exact:
                found.append(column)
        return found

    def _is_pure(self, counts: Array, limit: float) -> bool:
        """Whether the rows with a category have one class, and that is no accident, as it is of one row."""
        sizes = counts.sum(1)
        if sizes.sum() < self.rows or (counts.max(1) < sizes).any():
            return False
        classes = counts.sum(0)
        ways = int((sizes > 0).sum()) * math.log(len(classes))  # to give each category a class
        return ways + _log_share(classes.tolist()) <= limit


def _is_parted(low: Array, high: Array) -> bool:
    """Whether the ranges of the classes do not touch."""
    order = np.argsort(low)
    return bool((high[order][:-1] < low[order][1:]).all())


def _log_share(sizes: Sequence[float]) -> float:
    """The logarithm of the share of one order among all orders of rows with these counts of the classes."""
    return sum(math.lgamma(size + 1) for size in sizes) - math.lgamma(sum(sizes) + 1)
