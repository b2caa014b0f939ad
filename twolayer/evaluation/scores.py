"""How good a network, a linear model and a constant are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from twolayer.evaluation.predictor import Array, Predictor, finished, forward

MODELS = ("network", "linear", "constant")


class Scores:
    """How good the network, the linear model and the constant are, added up over chunks of rows.

    The network and the linear model are judged by what they give on the same standardised inputs; the constant is the
    training rows' mean, or their frequencies of the classes. `rows` counts what was added.
    """

    def __init__(self, model: Predictor) -> None:
        self.model, self.rows = model, 0
        outputs = len(model.target_mean)
        self._squares = np.zeros((len(MODELS), outputs))  # of the errors, in the targets' own units
        self._sizes = np.zeros((len(MODELS), outputs))
        self._losses = np.zeros(len(MODELS))
        self._right = np.zeros(len(MODELS), dtype=np.int64)
        self._first = self._mean = self._moment = np.zeros(outputs)  # of the targets, as Chan et al. (1983) merge them
        self.confusion = np.zeros((outputs, outputs), dtype=np.int64)  # true classes by predicted ones

    def add(self, x: Array, y: Array) -> None:
        """Count rows in: x (n, D_in) standardised, y (n, D_out) targets in their own units, or one-hot."""
        if not len(x):
            return
        targets, baseline = torch.from_numpy(y), self.model.baseline
        outputs = (
            forward(self.model, x),
            functional.linear(torch.from_numpy(x), baseline.weight, baseline.bias),
            baseline.constant.expand_as(targets),
        )
        with np.errstate(over="ignore", invalid="ignore"):  # a model may overflow: the figures say so
            if self.model.columns.classes is None:
                self._add_targets(outputs, targets)
            else:
                self._add_classes(outputs, targets)
        self.rows += len(x)

    def _add_targets(self, outputs: Sequence[Tensor], targets: Tensor) -> None:
        for number, output in enumerate(outputs):
            errors = (finished(self.model, output) - targets).numpy()
            self._squares[number] += np.square(errors).sum(0)
            self._sizes[number] += np.abs(errors).sum(0)
        if not self.rows:
            self._first = targets[0].numpy()
        values = targets.numpy() - self._first  # so that a constant is one to the last bit
        mean, total = values.mean(0), self.rows + len(values)
        self._moment = (
            self._moment
            + np.square(values - mean).sum(0)
            + np.square(mean - self._mean) * (self.rows * len(values) / total)
        )
        self._mean = self._mean + (mean - self._mean) * (len(values) / total)

    def _add_classes(self, outputs: Sequence[Tensor], targets: Tensor) -> None:
        network, linear, constant = outputs
        smallest = torch.finfo(torch.float64).eps  # a class that the training rows had not is not impossible
        logs = (network.log_softmax(1), linear.log_softmax(1), constant.clamp(min=smallest).log())
        true = targets.argmax(1)
        for number, log in enumerate(logs):
            self._losses[number] -= float(log.gather(1, true[:, None]).sum())
            self._right[number] += int((log.argmax(1) == true).sum())
        classes = len(self.confusion)
        pairs = torch.bincount(true * classes + network.argmax(1), minlength=classes**2)
        self.confusion += pairs.reshape(classes, classes).numpy()

    def table(self) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Names and rows of the figures.

        Of classes: accuracy and log loss. Of targets: the loss, which is the mean squared error in the training's
        units, and R2, RMSE and MAE in the target's own, for each; of several, the loss over all comes first. R2 is None
        where a target has one value only.
        """
        if self.model.columns.classes is not None:
            rows = zip(MODELS, (self._right / self.rows).tolist(), (self._losses / self.rows).tolist(), strict=True)
            return ("model", "accuracy", "log loss"), list(rows)
        means = self._squares / self.rows
        scaled = means / self.model.target_deviation.numpy() ** 2
        found: list[tuple[Any, ...]] = []
        if len(self._first) > 1:
            found = [(None, name, float(scaled[n].mean()), None, None, None) for n, name in enumerate(MODELS)]
        for k, target in enumerate(self.model.columns.targets):
            for n, name in enumerate(MODELS):
                with np.errstate(over="ignore", invalid="ignore"):
                    determined = 1 - self._squares[n, k] / self._moment[k] if self._moment[k] > 0 else None
                figures = (scaled[n, k], determined, np.sqrt(means[n, k]), self._sizes[n, k] / self.rows)
                found.append((target.column, name, *(None if f is None else float(f) for f in figures)))
        return ("target", "model", "loss", "R2", "RMSE", "MAE"), found
