"""Permutation importance: how much worse a network is when a column of its table is shuffled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.errors import DataError
from twolayer.hardware import threads
from twolayer.tables.features import Encoding
from twolayer.training.metrics import scores

REPEATS = 5
MAX_ROWS = 10_000  # evenly spaced ones of more: a forward pass for each column and repeat


@dataclass(frozen=True)
class Importance:
    """What shuffling a column does, as the mean over `REPEATS` shuffles: the rise of the loss.

    `spread` is its largest minus its smallest value.

    `change` is that of the root mean squared error in units of the target, for several targets of the mean over them;
    for classes that of the accuracy.
    """

    column: str
    loss: float
    spread: float
    change: float


@dataclass(frozen=True)
class Importances:
    """The importance of every input column, the largest first.

    `loss` is that of the network on the `rows` rows as they are, and `constant` that of the constant (the mean, or the
    frequencies of the classes, of the training rows). `score` is what `change` is a change of.
    """

    columns: tuple[Importance, ...]
    rows: int
    are_held_out: bool
    measure: str  # of `score`: "RMSE" or "accuracy"
    loss: float
    constant: float
    score: float


def permutation_importance(model: nn.Sequential, data: Data, config: Config) -> Importances:
    """Shuffle each column of a table in turn, all features that are made of it together; drawn with the seed.

    On the validation rows, or on the training rows where none are held out, at most `MAX_ROWS`. Raises DataError for
    drawn data.
    """
    columns, part = data.columns, data.validation or data
    if columns is None:
        raise DataError("the importance of columns is for tables, and these data are drawn")
    if (rows := len(part.x)) > MAX_ROWS:
        some = (torch.arange(MAX_ROWS) * rows // MAX_ROWS).to(part.x.device)
        part = Data(part.x[some], part.y[some])
    generator = torch.Generator().manual_seed(config.seed)
    orders = [torch.randperm(len(part.x), generator=generator).to(part.x.device) for _ in range(REPEATS)]
    found, at = list[Importance](), 0
    with threads.set_up(config), torch.no_grad():
        loss, score = _measured(model, part.x, part.y, columns, config)
        for column, features in columns.groups:
            place = slice(at, at + len(features))
            at += len(features)
            pairs = []
            for order in orders:
                x = part.x.clone()
                x[:, place] = part.x[order, place]
                pairs.append(_measured(model, x, part.y, columns, config))
            losses = [pair[0] - loss for pair in pairs]
            worse = sum(pair[1] for pair in pairs) / REPEATS - score
            found.append(Importance(column, sum(losses) / REPEATS, max(losses) - min(losses), worse))
    found.sort(key=lambda item: -item.loss)
    constant = _constant_loss(data, part, config)
    measure = "RMSE" if columns.classes is None else "accuracy"
    return Importances(tuple(found), len(part.x), data.validation is not None, measure, loss, constant, score)


def _measured(model: nn.Sequential, x: Tensor, y: Tensor, columns: Encoding, config: Config) -> tuple[float, float]:
    """The loss; and the accuracy, or the root mean squared error in units of the target."""
    loss, *accuracy = scores(model, Data(x, y), config)
    if accuracy:
        return loss, accuracy[0]
    deviations = torch.tensor([target.deviation for target in columns.targets], dtype=torch.float64)
    errors = (model(x) - y).double().cpu()
    return loss, float((errors.square().mean(0).sqrt() * deviations).mean())


def _constant_loss(data: Data, part: Data, config: Config) -> float:
    """The loss of the constant of the training rows."""
    mean = data.y.double().mean(0)
    if config.loss == "cross_entropy":
        total = float(-(part.y.double() @ mean.log()).sum())
        return total / (len(part.y) if config.reduction == "mean" else 1)
    squares = (part.y.double() - mean).square()
    return float(squares.mean() if config.reduction == "mean" else squares.sum())
