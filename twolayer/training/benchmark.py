"""How fast each engine is on this machine, and whether all of them compute the same."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.factory import make_engine
from twolayer.engines.fused import GRAPH_ITERATIONS
from twolayer.errors import DivergedError
from twolayer.formatting import size
from twolayer.hardware import memory
from twolayer.hardware import threads as cpu_threads
from twolayer.hardware.device import fits, resolve_device
from twolayer.hardware.threads import cores
from twolayer.training.learning_rate import suggested
from twolayer.training.setup import prepare, resolve_auto

ROUND_SECONDS = 0.1  # for each engine, at the least
PRODUCT_SECONDS = 5e-3
COMPARED = 20  # iterations, at the most: over more, an almost unstable step makes much of a rounding

# How far a loss may be from the reference's, relative to it: far more than rounding does in so few iterations.
TOLERANCE = {"float64": 1e-9, "float32": 1e-3, "tf32": 5e-2}

# The dual form is left out where it takes so many times the primal form's operations: nobody would wait for it.
TOO_MANY = 100


@dataclass
class Measured:
    """An engine's figures; `seconds` (an iteration) and `set_up` (the rest, in seconds) hold one for each round."""

    config: Config  # with the engine, its form and its threads
    iterations: int = 1  # a round
    seconds: list[float] = field(default_factory=list)
    set_up: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The engine, its form, and where a GPU's kernels are launched one by one."""
        return self.config.engine_name + ("" if self.config.cuda_graph else ", no graph")

    @property
    def rate(self) -> float:
        """Floating point operations a second: the median's, of the matrix products that this engine does."""
        return selection.operations(self.config) / statistics.median(self.seconds)


