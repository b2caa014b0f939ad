"""An engine of several processes: the first leads, and the others do what it tells them.

All that a clock, a signal or a loss decides is decided by the one that leads. It tells the others in a few numbers,
once for each call of its engine: a block of iterations, some updates, another learning rate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Protocol, cast

import torch
from torch import Tensor

from twolayer.engines.base import Data, Engine, RowEngine, check_state
from twolayer.engines.by_inputs import InputsEngine
from twolayer.engines.by_units import UnitsEngine
from twolayer.engines.losses import Objective
from twolayer.engines.parts import ALONE, Group, Sum

Make = Callable[[Group], Engine]


class Parted(Engine, Protocol):
    """An engine of what is computed in parts."""

    x: Tensor
    y: Tensor
    objective: Objective

    def described(self) -> dict[str, Tensor]:
        """Tensors of the shapes and dtypes of a state."""

    def exchanged(self) -> Sum | None:
        """The sum that an update on all rows exchanges."""


class Sharing(Parted, Protocol):
    """What computes where each process may have its own share of the data."""

    def final_score(self) -> Tensor:
        """The loss of the weights that are kept, those of the first process, on all rows: shape () or (2,)."""


class _Call(IntEnum):
    """What the others are to do, with up to two numbers: these are broadcast, as float64."""

    MAKE, ADVANCE, UPDATES, SET_LR, STATE, LOAD_STATE, SYNC, SCORE, EXCHANGE, ALONE, FIRST, END = range(12)


class LedEngine:
    """The leader's engine: what it does, the others do as well, where they have a part in it.

    In parts of the rows all have all weights: the state, the weights and the validation are then the leader's alone.
    An update cannot be abandoned, since the others would go on with it: `check` is never called.
    """

    check: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, make: Make, group: Group) -> None:
        self.group, self.is_over = group, False
        _tell(group, _Call.MAKE)
        self.own = cast(Parted, make(group))
        self.is_shared = isinstance(self.own, (UnitsEngine, InputsEngine))

    def advance(self, iterations: int) -> Tensor:
        """Do n iterations; the loss before each update, shape (iterations,) or (iterations, 2)."""
        _tell(self.group, _Call.ADVANCE, iterations)
        return self.own.advance(iterations)

    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these indices (int64); their loss before it, shape (), in `out` if given."""
        out = self.own.y.new_empty(self.own.objective.shape) if out is None else out
        self.updates([rows], out[None])
        return out

    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """An `update` for each batch; writes their losses into `out`, (len(batches),) or (len(batches), 2)."""
        sizes = torch.tensor([len(rows) for rows in batches])
        _tell(self.group, _Call.UPDATES, len(batches), int(sizes.sum()))
        self.group.broadcast(sizes, 0)
        self.group.broadcast(torch.cat(list(batches)), 0)
        cast(RowEngine, self.own).updates(batches, out)

    def evaluate(self, data: Data) -> Tensor:
        """The loss of the current weights on these data, shape (), or (2,) with the accuracy."""
        return cast(RowEngine, self.own).evaluate(data)

    def set_lr(self, lr: float) -> None:
        """Use another learning rate from the next iteration on."""
        _tell(self.group, _Call.SET_LR, lr)
        self.own.set_lr(lr)

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs to be the same bit for bit, by name."""
        if self.is_shared:
            _tell(self.group, _Call.STATE)
        return self.own.state()

    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state saved after `done` iterations. StateError if its names, shapes or dtypes differ."""
        check_state(described := self.own.described(), state)
        _tell(self.group, _Call.LOAD_STATE, done)
        _exchange_state({name: state[name].to(self.own.x.device).contiguous() for name in described}, self.group)
        self.own.load_state(state, done)

    def sync(self) -> None:
        """Write the weights into the model's parameters."""
        if self.is_shared:
            _tell(self.group, _Call.SYNC)
        self.own.sync()

    def final_score(self) -> Tensor:
        """The loss of the weights that are kept, on the rows or inputs that all have; see `selection.shares_data`."""
        _tell(self.group, _Call.SCORE)
        return cast(Sharing, self.own).final_score()

    def exchange_seconds(self, count: int = 20, numbers: int = 0) -> float:
        """How long the exchange of an iteration takes, or of `numbers` numbers: the median of `count` exchanges."""
        _tell(self.group, _Call.EXCHANGE, count, numbers)
        return _exchange(self.own, count, numbers, self.group)

    def end(self) -> None:
        """Tell the others that there is nothing left to do."""
        if not self.is_over:
            self.is_over = True
            end(self.group)


