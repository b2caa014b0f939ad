"""An epoch of updates: the order of its rows, and how far it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.base import Data, Engine, RowEngine, check_state
from twolayer.engines.losses import Objective
from twolayer.errors import StateError


class Epoch:
    """The `number`-th epoch, counted from 0: `count` updates, of which `done` are done. Without batches it is one.

    `losses` holds the losses of the updates, shape (count,), for classes with the accuracies (count, 2). `validated` is
    what the validation rows gave before the first update, () without any.
    """

    STATE = ("epoch.losses", "epoch.validated")  # the names that `state` may have

    def __init__(self, number: int, config: Config, data: Data, validated: Sequence[float] = ()) -> None:
        self.rows = N = config.N
        self.reduction, self.validated, self.done = config.reduction, tuple(validated), 0
        self.count = updates_per_epoch(config)
        self.sizes = _sizes(N, self.count)
        self.batches: Sequence[Tensor] = ()  # the rows of each update; all rows, in their own order, where it is empty
        if config.batch_size is not None and config.batch_size < N:
            self.batches = torch.split_with_sizes(epoch_order(config.seed, number, N).to(data.x.device), self.sizes)
        self.losses = data.x.new_empty(self.count, *Objective.of(config).shape)

    def advance(self, engine: Engine, count: int) -> None:
        """Do the next updates, `count` of them."""
        start, end = self.done, self.done + count
        if self.batches:
            cast(RowEngine, engine).updates(self.batches[start:end], self.losses[start:end])
        else:
            self.losses.copy_(engine.advance(1))
        self.done = end

    def wait(self) -> None:
        """Return when the device has computed the updates that are done."""
        self.losses[self.done - 1].tolist()

    def figures(self) -> list[float]:
        """The losses of a whole epoch combined by the config's reduction; for classes also the accuracy."""
        losses, *accuracies = zip(*self.losses.view(self.count, -1).tolist(), strict=True)
        shares = [size / self.rows for size in self.sizes]
        weights = [1.0] * self.count if self.reduction == "sum" else shares
        return [_dot(losses, weights), *(_dot(column, shares) for column in accuracies)]

    def state(self) -> dict[str, Tensor]:
        """What a training needs that is resumed within the epoch; nothing before the first update."""
        if not self.done:
            return {}
        validated = torch.tensor(self.validated, dtype=torch.float64)
        return {"epoch.losses": self.losses[: self.done]} | ({"epoch.validated": validated} if self.validated else {})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the state of an epoch with the same number. Raises StateError if it is another training's."""
        self.done = len(state["epoch.losses"]) if "epoch.losses" in state and state["epoch.losses"].dim() else 0
        if not 0 < self.done < self.count:
            raise StateError(f"is a state of another training: after {self.done} of {self.count} updates of an epoch")
        check_state(self.state(), state)
        self.losses[: self.done] = state["epoch.losses"].to(self.losses.device)
        self.validated = tuple(state["epoch.validated"].tolist()) if self.validated else ()


def updates_per_epoch(config: Config) -> int:
    """The number of updates in an epoch; 1 without batches."""
    return selection.batches(config.N, config.batch_size or config.N)


def epoch_order(seed: int, epoch: int, N: int) -> Tensor:
    """The order of the rows in an epoch, int64 (N,), drawn on the CPU: the same on every device and when resumed."""
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    return torch.randperm(N, generator=torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1))


@lru_cache(maxsize=1)  # the same for every epoch
def _sizes(N: int, count: int) -> list[int]:
    """The rows of each of so many updates, nearly equal."""
    return [(i + 1) * N // count - i * N // count for i in range(count)]


def _dot(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True))
