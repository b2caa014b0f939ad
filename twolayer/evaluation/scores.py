"""Scores of a network and its baselines, with standard errors: R2, RMSE, MAE, accuracy, log loss, confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from twolayer.evaluation.moments import Moments
from twolayer.evaluation.predictor import Array, Predictor, forward, to_predictions

MODELS = ("network", "linear", "constant")
DIFFERENCES = {"network - linear": 1, "network - constant": 2}  # each with the number of its second model


@dataclass(frozen=True)
class Figure:
    """A score, or a difference of two, with its standard error; None where there is no such number."""

    value: float | None
    error: float | None

    @property
    def is_noise(self) -> bool:
        """Whether a difference is not larger than two standard errors of it."""
        return self.value is not None and self.error is not None and abs(self.value) <= 2 * self.error


@dataclass(frozen=True)
class Row:
    """The scores of a model, or a difference of two models; `target` is None for classes, and for the mean of all."""

    target: str | None
    model: str
    figures: dict[str, Figure]


class Scores:
    """The scores of the network, the linear model and the constant, summed over chunks of rows.

    All get the same standardised inputs; the constant is the mean of the training rows, or the frequencies of their
    classes. `rows` is the number of rows added so far.

    Standard errors are those of the mean over rows that are drawn independently. With e the errors of a model, n rows
    and sd(.) the standard deviation over the rows (n - 1 degrees of freedom), they are sd(e^2) / sqrt(n) for the mean
    squared error, half of that over the RMSE for the RMSE, sd(|e|) / sqrt(n) for the MAE, sd(-log p) / sqrt(n) for the
    log loss, and sqrt(p (1 - p) / n) for the accuracy p. R2 is 1 - mean(e^2) / v, where v is the variance of the target
    over the rows: its standard error, by the delta method, is sd(e^2 - (1 - R2) (y - mean(y))^2) / (v sqrt(n)). A
    difference of two models is paired: its standard error is that of the differences row by row.
    """

    def __init__(self, model: Predictor) -> None:
        self.model, self.rows = model, 0
        outputs = len(model.target_mean)
        # Of each target: squared and absolute errors of the three models in units of its standard deviation, the target
        # less its first value, and the square of that. Of all classes together: log losses, and 1 for a correct class.
        self._moments = Moments(outputs, 8) if model.columns.classes is None else Moments(1, 6)
        self._over_all = Moments(1, len(MODELS))  # the mean of the squared errors of all targets
        self._first = np.zeros(outputs)
        self.confusion = np.zeros((outputs, outputs), dtype=np.int64)  # rows: true classes; columns: predicted ones

    def add(self, x: Array, y: Array) -> None:
        """Add rows: x (n, D_in) standardised, y (n, D_out) targets in their own units, or one-hot."""
        if not len(x):
            return
        targets, baseline = torch.from_numpy(y), self.model.baseline
        outputs = (
            forward(self.model, x),
            functional.linear(torch.from_numpy(x), baseline.weight, baseline.bias),
            baseline.constant.expand_as(targets),
        )
        with np.errstate(over="ignore", invalid="ignore"):  # a model may overflow: the scores are then inf or nan
            if self.model.columns.classes is None:
                self._add_targets(outputs, targets)
            else:
                self._add_classes(outputs, targets)
        self.rows += len(x)

    def _add_targets(self, outputs: Sequence[Tensor], targets: Tensor) -> None:
        deviation = self.model.target_deviation
        errors = [((to_predictions(self.model, output) - targets) / deviation).numpy() for output in outputs]
        if not self.rows:
            self._first = targets[0].numpy().copy()
        level = (targets.numpy() - self._first) / deviation.numpy()  # of a constant target exactly 0
        squares = [np.square(error) for error in errors]
        self._moments.add(np.stack([*squares, *map(np.abs, errors), level, np.square(level)], axis=2))
        self._over_all.add(np.stack([square.mean(1) for square in squares], axis=1)[:, None, :])

    def _add_classes(self, outputs: Sequence[Tensor], targets: Tensor) -> None:
        network, linear, constant = outputs
        smallest = torch.finfo(torch.float64).eps  # not 0, for a class that the training rows did not have
        logs = (network.log_softmax(1), linear.log_softmax(1), constant.clamp(min=smallest).log())
        true = targets.argmax(1)
        losses = [-log.gather(1, true[:, None])[:, 0] for log in logs]
        correct = [(log.argmax(1) == true).double() for log in logs]
        self._moments.add(torch.stack([*losses, *correct], dim=1)[:, None, :].numpy())
        classes = len(self.confusion)
        pairs = torch.bincount(true * classes + network.argmax(1), minlength=classes**2)
        self.confusion += pairs.reshape(classes, classes).numpy()

    def table(self) -> list[Row]:
        """The scores of each model, and the differences of the network from the baselines.

        For classes: accuracy and log loss. For targets: the loss, which is the mean squared error of the standardised
        targets, R2, and RMSE and MAE in the target's own units, for each target; with several targets, rows with the
        loss over all come first. R2 is None where the target has only one value.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self.model.columns.classes is not None:
                return list(_rows([None], self._moments, self._of_classes()))
            found = [
                *_rows([target.column for target in self.model.columns.targets], self._moments, self._of_targets())
            ]
            if len(self._first) > 1:
                over_all = {"loss": (self._over_all.mean, np.eye(len(MODELS))[:, None, :])}
                found = [*_rows([None], self._over_all, over_all), *found]
        return found

    def _of_classes(self) -> dict[str, tuple[Array, Array]]:
        """The values (T, models) of each score, and their gradients (models, T, F) by the means of the moments."""
        mean, unit = self._moments.mean, np.eye(6)[:, None, :]
        # The usual standard error of a share p is sqrt(p (1 - p) / n), without n - 1.
        share = math.sqrt((self.rows - 1) / self.rows)
        return {"accuracy": (mean[:, 3:], share * unit[3:]), "log loss": (mean[:, :3], unit[:3])}

    def _of_targets(self) -> dict[str, tuple[Array, Array]]:
        """The same for targets; R2 is nan where the target has only one value."""
        mean, deviation = self._moments.mean, self.model.target_deviation.numpy()[:, None]
        loss, size, level = mean[:, :3], mean[:, 3:6], mean[:, 6:7]
        unit = np.repeat(np.eye(8)[:, None, :], len(mean), axis=1)  # (F, T, F)
        variance = self._moments.products[:, 6, 6][:, None] / self.rows
        variance = np.where(variance > 0, variance, np.nan)
        rest = loss / variance  # 1 - R2, whose gradient is (d loss - rest d variance) / variance
        scales = (-1 / variance, rest / variance, -2 * rest * level / variance)
        by_loss, by_square, by_level = (_gradient(scale, loss.shape) for scale in scales)
        r2 = by_loss * unit[:3] + by_square * unit[7] + by_level * unit[6]
        root = np.sqrt(loss)
        half = np.where(root > 0, deviation / (2 * root), 0.0)
        return {
            "loss": (loss, unit[:3]),
            "R2": (1 - rest, r2),
            "RMSE": (deviation * root, _gradient(half, loss.shape) * unit[:3]),
            "MAE": (deviation * size, _gradient(deviation, loss.shape) * unit[3:6]),
        }


