"""Times updates on one rank, on several, and by one process without parts; checks that ranks compute the same bits."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from twolayer.config.schema import Config
from twolayer.engines import led
from twolayer.engines.base import Engine
from twolayer.engines.factory import make_engine
from twolayer.engines.parts import Group
from twolayer.errors import DivergedError
from twolayer.hardware import device, memory
from twolayer.hardware import threads as cpu_threads
from twolayer.training import benchmark
from twolayer.training.benchmark import clock
from twolayer.training.learning_rate import suggested
from twolayer.training.pace import one_process, updates
from twolayer.training.together import prepare_together

if TYPE_CHECKING:
    from twolayer.hardware.distributed import Ranks
    from twolayer.tables.dataset import Table


@dataclass
class Measured:
    """The seconds of an update on these ranks, and those in which they exchange numbers: one of each per round."""

    config: Config
    ranks: int
    iterations: int = 1  # per round
    seconds: list[float] = field(default_factory=list)
    exchanging: list[float] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)  # the first ones

    @property
    def median(self) -> float:
        """The seconds of an update in the median round."""
        return statistics.median(self.seconds)


class Scaling:
    """Updates of a config in parts on each of these numbers of ranks; `alone` is one process without parts.

    `alone` is None where that does not fit into memory. The other processes are `ranks`, met, as many as the largest of
    `sizes`, which has 1. Raises what `prepare_together` raises.
    """

    def __init__(self, config: Config, table: Table | None, ranks: Ranks | None, sizes: Sequence[int]) -> None:
        self.config, self.data, self.model, self.group = prepare_together(config, table, ranks, shared=False)
        self.device, self.cores = self.config.device, cpu_threads.cores()
        self.is_auto = self.config.lr == "auto"
        self.lr = suggested(self.model, self.data, self.config) if self.config.lr == "auto" else self.config.lr
        self.config = self.config.model_copy(update={"lr": self.lr})
        self.one = one_process(self.config)
        free = device.free_memory(self.device)
        fits = free is None or memory.beside_data(self.one) <= 0.9 * free
        self.alone = Measured(self.one, 1) if fits else None
        self.ranks = [Measured(self.config, size) for size in sizes]

    def rounds(self, count: int) -> Iterator[int]:
        """Measure all `count` times, in turn; yields the number of each round after it.

        Raises DivergedError if one of the first losses is not finite.
        """
        all_ = [*self.ranks, *([self.alone] if self.alone is not None else [])]
        for one in all_:
            self._find_pace(one)
        for number in range(1, count + 1):
            for one in all_:
                seconds, exchanging = self._run(one)
                one.seconds.append(seconds)
                one.exchanging.append(exchanging)
            yield number

    def end(self) -> None:
        """Let the other processes go."""
        led.end(self.group)

    def _find_pace(self, one: Measured) -> None:
        """Choose the updates per round, which is also a warm-up; checks the losses."""
        while (wanted := math.ceil(benchmark.ROUND_SECONDS / self._run(one)[0])) > one.iterations:
            one.iterations = min(wanted, 10 * one.iterations)
        one.iterations = max(3, one.iterations)
        for losses in one.losses:
            if bad := next((t for t, loss in enumerate(losses, 1) if not math.isfinite(loss)), 0):
                raise DivergedError(bad, losses[bad - 1], self.lr)

    def _run(self, one: Measured) -> tuple[float, float]:
        """A round, from the initial weights: the seconds of an update, and those of its exchanges."""
        with cpu_threads.set_up(one.config), self._engine(one) as (engine, watch):
            if self.is_auto:  # the others do not know it
                engine.set_lr(self.lr)
            losses = _losses(updates(engine, self.data, one.config, 1))
            start, before = clock(self.device), watch.seconds
            rest = updates(engine, self.data, one.config, one.iterations)
            seconds = clock(self.device) - start
            exchanging = watch.seconds - before
            losses += _losses(rest)
        one.losses.append(losses[: benchmark.COMPARED])
        return seconds / one.iterations, exchanging / one.iterations

    @contextmanager
    def _engine(self, one: Measured) -> Iterator[tuple[Engine, _Watch]]:
        model, watch = copy.deepcopy(self.model), _Watch(self.group, self.device)
        if one is self.alone:
            yield make_engine(model, self.data, one.config), watch
            return
        with led.led_by_first(
            lambda group: make_engine(model, self.data, one.config, group), one.ranks, watch
        ) as engine:
            yield engine, watch.some or watch

    def has_same_bits(self, one: Measured) -> bool:
        """Whether all losses on these ranks are those on one rank, bit for bit."""
        first = max(self.ranks[0].losses, key=len)
        return all(losses[: len(first)] == first[: len(losses)] for losses in one.losses)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The results, those of one process without parts last; times in microseconds."""
        base = self.ranks[0].median
        for one in [*self.ranks, *([self.alone] if self.alone is not None else [])]:
            has_parts, config = one is not self.alone, one.config
            yield {
                "ranks": one.ranks,
                "parts": config.parts if has_parts else None,
                "split": config.split if has_parts else None,
                "engine": config.engine,
                "form": config.form if config.engine == "fused" else "",
                "threads": config.threads,
                "min_us": 1e6 * min(one.seconds),
                "median_us": 1e6 * one.median,
                "max_us": 1e6 * max(one.seconds),
                "exchanging_us": 1e6 * statistics.median(one.exchanging),
                "speed_up": base / one.median,
                "efficiency": base / one.median / one.ranks if has_parts else None,
                "same_bits": self.has_same_bits(one) if has_parts else None,
            }


class _Watch:
    """A group that counts the seconds of its exchanges, and what it waits for the others in them."""

    def __init__(self, group: Group, device: str) -> None:
        self.group, self.rank, self.size, self.device = group, group.rank, group.size, device
        self.seconds = 0.0
        self.some: _Watch | None = None  # that of the first processes

    def gather(self, own: Tensor, all_: Sequence[Tensor]) -> None:
        start = clock(self.device)
        self.group.gather(own, all_)
        self.seconds += clock(self.device) - start

    def broadcast(self, tensor: Tensor, source: int) -> None:
        start = clock(self.device)
        self.group.broadcast(tensor, source)
        self.seconds += clock(self.device) - start

    def give(self, tensor: Tensor, source: int) -> None:
        start = clock(self.device)
        self.group.give(tensor, source)
        self.seconds += clock(self.device) - start

    def first(self, size: int) -> _Watch:
        self.some = _Watch(self.group.first(size), self.device)
        return self.some


def _losses(scores: Tensor) -> list[float]:
    losses: list[float] = (scores if scores.dim() == 1 else scores[:, 0]).tolist()
    return losses
