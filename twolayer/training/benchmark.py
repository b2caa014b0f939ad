"""Times every engine on this machine, and checks that all of them compute the same losses."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
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

ROUND_SECONDS = 0.1  # minimum, per engine
PRODUCT_SECONDS = 5e-3
COMPARED = 20  # maximum iterations: over more, an almost unstable learning rate amplifies rounding errors

# The largest relative difference between a loss and the reference's: far more than rounding in so few iterations.
TOLERANCE = {"float64": 1e-9, "float32": 1e-3, "tf32": 5e-2}

# The dual form is left out if it needs this many times the operations of the primal form: it would take too long.
TOO_MANY = 100


@dataclass
class Timing:
    """An engine's measurements; `seconds` (per iteration) and `set_up` (all else, in seconds) have one per round."""

    config: Config  # with the engine, its form and its threads
    iterations: int = 1  # per round
    seconds: list[float] = field(default_factory=list)
    set_up: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The engine, its form, and `no graph` if a GPU's kernels are launched one by one."""
        return self.config.engine_name + ("" if self.config.cuda_graph else ", no graph")

    @property
    def rate(self) -> float:
        """Floating point operations per second in the median round, for every engine those of the book's loop.

        So a rate compares times. The dual form needs fewer operations, and its rate may be above the machine's.
        """
        book = self.config.model_copy(update={"form": "auto"})
        return selection.operations(book) / statistics.median(self.seconds)


