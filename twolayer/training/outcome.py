"""What a training results in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.errors import DataError
from twolayer.evaluation.predictor import predictor_of
from twolayer.formatting import duration
from twolayer.reporting import notebook
from twolayer.training.shown import as_html

if TYPE_CHECKING:
    from twolayer.evaluation.frames import Frame


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


@dataclass(frozen=True, repr=False, eq=False)
class Training:
    """A finished training: the config with every `auto` but `lr` resolved, the trained model, its data, the losses.

    `losses[i]` is the loss before update i + 1 (with batches, over epoch i + 1), `final_loss` the loss of the weights
    that are kept, and `seconds` the time that the iterations took. `more` has the other columns of the history, by
    name: accuracy, val_loss, val_accuracy, lr. A notebook shows a training with its curve and its parameters.
    """

    config: Config
    model: nn.Sequential
    data: Data
    losses: tuple[float, ...]
    final_loss: float
    seconds: float
    more: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        """Whether a loss was not finite: then `final_loss` is nan. (`train` raises, and `sweep` goes on.)"""
        return not math.isfinite(self.final_loss)

    @property
    def history(self) -> dict[str, tuple[float, ...]]:
        """The columns of a run's history.csv: the number of the iteration or epoch, the loss, and all others."""
        return {self.config.unit: tuple(range(1, len(self.losses) + 1)), "loss": self.losses, **self.more}

    def predict(self, frame: Frame) -> Frame:
        """The predictions for the rows of a frame of polars or pandas, in the target's own units: a frame again.

        See `evaluation.frames.predict_frame`. Raises DataError where the training was not on a table.
        """
        columns = self.data.columns
        if columns is None:
            raise DataError("this training was not on a table: call `model` with a tensor of D_in columns")
        from twolayer.evaluation import frames

        return frames.predict_frame(predictor_of(self.model, columns), frame)

    def __repr__(self) -> str:
        kept = f"final loss {self.final_loss:.4g}"
        return notebook.text("Training", self.config.shape, self.history, kept, duration(self.seconds))

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.history, self.model, self.data.notes)