def _gradient(scale: Array, shape: tuple[int, ...]) -> Array:
    """Factors (T, 1) or (T, models) as (models, T, 1)."""
    return np.broadcast_to(scale, shape).T[:, :, None]


def _rows(targets: Sequence[str | None], moments: Moments, scores: dict[str, tuple[Array, Array]]) -> Iterator[Row]:
    """The rows of a table: for each target those of the models, then those of the differences."""
    parts: dict[str, dict[str, tuple[Array, Array]]] = {name: {} for name in (*MODELS, *DIFFERENCES)}
    for score, (values, gradients) in scores.items():
        for m, name in enumerate(MODELS):
            parts[name][score] = values[:, m], moments.error(gradients[m])
        for name, m in DIFFERENCES.items():
            parts[name][score] = values[:, 0] - values[:, m], moments.error(gradients[0] - gradients[m])
    for t, target in enumerate(targets):
        for name, columns in parts.items():
            figures = {
                score: _figure(values[t], errors[t], moments.rows, hidden=score == "R2" and not _varies(moments, t))
                for score, (values, errors) in columns.items()
            }
            yield Row(target, name, figures)


def _varies(moments: Moments, t: int) -> bool:
    """Whether the target has more than one value."""
    return bool(moments.products[t, 6, 6] > 0)


def _figure(value: float, error: float, rows: int, *, hidden: bool) -> Figure:
    if hidden:
        return Figure(None, None)
    return Figure(float(value), float(error) if rows > 1 else None)