class Benchmark:
    """The engines and forms that apply to a config, on the same problem; the first is the reference.

    `auto` is the name of the one that `engine: auto` chooses; `left_out` names those that do not apply, and why. Raises
    what `prepare` raises.
    """

    def __init__(self, config: Config) -> None:
        self.device = resolve_device(config.device, config.dtype)
        undivided = {"parts": None, "split": "auto"}  # only some engines have parts
        base = config.model_copy(update={"engine": "auto", "form": "auto", "device": self.device, **undivided})
        self.left_out: dict[str, str] = {}
        applying = list(self._applying(base))  # before anything is allocated
        resolved, self.data, self.model = prepare(base)
        self.auto = resolved.engine_name
        self.lr = suggested(self.model, self.data, resolved) if resolved.lr == "auto" else resolved.lr
        self.engines = [Timing(resolve_auto(one).model_copy(update={"lr": self.lr})) for one in applying]
        self.matmul = MatmulRate(base)

    def _applying(self, base: Config) -> Iterator[Config]:
        """The config with each engine and form that applies."""
        kinds = [("autograd", "auto"), ("manual", "auto"), ("fused", "primal"), ("fused", "dual"), ("compiled", "auto")]
        configs = [base.model_copy(update={"engine": engine, "form": form}) for engine, form in kinds]
        primal = selection.operations(configs[2])
        for config in configs:
            if config.engine == "compiled" and config.device != "cpu":
                self.left_out[config.engine_name] = "is for the CPU"
            elif config.engine == "compiled" and find_spec("numba") is None:
                self.left_out[config.engine_name] = "needs numba: pip install 'twolayer[fast]'"
            elif config.engine != "fused":
                yield config
            elif config.device == "mps":
                self.left_out[config.engine_name] = "not available on MPS"
            elif (times := selection.operations(config) / primal) > TOO_MANY:
                self.left_out[config.engine_name] = f"needs {times:.0f} times the operations of primal"
            elif not fits(config):
                self.left_out[config.engine_name] = f"needs {size(memory.needed(config))} of memory"
            else:
                yield config.model_copy(update={"cuda_graph": True})
                if config.device.startswith("cuda"):
                    yield config.model_copy(update={"cuda_graph": False})

    def rounds(self, count: int) -> Iterator[int]:
        """Measure every engine `count` times, in turn; yields the number of each round after it.

        Raises DivergedError if one of the reference's compared losses is not finite.
        """
        for engine in self.engines:
            self._find_pace(engine)
        for number in range(1, count + 1):
            self.matmul.measure()
            for engine in self.engines:
                seconds, set_up = self._run(engine)
                engine.seconds.append(seconds)
                engine.set_up.append(set_up)
            yield number

    def _find_pace(self, engine: Timing) -> None:
        """Choose the iterations per round, which is also a warm-up; checks the reference's losses."""
        while (wanted := math.ceil(ROUND_SECONDS / self._run(engine)[0])) > engine.iterations:
            engine.iterations = min(wanted, 10 * engine.iterations)
        if engine.iterations < 3:  # so that losses after an update are compared, too
            engine.iterations = 3
            self._run(engine)
        losses = self.engines[0].losses
        if bad := next((t for t, loss in enumerate(losses, 1) if not math.isfinite(loss)), 0):
            raise DivergedError(bad, losses[bad - 1], self.lr)

    def _run(self, engine: Timing) -> tuple[float, float]:
        """A round of one engine, from the initial weights: the seconds per iteration, and of all else."""
        config, model = engine.config, copy.deepcopy(self.model)
        with cpu_threads.set_up(config):
            start = clock(self.device)
            engine_ = make_engine(model, self.data, config)
            made = clock(self.device)
            # A graph is captured in the second of two whole chunks.
            losses = _losses(engine_.advance(2 * GRAPH_ITERATIONS if self.device.startswith("cuda") else 1))
            warm = clock(self.device)
            losses += _losses(engine_.advance(engine.iterations))
            done = clock(self.device)
            engine_.sync()
            end = clock(self.device)
        engine.losses = losses[:COMPARED]
        return (done - warm) / engine.iterations, made - start + end - done

    def difference(self, engine: Timing) -> float:
        """The largest relative difference between a loss and the reference's; infinite if a loss is not finite.

        Below a millionth of the first loss it is relative to that millionth: such losses consist of rounding errors.
        """
        reference = self.engines[0].losses
        floor = 1e-6 * reference[0]
        pairs = zip(engine.losses, reference, strict=False)  # both start at the first iteration
        apart = [(abs(loss - other), max(other, floor)) for loss, other in pairs if loss != other]
        return max((a / b if b and math.isfinite(a) else math.inf for a, b in apart), default=0.0)

    def agrees(self, engine: Timing) -> bool:
        """Whether the engine's losses are the reference's, except for rounding."""
        config = engine.config
        uses_tf32 = config.precision == "tf32" and config.device.startswith("cuda")
        return self.difference(engine) <= TOLERANCE["tf32" if uses_tf32 else config.dtype]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The results of every engine: times in microseconds, rates in 10^9 operations per second."""
        for engine in self.engines:
            yield {
                "name": engine.name,
                "engine": engine.config.engine,
                "form": engine.config.form if engine.config.engine == "fused" else "",
                "cuda_graph": engine.config.engine == "fused" and engine.config.cuda_graph and "cuda" in self.device,
                "threads": engine.config.threads,
                "min_us": 1e6 * min(engine.seconds),
                "median_us": 1e6 * statistics.median(engine.seconds),
                "max_us": 1e6 * max(engine.seconds),
                "set_up_us": 1e6 * statistics.median(engine.set_up),
                "gflops": engine.rate / 1e9,
                "matmul_gflops": self.matmul.rate / 1e9,
                "difference": self.difference(engine),
                "agrees": self.agrees(engine),
                "auto": engine.name == self.auto,
            }


def _losses(rows: torch.Tensor) -> list[float]:
    """The losses of what an engine returns: (iterations,), or for classes (iterations, 2), with the accuracies."""
    losses: list[float] = (rows if rows.dim() == 1 else rows[:, 0]).tolist()
    return losses


class MatmulRate:
    """Products of large square matrices, `size` x `size`: the rate that the device can reach."""

    def __init__(self, config: Config) -> None:
        threads = cores() if config.threads == "auto" else config.threads
        self.config = config.model_copy(update={"threads": threads})
        self.rates: list[float] = []  # floating point operations per second, for each round
        self.size, seconds = 512, 0.0
        while seconds < PRODUCT_SECONDS and self.size < 8192:
            self.size *= 2
            numbers = torch.ones(2, self.size, self.size, dtype=getattr(torch, config.dtype), device=config.device)
            self.one, self.other = numbers.unbind()
            self.out = torch.empty_like(self.one)
            self._seconds(1)  # warm-up
            seconds = self._seconds(1)
        self.repeats = math.ceil(ROUND_SECONDS / seconds)

    def measure(self) -> None:
        """Measure one round."""
        self.rates.append(2 * self.size**3 * self.repeats / self._seconds(self.repeats))

    def _seconds(self, repeats: int) -> float:
        with cpu_threads.set_up(self.config):
            start = clock(self.config.device)
            for _ in range(repeats):
                torch.mm(self.one, self.other, out=self.out)
            return clock(self.config.device) - start

    @property
    def rate(self) -> float:
        """The best of the rounds."""
        return max(self.rates)


def clock(device: str) -> float:
    """The time in seconds, after everything started on the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
