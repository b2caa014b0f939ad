"""The exponential average of the weights over the epochs: validated and kept in place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from twolayer.engines.base import check_state


class WeightAverage:
    """The average of the weights after each epoch, in which an epoch counts `decay` times what the next one does.

    After t epochs it is sum(decay^(t - i) w_i) / sum(decay^(t - i)), i from 1 to t: the initial weights are not in it.
    Before the first epoch it is these. One addition an epoch. `weights` are the tensors that an engine trains.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.weights, self.decay = dict(weights), decay
        self.mean = {name: tensor.clone() for name, tensor in weights.items()}
        self.aside = [torch.empty_like(tensor) for tensor in self.mean.values()]

    @torch.no_grad()
    def add(self, done: int) -> None:
        """Include the weights after `done` epochs."""
        share = (1 - self.decay) / (1 - self.decay**done)
        torch._foreach_lerp_(list(self.mean.values()), list(self.weights.values()), share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The engine has the average for its weights within the block, and its own after it, bit for bit."""
        own = list(self.weights.values())
        torch._foreach_copy_(self.aside, own)
        self.keep()
        try:
            yield
        finally:
            torch._foreach_copy_(own, self.aside)

    def keep(self) -> None:
        """Give the engine the average for its weights."""
        torch._foreach_copy_(list(self.weights.values()), list(self.mean.values()))

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs."""
        return {f"average.{name}": tensor for name, tensor in self.mean.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state. Raises StateError if it is another training's."""
        own = self.state()
        check_state(own, state)
        for name, tensor in own.items():
            tensor.copy_(state[name])
