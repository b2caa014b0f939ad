"""An engine of several processes: the first leads, and the others do what it tells them.

All that a clock, a signal or a loss decides is decided by the one that leads. It tells the others in a few numbers,
once for each call of its engine: a block of iterations, some updates, another learning rate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import cast

import torch
from torch import Tensor, nn

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.base import Data, Engine, RowEngine, check_state
from twolayer.engines.by_inputs import InputsEngine
from twolayer.engines.by_rows import RowsEngine
from twolayer.engines.by_units import UnitsEngine
from twolayer.engines.factory import make_engine
from twolayer.engines.losses import Objective
from twolayer.engines.parts import ALONE, Group

Parted = UnitsEngine | RowsEngine | InputsEngine
Sharing = RowsEngine | InputsEngine  # what computes where each process has its own share of the data

MEASURED_SECONDS = 0.02  # at least so long an iteration's computation is measured


class _Call(IntEnum):
    """What the others are to do, with up to two numbers: these are broadcast, as float64."""

    MAKE, ADVANCE, UPDATES, SET_LR, STATE, LOAD_STATE, SYNC, SCORE, EXCHANGE, END = range(10)


class LedEngine:
    """The leader's engine: what it does, the others do as well, where they have a part in it.

    In parts of the rows all have all weights: the state, the weights and the validation are then the leader's alone.
    An update cannot be abandoned, since the others would go on with it: `check` is never called.
    """

    check: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, make: Callable[[], Engine], group: Group) -> None:
        self.group, self.is_over = group, False
        self._tell(_Call.MAKE)
        self.own = cast(Parted, make())
        self.is_shared = not isinstance(self.own, RowsEngine)

    def _tell(self, call: _Call, *numbers: float) -> None:
        _broadcast([call, *numbers, *[0] * (2 - len(numbers))], self.group)

    def advance(self, iterations: int) -> Tensor:
        """Do n iterations; the loss before each update, shape (iterations,) or (iterations, 2)."""
        self._tell(_Call.ADVANCE, iterations)
        return self.own.advance(iterations)

    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these indices (int64); their loss before it, shape (), in `out` if given."""
        out = self.own.y.new_empty(self.own.objective.shape) if out is None else out
        self.updates([rows], out[None])
        return out

    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """An `update` for each batch; writes their losses into `out`, (len(batches),) or (len(batches), 2)."""
        sizes = torch.tensor([len(rows) for rows in batches])
        self._tell(_Call.UPDATES, len(batches), int(sizes.sum()))
        self.group.broadcast(sizes, 0)
        self.group.broadcast(torch.cat(list(batches)), 0)
        cast(RowEngine, self.own).updates(batches, out)

    def evaluate(self, data: Data) -> Tensor:
        """The loss of the current weights on these data, shape (), or (2,) with the accuracy."""
        return cast(RowEngine, self.own).evaluate(data)

    def set_lr(self, lr: float) -> None:
        """Use another learning rate from the next iteration on."""
        self._tell(_Call.SET_LR, lr)
        self.own.set_lr(lr)

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs to be the same bit for bit, by name."""
        if self.is_shared:
            self._tell(_Call.STATE)
        return self.own.state()

    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state saved after `done` iterations. StateError if its names, shapes or dtypes differ."""
        check_state(described := self.own.described(), state)
        self._tell(_Call.LOAD_STATE, done)
        _exchange_state({name: state[name].to(self.own.x.device).contiguous() for name in described}, self.group)
        self.own.load_state(state, done)

    def sync(self) -> None:
        """Write the weights into the model's parameters."""
        if self.is_shared:
            self._tell(_Call.SYNC)
        self.own.sync()

    def final_score(self) -> Tensor:
        """The loss of the weights that are kept, on the rows or inputs that all have; see `selection.shares_data`."""
        self._tell(_Call.SCORE)
        return cast(Sharing, self.own).final_score()

    def exchange_seconds(self, count: int = 20) -> float:
        """How long the exchanges of an iteration take: the median of some that mean nothing."""
        self._tell(_Call.EXCHANGE, count)
        return _exchange(self.own, count)

    def end(self) -> None:
        """Tell the others that there is nothing left to do."""
        if not self.is_over:
            self.is_over = True
            self._tell(_Call.END)


