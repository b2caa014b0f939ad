"""How long an update takes by ranks, and by one process: measured before a training, which does not change by it."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.base import Data, Engine, RowEngine
from twolayer.engines.factory import make_engine
from twolayer.engines.led import LedEngine
from twolayer.engines.losses import Objective
from twolayer.engines.parts import Alone, Group
from twolayer.hardware import device, memory, threads
from twolayer.training.loop import Fit
from twolayer.training.setup import build_model, resolve_auto

MEASURED_SECONDS = 0.02  # at least so long an update's computation is measured


@dataclass(frozen=True)
class Pace:
    """The seconds of an update: that a rank computes, that ranks exchange numbers, and of one process without parts.

    None where there is too little memory for the further engine that is timed.
    """

    computes: float | None
    exchanges: float
    alone: float | None
    one: Config  # of that process


def pace(fit: Fit) -> Pace | None:
    """How long an update takes; None in a training of one process. What computes is a copy."""
    engine, config = fit.engine, fit.config
    if not isinstance(engine, LedEngine):
        return None
    one = one_process(config)
    with threads.set_up(config):
        exchanges = engine.exchange_seconds()
    computes = _seconds(fit.model, fit.data, config, engine.group)
    return Pace(computes, exchanges, _alone(fit, one), one)


def one_process(config: Config) -> Config:
    """The config as one process would train it: without parts, by the engine that `auto` takes then."""
    undivided = {"parts": None, "split": "auto", "engine": "auto", "form": "auto", "threads": "auto"}
    return resolve_auto(config.model_copy(update=undivided))


def updates(engine: Engine, data: Data, config: Config, count: int) -> Tensor:
    """The losses of `count` updates, as `advance` gives them: of the first batch again and again, or of all rows."""
    if not selection.is_batched(config):
        return engine.advance(count)
    rows = torch.arange(config.batch_size or 0, device=data.x.device)
    scores = data.x.new_empty(count, *Objective.of(config).shape)
    cast(RowEngine, engine).updates([rows] * count, scores)
    return scores


def _alone(fit: Fit, one: Config) -> float | None:
    """How long an update of one process takes; None if that does not fit.

    Where this one has a share of the data alone, it is timed on that, and the time grows with the operations.
    """
    if fit.data.share is None:
        return _seconds(fit.model, fit.data, one)
    x, y = fit.data.x, fit.data.y
    some = one.model_copy(update={"N": len(x), "D_in": x.shape[1]})
    seconds = _seconds(build_model(some), Data(x, y), some)
    return None if seconds is None else seconds * selection.operations(one) / selection.operations(some)


def _seconds(model: nn.Sequential, data: Data, config: Config, group: Group | None = None) -> float | None:
    """How long an update takes to compute, in a group this process's share of it; None if that does not fit."""
    free = device.free_memory(config.device)
    # The data are there. A tenth is left, as for a training.
    if free is not None and memory.beside_data(config, group.size if group is not None else 1) > 0.9 * free:
        return None
    with threads.set_up(config):
        return compute_seconds(copy.deepcopy(model), data, config, group)


def compute_seconds(model: nn.Sequential, data: Data, config: Config, group: Group | None = None) -> float:
    """How long an update takes to compute, on a model that is changed; of a batch if the config has batches.

    In a group it is this process's share, by an engine that hears from nobody: its numbers are wrong.
    """
    config = config.model_copy(update={"lr": 1e-12})
    if group is None:
        engine = make_engine(model, data, config)
    else:
        engine = make_engine(model, data, config, _Silent(group.rank, group.size))

    def seconds(count: int) -> float:
        start = time.perf_counter()
        updates(engine, data, config, count).tolist()
        return time.perf_counter() - start

    seconds(1)  # it is slower: its memory is new
    count, taken = 1, seconds(1)
    while taken < MEASURED_SECONDS and count < 1000:
        count *= 2
        taken = seconds(count)
    return taken / count


class _Silent(Alone):
    """A place in a group from which nothing is sent, and where nothing comes."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