def led(make: Make, group: Group) -> Engine:
    """The engine that `make` makes; in a group of several processes led by this one."""
    return make(group) if group.size == 1 else LedEngine(make, group)


@contextmanager
def led_by_first(make: Make, size: int, group: Group) -> Iterator[Engine]:
    """A context with an engine led in the first `size` processes of the group; the rest wait for its end."""
    if size == 1:
        yield make(ALONE)
        return
    _tell(group, _Call.FIRST, size)
    engine = LedEngine(make, group.first(size))
    yield engine
    engine.end()


def trained_alone(make: Make, iterations: int, group: Group) -> list[Tensor]:
    """The `trained` of each process, by rank, that has trained alone."""
    _tell(group, _Call.ALONE, iterations)
    return _alone(make, iterations, group)


def trained(engine: Engine, iterations: int) -> Tensor:
    """The losses of the next `iterations` and the state after them, as one vector."""
    losses, state = engine.advance(iterations), engine.state()
    return torch.cat([losses.flatten(), *(state[name].flatten() for name in sorted(state))])


def end(group: Group) -> None:
    """Tell the others of a group that there is nothing left to do."""
    if group.size > 1:
        _tell(group, _Call.END)


def follow(make: Make, group: Group, between: Callable[[], None]) -> None:
    """Make engines and do what the leader tells; `between` is called after each. Returns when it tells the end."""
    engine: Parted | None = None
    while True:
        number, *numbers = _broadcast([0, 0, 0], group)
        call = _Call(int(number))
        if call == _Call.END:
            return
        if call == _Call.MAKE:
            engine = cast(Parted, make(group))
        elif call == _Call.ALONE:
            _alone(make, int(numbers[0]), group)
        elif call == _Call.FIRST:
            some = group.first(int(numbers[0]))
            if group.rank < some.size:
                follow(make, some, between)
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
        shapes = engine.described().items()  # whose own tensors need not be contiguous, as what is received
        like = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device=engine.x.device) for name, tensor in shapes}
        engine.load_state(_exchange_state(like, group), int(numbers[0]))
    elif call == _Call.SYNC:
        engine.sync()
    elif call == _Call.SCORE:
        cast(Sharing, engine).final_score()
    elif call == _Call.EXCHANGE:
        _exchange(engine, int(numbers[0]), int(numbers[1]), group)


def _exchange(engine: Parted, count: int, numbers: int, group: Group) -> float:
    add_up = None if numbers else engine.exchanged()
    own = engine.x.new_zeros(numbers)
    all_ = [torch.empty_like(own) for _ in range(group.size)]
    seconds = []
    for _ in range(count if numbers or add_up is not None else 0):
        start = time.perf_counter()
        if add_up is not None:
            add_up.exchange()
        else:
            group.gather(own, all_)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) if seconds else 0.0


def _alone(make: Make, iterations: int, group: Group) -> list[Tensor]:
    own = trained(make(ALONE), iterations)
    all_ = [torch.empty_like(own) for _ in range(group.size)]
    group.gather(own, all_)
    return all_


def _tell(group: Group, call: _Call, *numbers: float) -> None:
    _broadcast([call, *numbers, *[0] * (2 - len(numbers))], group)


def _broadcast(numbers: Sequence[float], group: Group) -> list[float]:
    tensor = torch.tensor(numbers, dtype=torch.float64)
    group.broadcast(tensor, 0)
    found: list[float] = tensor.tolist()
    return found


def _exchange_state(state: dict[str, Tensor], group: Group) -> dict[str, Tensor]:
    for name in sorted(state):
        group.broadcast(state[name], 0)
    return state