def led(make: Callable[[], Engine], group: Group) -> Engine:
    """The engine that `make` makes; in a group of several processes led by this one."""
    return make() if group.size == 1 else LedEngine(make, group)


def follow(make: Callable[[], Engine], group: Group, between: Callable[[], None]) -> None:
    """Make engines and do what the leader tells; `between` is called after each. Returns when it tells the end."""
    engine: Parted | None = None
    while True:
        number, *numbers = _broadcast([0, 0, 0], group)
        call = _Call(int(number))
        if call == _Call.END:
            return
        if call == _Call.MAKE:
            engine = cast(Parted, make())
        elif engine is not None:
            _do(call, numbers, engine, group)
        between()


def _do(call: _Call, numbers: Sequence[float], engine: Parted, group: Group) -> None:
    if call == _Call.ADVANCE:
        engine.advance(int(numbers[0]))
    elif call == _Call.UPDATES:
        count, total = map(int, numbers)
        sizes, rows = torch.empty(count, dtype=torch.int64), torch.empty(total, dtype=torch.int64)
        group.broadcast(sizes, 0)
        group.broadcast(rows := rows.to(engine.x.device), 0)
        scores = engine.y.new_empty(count, *engine.objective.shape)
        cast(RowEngine, engine).updates(torch.split(rows, sizes.tolist()), scores)
    elif call == _Call.SET_LR:
        engine.set_lr(numbers[0])
    elif call == _Call.STATE:
        engine.state()
    elif call == _Call.LOAD_STATE:
        device = engine.x.device  # in rows, as the leader sends it, however the engine keeps it
        like = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            for name, tensor in engine.described().items()
        }
        engine.load_state(_exchange_state(like, group), int(numbers[0]))
    elif call == _Call.SYNC:
        engine.sync()
    elif call == _Call.SCORE:
        cast(Sharing, engine).final_score()
    elif call == _Call.EXCHANGE:
        _exchange(engine, int(numbers[0]))


def _exchange(engine: Parted, count: int) -> float:
    seconds = [0.0]
    if (add_up := engine.exchanged()) is not None:
        for _ in range(count):
            start = time.perf_counter()
            add_up.exchange()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def compute_seconds(model: nn.Sequential, data: Data, config: Config, group: Group = ALONE) -> float:
    """How long an update takes to compute, on a model that is changed; of a batch if the config has batches.

    In a group of several processes it is this one's share, by an engine that hears from nobody: its numbers are wrong.
    """
    config = config.model_copy(update={"lr": 1e-12})
    engine = make_engine(model, data, config, _Silent(group) if group.size > 1 else group)
    rows = torch.arange(config.batch_size or 0, device=data.x.device)

    def seconds(count: int) -> float:
        start = time.perf_counter()
        if selection.is_batched(config):
            scores = data.x.new_empty(count, *Objective.of(config).shape)
            cast(RowEngine, engine).updates([rows] * count, scores)
            scores.tolist()
        else:
            engine.advance(count).tolist()
        return time.perf_counter() - start

    count, taken = 1, seconds(1)
    while taken < MEASURED_SECONDS and count < 1000:
        count *= 2
        taken = seconds(count)
    return taken / count


class _Silent:
    """A place in a group from which nothing is sent, and where nothing comes."""

    def __init__(self, group: Group) -> None:
        self.rank, self.size = group.rank, group.size

    def gather(self, own: Tensor, all_: Sequence[Tensor]) -> None:
        pass

    def broadcast(self, tensor: Tensor, source: int) -> None:
        pass

    def give(self, tensor: Tensor, source: int) -> None:
        pass


def _broadcast(numbers: Sequence[float], group: Group) -> list[float]:
    tensor = torch.tensor(numbers, dtype=torch.float64)
    group.broadcast(tensor, 0)
    found: list[float] = tensor.tolist()
    return found


def _exchange_state(state: dict[str, Tensor], group: Group) -> dict[str, Tensor]:
    for name in sorted(state):
        group.broadcast(state[name], 0)
    return state
