"""Scores of a network and its baselines: R2, RMSE, MAE, accuracy, log loss, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from twolayer.evaluation.predictor import Array, Predictor, forward, to_predictions

MODELS = ("network", "linear", "constant")


class Scores:
    """The scores of the network, the linear model and the constant, summed over chunks of rows.

    All get the same standardised inputs; the constant is the mean of the training rows, or the frequencies of their
    classes. `rows` is the number of rows added so far.
    """

    def __init__(self, model: Predictor) -> None:
        self.model, self.rows = model, 0
        outputs = len(model.target_mean)
        self._squared_errors = np.zeros((len(MODELS), outputs))  # sums, in the targets' own units
        self._absolute_errors = np.zeros((len(MODELS), outputs))
        self._losses = np.zeros(len(MODELS))
        self._correct = np.zeros(len(MODELS), dtype=np.int64)
        self._first = self._mean = self._moment = np.zeros(outputs)  # of the targets, merged as in Chan et al. (1983)
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
        for number, output in enumerate(outputs):
            errors = (to_predictions(self.model, output) - targets).numpy()
            self._squared_errors[number] += np.square(errors).sum(0)
            self._absolute_errors[number] += np.abs(errors).sum(0)
        if not self.rows:
            self._first = targets[0].numpy()
        values = targets.numpy() - self._first  # so that the moment of a constant target is exactly 0
        mean, total = values.mean(0), self.rows + len(values)
        self._moment = (
            self._moment
            + np.square(values - mean).sum(0)
            + np.square(mean - self._mean) * (self.rows * len(values) / total)
        )
        self._mean = self._mean + (mean - self._mean) * (len(values) / total)

    def _add_classes(self, outputs: Sequence[Tensor], targets: Tensor) -> None:
        network, linear, constant = outputs
        smallest = torch.finfo(torch.float64).eps  # not 0, for a class that the training rows did not have
        logs = (network.log_softmax(1), linear.log_softmax(1), constant.clamp(min=smallest).log())
        true = targets.argmax(1)
        for number, log in enumerate(logs):
            self._losses[number] -= float(log.gather(1, true[:, None]).sum())
            self._correct[number] += int((log.argmax(1) == true).sum())
        classes = len(self.confusion)
        pairs = torch.bincount(true * classes + network.argmax(1), minlength=classes**2)
        self.confusion += pairs.reshape(classes, classes).numpy()

    def table(self) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """The names of the scores, and a row of them for each model.

        For classes: accuracy and log loss. For targets: the loss, which is the mean squared error of the standardised
        targets, R2, and RMSE and MAE in the target's own units, a row for each target and model; with several targets,
        rows with the loss over all come first. R2 is None where the target has only one value.
        """
        if self.model.columns.classes is not None:
            rows = zip(MODELS, (self._correct / self.rows).tolist(), (self._losses / self.rows).tolist(), strict=True)
            return ("model", "accuracy", "log loss"), list(rows)
        means = self._squared_errors / self.rows
        scaled = means / self.model.target_deviation.numpy() ** 2
        found: list[tuple[Any, ...]] = []
        if len(self._first) > 1:
            found = [(None, name, float(scaled[n].mean()), None, None, None) for n, name in enumerate(MODELS)]
        for k, target in enumerate(self.model.columns.targets):
            for n, name in enumerate(MODELS):
                with np.errstate(over="ignore", invalid="ignore"):
                    r2 = 1 - self._squared_errors[n, k] / self._moment[k] if self._moment[k] > 0 else None
                figures = (scaled[n, k], r2, np.sqrt(means[n, k]), self._absolute_errors[n, k] / self.rows)
                found.append((target.column, name, *(None if f is None else float(f) for f in figures)))
        return ("target", "model", "loss", "R2", "RMSE", "MAE"), found
