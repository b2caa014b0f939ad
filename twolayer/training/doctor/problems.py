"""The engines and forms that doctor tries on a device, on problems that are small enough for that."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.base import Data, Engine
from twolayer.engines.batched import BatchedEngine
from twolayer.engines.factory import make_engine
from twolayer.engines.fused import PlainEngine
from twolayer.engines.losses import Objective
from twolayer.hardware import threads as cpu_threads
from twolayer.training.setup import prepare

ALL_FORMS = (("autograd", "auto"), ("manual", "auto"), ("fused", "primal"), ("fused", "dual"), ("compiled", "auto"))

Make = Callable[[nn.Sequential, Data], Engine]


@dataclass(frozen=True)
class Problem:
    """A config with its data and initial model, all on the device."""

    config: Config
    data: Data
    model: nn.Sequential

    @classmethod
    def of(cls, config: Config) -> Problem:
        """The problem of a config. Raises DeviceError."""
        fixed = config.model_copy(
            update={"engine": "manual", "threads": 1 if config.threads == "auto" else config.threads}
        )
        return cls(*prepare(fixed))

    def engines(self) -> dict[str, Make]:
        """Every engine and form that this machine has for the device, by name."""
        return {name: make for name, make in _engines(self.config) if not why_left_out(name, self.config.device)}

    def copied(self) -> tuple[nn.Sequential, Data]:
        """A model and data of their own, at other addresses."""
        return copy.deepcopy(self.model), Data(self.data.x.clone(), self.data.y.clone())


def _engines(config: Config) -> Iterator[tuple[str, Make]]:
    for engine, form in ALL_FORMS:
        one = config.model_copy(update={"engine": engine, "form": form})
        yield one.engine_name, lambda model, data, one=one: make_engine(model, data, one)  # type: ignore[misc]
    objective, lr = Objective.of(config), float(config.lr)
    # What these choose for large x and for many rows, here at the same sizes as the others.
    yield "fused (large x)", lambda model, data: PlainEngine(model, data, objective, lr=lr)
    yield "fused (in parts)", lambda model, data: BatchedEngine(model, data, objective, lr=lr)
    yield "fused (batches)", lambda model, data: _Batches(model, data, objective, lr=lr)


class _Batches(BatchedEngine):
    """What the engine for tables does with small batches: all rows are one, in each iteration."""

    def advance(self, iterations: int) -> Tensor:
        """Do n iterations; the loss before each update."""
        losses = self.x.new_empty(iterations, *self.objective.shape)
        self.updates([torch.arange(len(self.x), device=self.x.device)] * iterations, losses)
        return losses


def names() -> list[str]:
    """The names of all engines and forms, also of those that this machine does not have."""
    return [name for name, _ in _engines(Config(N=1, D_in=1, H=1, D_out=1, lr=1, epochs=1))]


def why_left_out(name: str, device: str) -> str:
    """Why an engine is not tried on this device; empty if it is."""
    if name == "compiled" and device != "cpu":
        return "is for the CPU"
    if name == "compiled" and not selection.numba_works():
        return "needs numba: pip install 'twolayer[fast]'"
    return "not available on MPS" if device == "mps" and name.startswith("fused") else ""


@dataclass(frozen=True)
class Trace:
    """The losses before each update, and the parameters after the last one, on the CPU."""

    losses: Tensor
    parameters: list[Tensor]


def trace(make: Make, problem: Problem, cuts: Sequence[int], *, resumed: bool = False, threads: int = 1) -> Trace:
    """Train in blocks of `cuts` iterations; `resumed`: each in an engine of its own, from the state of the last."""
    model, data = problem.copied()
    losses, done = [], 0
    with cpu_threads.set_up(problem.config.model_copy(update={"threads": threads})):
        engine = make(model, data)
        for count in cuts:
            if resumed and done:
                state = {name: tensor.clone() for name, tensor in engine.state().items()}
                model, data = problem.copied()
                engine = make(model, data)
                engine.load_state(state, done)
            losses.append(engine.advance(count).cpu())
            done += count
        engine.sync()
    return Trace(torch.cat(losses), [parameter.detach().cpu() for parameter in model.parameters()])
