"""The loss and the accuracy of a network."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn

from twolayer.config.loading import AnyConfig, as_config
from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.base import Data, Engine
from twolayer.engines.led import Sharing
from twolayer.errors import DivergedError
from twolayer.hardware import threads
from twolayer.training.setup import resolve_auto

# Hidden activations at once. Those of all rows would be half of a training's memory again: its engine is still there.
PART = 2**20


def final_loss(model: nn.Sequential, data: Data, config: AnyConfig) -> float:
    """The loss after the last update. Raises DivergedError if it is not finite."""
    config = resolve_auto(as_config(config))
    with threads.set_up(config):
        loss, *_ = scores(model, data, config)
    if not math.isfinite(loss):
        raise DivergedError(config.epochs + 1, loss, math.nan if config.lr == "auto" else config.lr)
    return loss


def training_scores(engine: Engine, model: nn.Sequential, data: Data, config: Config) -> list[float]:
    """What `scores` gives, of all training rows and the weights to keep; by the engine where processes share the data.

    Then that is the engine's last call.
    """
    if selection.shares_data(config):
        found: list[float] = cast(Sharing, engine).final_score().view(-1).tolist()
        return found
    return scores(model, data, config)


@torch.no_grad()
def scores(model: nn.Sequential, data: Data, config: Config) -> list[float]:
    """The loss of the current weights, and for classes the accuracy, a part of the rows at a time."""
    rows = min(max(selection.FEWEST_ROWS, PART // config.H), len(data.x))
    loss, correct = 0.0, 0
    is_whole = len(data.x) <= rows
    reduction = config.reduction if is_whole else "sum"
    for x, y in zip(torch.split(data.x, rows), torch.split(data.y, rows), strict=True):
        output = model(x)
        if config.loss == "cross_entropy":
            loss += float(nn.functional.cross_entropy(output, y, reduction=reduction))
            correct += int((output.argmax(1) == y.argmax(1)).sum())
        else:
            loss += float(nn.functional.mse_loss(output, y, reduction=reduction))
    if not is_whole and config.reduction == "mean":
        loss /= len(data.x) if config.loss == "cross_entropy" else data.y.numel()
    return [loss, correct / len(data.x)] if config.loss == "cross_entropy" else [loss]
