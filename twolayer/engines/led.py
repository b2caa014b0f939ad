"""An engine of several processes: the first leads, and the others do what it tells them.

All that a clock, a signal or a loss decides is decided by the one that leads. It tells the others in a few numbers,
once for each call of its engine: a block of iterations, some updates, another learning rate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from torch import Tensor

from twolayer.engines.base import Data, Engine, RowEngine, check_state
from twolayer.engines.calls import Call, exchange_state, heard, heard_bytes, is_true_in_all, tell, tell_bytes
from twolayer.engines.losses import Objective
from twolayer.engines.parts import ALONE, Group, Sum
from twolayer.engines.state_in_parts import SHA256, PartFolder, SavedParts, StateInParts
from twolayer.errors import StateError

Make = Callable[[Group], Engine]
Open = Callable[[str], PartFolder | None]


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


class LedEngine:
    """The leader's engine: what it does, the others do as well, where they have a part in it.

    In parts of the rows all have all weights: the state, the weights and the validation are then the leader's alone.
    An update cannot be abandoned, since the others would go on with it: `check` is never called.
    """

    check: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, make: Make, group: Group) -> None:
        self.group, self.is_over = group, False
        tell(group, Call.MAKE)
        self.own = cast(Parted, make(group))
        self.is_shared = isinstance(self.own, StateInParts)
        self.opened: tuple[PartFolder, bool] | None = None  # a folder of parts, and whether all processes have it

    def advance(self, iterations: int) -> Tensor:
        """Do n iterations; the loss before each update, shape (iterations,) or (iterations, 2)."""
        tell(self.group, Call.ADVANCE, iterations)
        return self.own.advance(iterations)

    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these indices (int64); their loss before it, shape (), in `out` if given."""
        out = self.own.y.new_empty(self.own.objective.shape) if out is None else out
        self.updates([rows], out[None])
        return out

    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """An `update` for each batch; writes their losses into `out`, (len(batches),) or (len(batches), 2)."""
        sizes = torch.tensor([len(rows) for rows in batches])
        tell(self.group, Call.UPDATES, len(batches), int(sizes.sum()))
        self.group.broadcast(sizes, 0)
        self.group.broadcast(torch.cat(list(batches)), 0)
        cast(RowEngine, self.own).updates(batches, out)

    def evaluate(self, data: Data) -> Tensor:
        """The loss of the current weights on these data, shape (), or (2,) with the accuracy."""
        return cast(RowEngine, self.own).evaluate(data)

    def set_lr(self, lr: float) -> None:
        """Use another learning rate from the next iteration on."""
        tell(self.group, Call.SET_LR, lr)
        self.own.set_lr(lr)

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs to be the same bit for bit, by name."""
        if self.is_shared:
            tell(self.group, Call.STATE)
        return self.own.state()

    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state saved after `done` iterations. StateError if its names, shapes or dtypes differ."""
        check_state(described := self.own.described(), state)
        tell(self.group, Call.LOAD_STATE, done)
        exchange_state({name: state[name].to(self.own.x.device).contiguous() for name in described}, self.group)
        self.own.load_state(state, done)

    def write_parts(self, folder: PartFolder, done: int) -> list[bytes]:
        """Write each part of the state as a file; the SHA-256 of all of them. See `StateInParts`."""
        by_all = self._open(folder)
        tell(self.group, Call.WRITE_PARTS, done)
        return cast(StateInParts, self.own).write_parts(folder, done, by_all=by_all)

    def read_parts(self, saved: SavedParts, common: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state that was saved in parts after `done` iterations. StateError if it is another's."""
        own = cast(StateInParts, self.own)
        own.check_parts(saved, common)
        by_all = self._open(saved.folder)
        tell(self.group, Call.READ_PARTS, done, len(saved.sums))
        tell_bytes(b"".join(saved.sums), self.group)
        exchange_state({name: common[name].to(self.own.x.device).contiguous() for name in own.common()}, self.group)
        own.read_parts(saved.folder, saved.sums, common, done, by_all=by_all)

    def _open(self, folder: PartFolder) -> bool:
        """Let the others open a folder of parts; whether all have it."""
        if self.opened is None or self.opened[0] != folder:
            with folder.announced() as text:
                tell(self.group, Call.OPEN, len(text.encode()))
                tell_bytes(text.encode(), self.group)
                self.opened = folder, is_true_in_all(True, self.group)
        return self.opened[1]

    def sync(self) -> None:
        """Write the weights into the model's parameters."""
        if self.is_shared:
            tell(self.group, Call.SYNC)
        self.own.sync()

    def final_score(self) -> Tensor:
        """The loss of the weights that are kept, on the rows or inputs that all have; see `selection.shares_data`."""
        tell(self.group, Call.SCORE)
        return cast(Sharing, self.own).final_score()

    def exchange_seconds(self, count: int = 20, numbers: int = 0) -> float:
        """How long the exchange of an iteration takes, or of `numbers` numbers: the median of `count` exchanges."""
        tell(self.group, Call.EXCHANGE, count, numbers)
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
    tell(group, Call.FIRST, size)
    engine = LedEngine(make, group.first(size))
    yield engine
    engine.end()


def trained_alone(make: Make, iterations: int, group: Group) -> list[Tensor]:
    """The `trained` of each process, by rank, that has trained alone."""
    tell(group, Call.ALONE, iterations)
    return _alone(make, iterations, group)


def trained(engine: Engine, iterations: int) -> Tensor:
    """The losses of the next `iterations` and the state after them, as one vector."""
    losses, state = engine.advance(iterations), engine.state()
    return torch.cat([losses.flatten(), *(state[name].flatten() for name in sorted(state))])


def end(group: Group) -> None:
    """Tell the others of a group that there is nothing left to do."""
    if group.size > 1:
        tell(group, Call.END)


def described(engine: Engine) -> dict[str, Tensor]:
    """Tensors of the shapes and dtypes of an engine's state."""
    own = _own(engine)
    return own.described() if isinstance(own, StateInParts) else own.state()


def write_parts(engine: Engine, folder: PartFolder, done: int) -> tuple[dict[str, Tensor], list[bytes]]:
    """The state of an engine; where it has parts of units or inputs, these are written, each with its SHA-256."""
    own = _own(engine)
    if not isinstance(own, StateInParts):
        return engine.state(), []
    if isinstance(engine, LedEngine):
        return own.common(), engine.write_parts(folder, done)
    return own.common(), own.write_parts(folder, done, by_all=True)


def load_state(engine: Engine, state: Mapping[str, Tensor], done: int, saved: SavedParts | None) -> None:
    """Continue from a saved state; `saved` has its parts, if it is in parts. StateError if it is another training's."""
    own = _own(engine)
    if saved is None:
        engine.load_state(state, done)
    elif not isinstance(own, StateInParts):
        raise StateError("is a state of another training: it is in parts of units or inputs")
    elif isinstance(engine, LedEngine):
        engine.read_parts(saved, state, done)
    else:
        own.check_parts(saved, state)
        own.read_parts(saved.folder, saved.sums, state, done, by_all=True)


def _own(engine: Engine) -> Engine:
    return engine.own if isinstance(engine, LedEngine) else engine


def follow(make: Make, group: Group, between: Callable[[], None], open_: Open = lambda text: None) -> None:
    """Make engines and do what the leader tells; `between` is called after each. Returns when it tells the end.

    `open_` opens the folder of parts that the leader tells of; None where this process cannot write there.
    """
    engine: Parted | None = None
    folder: PartFolder | None = None  # if all have it
    while True:
        call, numbers = heard(group)
        if call == Call.END:
            return
        if call == Call.MAKE:
            engine = cast(Parted, make(group))
        elif call == Call.ALONE:
            _alone(make, int(numbers[0]), group)
        elif call == Call.FIRST:
            some = group.first(int(numbers[0]))
            if group.rank < some.size:
                follow(make, some, between)
        elif call == Call.OPEN:
            found = open_(heard_bytes(int(numbers[0]), group).decode())
            folder = found if is_true_in_all(found is not None, group) else None
        elif call == Call.WRITE_PARTS:
            cast(StateInParts, engine).write_parts(folder, int(numbers[0]), by_all=folder is not None)
        elif call == Call.READ_PARTS:
            _read_parts(cast(StateInParts, engine), folder, int(numbers[0]), int(numbers[1]), group)
        elif engine is not None:
            _do(call, numbers, engine, group)
        between()


def _read_parts(engine: StateInParts, folder: PartFolder | None, done: int, count: int, group: Group) -> None:
    data = heard_bytes(SHA256 * count, group)
    sums = [data[start : start + SHA256] for start in range(0, len(data), SHA256)]
    common = exchange_state(_empty(engine.common(), engine.x.device), group)
    engine.read_parts(folder, sums, common, done, by_all=folder is not None)


def _do(call: Call, numbers: Sequence[float], engine: Parted, group: Group) -> None:
    if call == Call.ADVANCE:
        engine.advance(int(numbers[0]))
    elif call == Call.UPDATES:
        count, total = map(int, numbers)
        sizes, rows = torch.empty(count, dtype=torch.int64), torch.empty(total, dtype=torch.int64)
        group.broadcast(sizes, 0)
        group.broadcast(rows := rows.to(engine.x.device), 0)
        scores = engine.y.new_empty(count, *engine.objective.shape)
        cast(RowEngine, engine).updates(torch.split(rows, sizes.tolist()), scores)
    elif call == Call.SET_LR:
        engine.set_lr(numbers[0])
    elif call == Call.STATE:
        engine.state()
    elif call == Call.LOAD_STATE:
        engine.load_state(exchange_state(_empty(engine.described(), engine.x.device), group), int(numbers[0]))
    elif call == Call.SYNC:
        engine.sync()
    elif call == Call.SCORE:
        cast(Sharing, engine).final_score()
    elif call == Call.EXCHANGE:
        _exchange(engine, int(numbers[0]), int(numbers[1]), group)


def _empty(like: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Tensors of the same shapes; those need not be contiguous, as what is received."""
    return {name: torch.empty(tensor.shape, dtype=tensor.dtype, device=device) for name, tensor in like.items()}


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
