"""Means and covariances of values that come in chunks of rows, and standard errors from them."""

from __future__ import annotations

import numpy as np

from twolayer.evaluation.predictor import Array


class Moments:
    """Sums of values (T, F) over rows, and of products of their deviations from the mean, (T, F, F).

    Chunks are merged as in Chan, Golub and LeVeque (1983): no large numbers are subtracted from each other. float64.
    """

    def __init__(self, *shape: int) -> None:
        self.rows = 0
        self.sums = np.zeros(shape)
        self.products = np.zeros((*shape, shape[-1]))

    def add(self, values: Array) -> None:
        """Add the values of some rows, (n, T, F)."""
        count, sums = len(values), values.sum(0)
        mean = sums / count
        around = (values - mean).transpose(1, 2, 0)  # (T, F, n)
        self.products = self.products + around @ around.transpose(0, 2, 1)
        if self.rows:
            shift = mean - self.mean
            weight = self.rows * count / (self.rows + count)
            self.products = self.products + shift[:, :, None] * shift[:, None, :] * weight
        self.sums = self.sums + sums
        self.rows += count

    @property
    def mean(self) -> Array:
        """The means, (T, F)."""
        return self.sums / self.rows

    def error(self, gradient: Array) -> Array:
        """The standard errors, (T,), of functions of the means with these gradients, (T, F); nan for fewer than 2 rows.

        By the delta method: sqrt(g' C g / n), where C is the covariance of the values over the rows (n - 1 degrees of
        freedom). For one of the means itself that is its standard deviation over the square root of n.
        """
        if self.rows < 2:
            return np.full(len(self.sums), np.nan)
        used = gradient != 0  # the products of a model that overflows are nan: they are not those of the others
        products = np.where(used[:, :, None] & used[:, None, :], self.products, 0)
        variances = np.einsum("tf,tfg,tg->t", gradient, products, gradient) / (self.rows - 1) / self.rows
        found: Array = np.sqrt(np.maximum(variances, 0))
        return found
