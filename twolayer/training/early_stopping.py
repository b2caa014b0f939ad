"""Early stopping: the best weights on the validation rows, and when to look for better ones no longer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from twolayer.engines.base import check_state
from twolayer.errors import StateError


class EarlyStopping:
    """The weights with the least validation loss so far; the earliest, where several have it.

    `loss` is that loss, and `at` the epochs that were done then.
    """

    def __init__(self, model: nn.Module, patience: int) -> None:
        self.patience = patience
        self.loss, self.at = math.inf, 0
        self.own = model.state_dict()  # the model's weights themselves
        self.weights = {name: tensor.clone() for name, tensor in self.own.items()}

    def consider(self, loss: float, done: int) -> bool:
        """Keep the model's weights if they are better; whether it is time to stop."""
        if loss < self.loss:
            self.loss, self.at = loss, done
            for name, tensor in self.own.items():
                self.weights[name].copy_(tensor)
            return False
        return done - self.at >= self.patience

    def restore(self) -> None:
        """Give the model the best weights."""
        with torch.no_grad():
            for name, tensor in self.own.items():
                tensor.copy_(self.weights[name])

    def state(self) -> dict[str, Tensor]:
        """All that a continuation needs."""
        figures = torch.tensor([self.loss, self.at], dtype=torch.float64)
        return {"best": figures} | {f"best.{name}": tensor for name, tensor in self.weights.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state. Raises StateError for another's."""
        check_state(self.state(), state)
        loss, at = state["best"].tolist()
        if math.isnan(loss) or not 0 <= at < math.inf:
            raise StateError(f"is a state of another training: its best loss is {loss}, after {at} epochs")
        self.loss, self.at = loss, int(at)
        for name, tensor in self.weights.items():
            tensor.copy_(state[f"best.{name}"])
