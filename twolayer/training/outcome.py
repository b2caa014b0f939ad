"""What a training results in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from twolayer.config.schema import Config
from twolayer.engines.base import Data


@dataclass(frozen=True)
class Outcome:
    """The result of a training: the weights that are kept are those after `kept` updates (with batches, epochs).

    With `average` they are the average up to there.

    `scores` are their scores, named as in the history: loss, accuracy, val_loss, val_accuracy.
    """

    kept: int
    scores: Mapping[str, float]

    @property
    def loss(self) -> float:
        """The loss of the weights that are kept: the last ones, or their average; with `patience` the best."""
        return self.scores["loss"]


@dataclass(frozen=True)
class Training:
    """A finished training: the config with every `auto` but `lr` resolved, the trained model, its data, the losses.

    `losses[i]` is the loss before update i + 1 (with batches, over epoch i + 1), `final_loss` the loss of the weights
    that are kept, and `seconds` the time that the iterations took.
    """

    config: Config
    model: nn.Sequential
    data: Data
    losses: tuple[float, ...]
    final_loss: float
    seconds: float
