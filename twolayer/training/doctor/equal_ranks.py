"""`--ranks`: the same bits by every split on one rank and on several, and what an exchange between ranks costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from twolayer.engines import led
from twolayer.engines.factory import make_engine
from twolayer.engines.led import LedEngine
from twolayer.engines.parts import Group
from twolayer.hardware import threads as cpu_threads
from twolayer.training.doctor import answers, book
from twolayer.training.doctor.finding import Finding
from twolayer.training.together import announce, prepare_alike

if TYPE_CHECKING:
    from twolayer.hardware.distributed import Ranks

ITERATIONS = 50
PARTS = 12
SPLITS: dict[str, dict[str, Any]] = {
    "units (primal)": {"split": "units", "form": "primal"},
    "units (dual)": {"split": "units", "form": "dual"},
    "rows": {"split": "rows", "form": "primal"},
    "inputs": {"split": "inputs", "form": "dual"},
}
# An exchange of one number costs what each message costs; what more numbers take on top, what their bytes cost.
EXCHANGES = 100
MANY, MANY_TIMES = 2**18, 20


def equal_ranks(device: str, meet: Callable[[], Ranks]) -> Iterator[Finding]:
    """For every split: each rank alone, and the first 2, 3, ... together; then the cost. Raises TwolayerError."""
    ranks = meet()
    parts = max(PARTS, ranks.size)
    configs = [book.book(device=device, engine="fused", parts=parts, **split) for split in SPLITS.values()]
    for number, (name, config) in enumerate(zip(SPLITS, announce(configs, ranks), strict=True)):
        config, data, model = prepare_alike(config, None, ranks, number)

        def make(group: Group) -> Any:
            return make_engine(model, data, config, group)  # noqa: B023 used before the next

        with cpu_threads.set_up(config):
            own, *others = led.trained_alone(make, ITERATIONS, ranks)
            losses = own[:ITERATIONS].tolist()
            yield replace(answers.compare_losses(name, losses, book.published_losses()[:ITERATIONS]), section="ranks")
            for rank, other in enumerate(others, 1):
                yield same(f"rank {rank} alone", name, own, other)
            for size in range(2, ranks.size + 1):
                with led.led_by_first(make, size, ranks) as engine:
                    together = led.trained(engine, ITERATIONS)
                    is_last = size == ranks.size and number == len(SPLITS) - 1
                    cost = costs(engine) if is_last and isinstance(engine, LedEngine) else []
                yield same(f"{size} ranks", name, own, together)
        led.end(ranks)
    yield from cost


def costs(engine: LedEngine) -> list[Finding]:
    """What an exchange costs in which each rank gives numbers to all."""
    size = engine.group.size
    latency = engine.exchange_seconds(EXCHANGES, 1)
    seconds = engine.exchange_seconds(MANY_TIMES, MANY) - latency
    received = 4 * MANY * (size - 1)
    of = f"{size} ranks"
    found = [Finding("ranks", "exchange of a number", "fact", got=1e6 * latency, unit="µs", note=of)]
    if seconds > 0:
        found.append(Finding("ranks", "exchange", "fact", got=received / seconds / 1e9, unit="GB/s", note=of))
    return found


def same(name: str, split: str, one: Tensor, other: Tensor) -> Finding:
    """Whether two trainings have the same bits: in every loss, and in the state after the last."""
    unequal = torch.nonzero(one != other)
    if not len(unequal):
        return Finding("ranks", name, "right", split)
    at = int(unequal[0, 0])
    note = "not the same bits" if at < ITERATIONS else "a weight has other bits"
    return Finding("ranks", name, "wrong", split, min(at + 1, ITERATIONS), float(one[at]), float(other[at]), note=note)
