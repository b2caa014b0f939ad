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
        self.decay = decay
        self.own = _at_once(list(weights.values()))
        self.means, self.aside = ([tensor.clone() for tensor in self.own] for _ in range(2))
        self.mean = dict(zip(weights, self.means, strict=False))
        if len(self.own) < len(weights):
            self.mean = {
                name: self.means[0].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
                for name, tensor in weights.items()
            }

    @torch.no_grad()
    def add(self, done: int) -> None:
        """Include the weights after `done` epochs."""
        share = (1 - self.decay) / (1 - self.decay**done)
        torch._foreach_lerp_(self.means, self.own, share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The engine has the average for its weights within the block, and its own after it, bit for bit."""
        torch._foreach_copy_(self.aside, self.own)
        self.keep()
        try:
            yield
        finally:
            torch._foreach_copy_(self.own, self.aside)

    def keep(self) -> None:
        """Give the engine the average for its weights."""
        torch._foreach_copy_(self.own, self.means)

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


def _at_once(tensors: list[Tensor]) -> list[Tensor]:
    """The same numbers as one vector, where the tensors fill one: a copy of that takes a quarter of the calls."""
    first = tensors[0]
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    numbers = first.untyped_storage().nbytes() // first.itemsize
    if len(tensors) == 1 or len(storages) > 1 or sum(tensor.numel() for tensor in tensors) != numbers:
        return tensors
    return [first.as_strided((numbers,), (1,), 0)]
