"""Early stopping: keeps the best weights on the validation rows, and says when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from twolayer.engines.base import check_state
from twolayer.errors import StateError


class EarlyStopping:
    """The weights with the lowest validation loss so far; the first of equal ones.

    `loss` is that loss, and `at` the number of epochs done before it. `since` is the number of epochs after which the
    patience was last counted from zero, apart from `at`.
    """

    def __init__(self, model: nn.Module, patience: int) -> None:
        self.patience = patience
        self.loss, self.at, self.since = math.inf, 0, 0
        self.own = model.state_dict()  # the model's weights themselves, not copies
        self.weights = {name: tensor.clone() for name, tensor in self.own.items()}

    def consider(self, loss: float, done: int) -> bool:
        """Keep the model's weights if `loss` is lower; True if it is time to stop."""
        if loss < self.loss:
            self.loss, self.at = loss, done
            torch._foreach_copy_(list(self.weights.values()), list(self.own.values()))
            return False
        return done - max(self.at, self.since) >= self.patience

    def count_again(self, done: int) -> None:
        """Count the patience from here on, after `done` epochs; the best weights stay."""
        self.since = done

    def restore(self) -> None:
        """Copy the best weights into the model."""
        with torch.no_grad():
            for name, tensor in self.own.items():
                tensor.copy_(self.weights[name])

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs."""
        figures = [self.loss, self.at, *([self.since] if self.since else [])]
        best = {"best": torch.tensor(figures, dtype=torch.float64)}
        return best | {f"best.{name}": tensor for name, tensor in self.weights.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state. Raises StateError if it is another training's."""
        self.since = 1 if "best" in state and state["best"].shape == (3,) else 0  # versions before it wrote two numbers
        check_state(self.state(), state)
        loss, at, since = [*state["best"].tolist(), 0.0][:3]
        if math.isnan(loss) or not (0 <= at < math.inf and 0 <= since < math.inf):
            raise StateError(f"is a state of another training: its best loss is {loss}, after {at} epochs")
        self.loss, self.at, self.since = loss, int(at), int(since)
        for name, tensor in self.weights.items():
            tensor.copy_(state[f"best.{name}"])