class Bench:
    """The engines and forms that apply to a config, at work on one problem; the first is the reference.

    `auto` is the name of the one that `engine: auto` takes; `left_out` says which do not apply, and why. Raises what
    `prepare` raises.
    """

    def __init__(self, config: Config) -> None:
        self.device = resolve_device(config.device, config.dtype)
        base = config.model_copy(update={"engine": "auto", "form": "auto", "device": self.device})
        self.left_out: dict[str, str] = {}
        applying = list(self._applying(base))  # before there is anything in memory
        resolved, self.data, self.model = prepare(base)
        self.auto = resolved.engine_name
        self.lr = suggested(self.model, self.data, resolved) if resolved.lr == "auto" else resolved.lr
        self.engines = [Measured(resolve_auto(one).model_copy(update={"lr": self.lr})) for one in applying]
        self.products = Products(base)

    def _applying(self, base: Config) -> Iterator[Config]:
        """The config with each engine and form that applies."""
        kinds = [("autograd", "auto"), ("manual", "auto"), ("fused", "primal"), ("fused", "dual")]
        configs = [base.model_copy(update={"engine": engine, "form": form}) for engine, form in kinds]
        primal = selection.operations(configs[2])
        for config in configs:
            if config.engine != "fused":
                yield config
            elif config.device == "mps":
                self.left_out[config.engine_name] = "not to be had on mps"
            elif (times := selection.operations(config) / primal) > TOO_MANY:
                self.left_out[config.engine_name] = f"{times:.0f} times the operations of primal"
            elif not fits(config):
                self.left_out[config.engine_name] = f"it needs {size(memory.needed(config))} of memory"
            else:
                yield config.model_copy(update={"cuda_graph": True})
                if config.device.startswith("cuda"):
                    yield config.model_copy(update={"cuda_graph": False})

    def rounds(self, count: int) -> Iterator[int]:
        """Measure every engine so many times, in turn; the number of each round, after it.

        Raises DivergedError where a loss of the reference that is compared is not finite.
        """
        for engine in self.engines:
            self._find_pace(engine)
        for number in range(1, count + 1):
            self.products.measure()
            for engine in self.engines:
                seconds, set_up = self._run(engine)
                engine.seconds.append(seconds)
                engine.set_up.append(set_up)
            yield number

    def _find_pace(self, engine: Measured) -> None:
        """Choose the iterations of a round; a warm-up as well. For the reference, also its losses."""
        while (wanted := math.ceil(ROUND_SECONDS / self._run(engine)[0])) > engine.iterations:
            engine.iterations = min(wanted, 10 * engine.iterations)
        if engine.iterations < 3:  # losses after an update are to be compared, too
            engine.iterations = 3
            self._run(engine)
        losses = self.engines[0].losses
        if bad := next((t for t, loss in enumerate(losses, 1) if not math.isfinite(loss)), 0):
            raise DivergedError(bad, losses[bad - 1], self.lr)

    def _run(self, engine: Measured) -> tuple[float, float]:
        """A round of one engine, from the initial weights: the seconds an iteration, and those of the rest."""
        config, model = engine.config, copy.deepcopy(self.model)
        with cpu_threads.set_up(config):
            start = clock(self.device)
            working = make_engine(model, self.data, config)
            made = clock(self.device)
            # A graph is captured in the second of two whole chunks.
            losses = working.advance(2 * GRAPH_ITERATIONS if self.device.startswith("cuda") else 1).tolist()
            warm = clock(self.device)
            losses += working.advance(engine.iterations).tolist()
            done = clock(self.device)
            working.sync()
            end = clock(self.device)
        engine.losses = losses[:COMPARED]
        return (done - warm) / engine.iterations, made - start + end - done

    def distance(self, engine: Measured) -> float:
        """The largest distance of a loss from the reference's, relative to it; infinite where one is not finite.

        Below a millionth of the first loss it is relative to that millionth: what is left there is rounding.
        """
        reference = self.engines[0].losses
        floor = 1e-6 * reference[0]
        pairs = zip(engine.losses, reference, strict=False)  # both start at the first iteration
        apart = [(abs(loss - other), max(other, floor)) for loss, other in pairs if loss != other]
        return max((a / b if b and math.isfinite(a) else math.inf for a, b in apart), default=0.0)

    def agrees(self, engine: Measured) -> bool:
        """Whether the engine computes what the reference computes, to rounding."""
        config = engine.config
        uses_tf32 = config.precision == "tf32" and config.device.startswith("cuda")
        return self.distance(engine) <= TOLERANCE["tf32" if uses_tf32 else config.dtype]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The figures of every engine: times in microseconds, rates in 10^9 operations a second."""
        for engine in self.engines:
            yield {
                "name": engine.name,
                "engine": engine.config.engine,
                "form": engine.config.form if engine.config.engine == "fused" else "",
                "cuda_graph": engine.config.engine == "fused" and engine.config.cuda_graph and "cuda" in self.device,
                "threads": engine.config.threads,
                "microseconds": 1e6 * statistics.median(engine.seconds),
                "least": 1e6 * min(engine.seconds),
                "most": 1e6 * max(engine.seconds),
                "set_up": 1e6 * statistics.median(engine.set_up),
                "gflops": engine.rate / 1e9,
                "products_gflops": self.products.rate / 1e9,
                "share": engine.rate / self.products.rate,
                "distance": self.distance(engine),
                "agrees": self.agrees(engine),
                "auto": engine.name == self.auto,
            }


class Products:
    """Products of large square matrices, `size` a side: the rate that the device is capable of."""

    def __init__(self, config: Config) -> None:
        threads = cores() if config.threads == "auto" else config.threads
        self.config = config.model_copy(update={"threads": threads})
        self.rates: list[float] = []  # floating point operations a second, round by round
        self.size, seconds = 512, 0.0
        while seconds < PRODUCT_SECONDS and self.size < 8192:
            self.size *= 2
            numbers = torch.ones(2, self.size, self.size, dtype=getattr(torch, config.dtype), device=config.device)
            self.one, self.other = numbers.unbind()
            self.out = torch.empty_like(self.one)
            self._seconds(1)  # a warm-up
            seconds = self._seconds(1)
        self.repeats = math.ceil(ROUND_SECONDS / seconds)

    def measure(self) -> None:
        """A round."""
        self.rates.append(2 * self.size**3 * self.repeats / self._seconds(self.repeats))

    def _seconds(self, repeats: int) -> float:
        with cpu_threads.set_up(self.config):
            start = clock(self.config.device)
            for _ in range(repeats):
                torch.mm(self.one, self.other, out=self.out)
            return clock(self.config.device) - start

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rates)


def clock(device: str) -> float:
    """The time in seconds, when all that was begun on the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
