"""The training loop alone, side by side: microseconds per iteration, medians of interleaved rounds, and their ratios.

    python benchmarks/loop.py [rounds] [--json PATH]

Every program does the same work on the same data from the same weights, float32, with its library's number of threads:
on all rows, and at one shape on batches of 64, the same ones in the same order. Setting up is not measured, except that
of twolayer's engines; nor are JAX's compilation and numba's, which the first round, a warm-up, takes. `auto` is that of
a long training. `told` makes the section of docs/performance.md.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import harness
import numpy as np
import torch
from peers import PEERS, Peer, Problem, Train, by_sklearn

from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.factory import make_engine
from twolayer.errors import ConfigError
from twolayer.training.setup import prepare

LARGE = (4096, 1024, 1024, 64)  # where the products with x are all that counts
BATCHES, BATCH_SIZE = (100_000, 20, 150, 1), 64  # an iteration is a batch
# N, D_in, H, D_out; lr; iterations a round
SHAPES = [
    ((64, 1000, 100, 10), 1e-4, 500),
    ((100, 3, 32, 1), 1e-4, 1000),
    ((442, 10, 64, 1), 1e-5, 500),
    ((1000, 20, 64, 1), 1e-6, 300),
    ((64, 20000, 256, 10), 1e-6, 150),
    (LARGE, 1e-8, 8),
    ((50000, 20, 64, 1), 1e-8, 50),
    (BATCHES, 1e-6, 1000),
]
# By shape: how many times faster than these `auto` is to be; None where there is no goal.
GOALS: list[dict[str, float | None]] = [
    {"by hand": 8, "JAX": 3},
    {"by hand": 8, "JAX": 2},
    {"by hand": 1, "JAX": 1},
    {"by hand": 1, "JAX": 1},
    {"by hand": 25, "JAX": 20},
    {"by hand": 1, "JAX": None},
    {"by hand": 1, "JAX": 2},
    {"every other program": 1},
]
EPOCHS = 1_000_000  # of the config whose engine `auto` chooses: a short training does not wait for the compiled one
PRODUCTS, SHARE = "its two large products", 0.85
CORES = torch.get_num_threads()

Times = dict[str, list[float]]  # microseconds per iteration, round by round


def by_engine(problem: Problem, iterations: int, *, config: Config) -> Train:
    """One of ours, to the last update in the model's parameters."""
    resolved, data, model = prepare(config)
    order = None if problem.order is None else torch.from_numpy(problem.order).unbind()

    def train() -> list[float]:
        engine: Any = make_engine(model, data, resolved)
        if order is None:
            losses = engine.advance(iterations)
        else:
            engine.updates(order, losses := torch.empty(iterations))
        found: list[float] = losses.tolist()
        engine.sync()
        return found

    return train


def two_products(problem: Problem, iterations: int) -> Train:
    """The two large matrix products of an iteration and nothing else: X W1' and G' X."""
    x, w1 = torch.from_numpy(problem.x), torch.from_numpy(problem.weights[0])
    h, grad_h, grad_w1 = torch.empty(len(x), len(w1)), torch.randn(len(x), len(w1)), torch.empty_like(w1)

    def train() -> list[float]:
        for _ in range(iterations):
            torch.mm(x, w1.t(), out=h)
            torch.mm(grad_h.t(), x, out=grad_w1)
        return []

    return train


def programs(config: Config) -> dict[str, tuple[int, Peer]]:
    """The programs by name, each with its number of threads."""
    found: dict[str, tuple[int, Peer]] = {name: (CORES, peer) for name, peer in PEERS.items()}
    if config.batch_size:
        found["scikit-learn, partial_fit"] = CORES, partial(by_sklearn, whole=False)
    for engine, form in (
        ("autograd", "auto"),
        ("manual", "auto"),
        ("fused", "primal"),
        ("fused", "dual"),
        ("compiled", "auto"),
    ):
        if form == "dual" and 2 * config.D_in < config.N:  # K would be larger than x: no one would ask for it
            continue
        if config.batch_size and engine == "manual":  # `fused` is the same program there
            continue
        one = config.model_copy(update={"engine": engine, "form": form})
        threads = prepare(one)[0].threads
        assert isinstance(threads, int)
        found[name_of(one)] = threads, partial(by_engine, config=one)
    if (config.N, config.D_in, config.H, config.D_out) == LARGE:
        found[PRODUCTS] = CORES, two_products
    return found


def name_of(config: Config) -> str:
    """An engine's name in the tables."""
    return f"twolayer {config.engine}" + (f" ({config.form})" if config.engine == "fused" else "")


def measure(config: Config, found: dict[str, tuple[int, Peer]], iterations: int, rounds: int) -> Times:
    """Run all programs in turn, round after round; their losses are compared with those of the first."""
    _, data, model = prepare(config)
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in model.parameters())
    order = None
    if config.batch_size:
        shuffled = np.random.default_rng(0).permutation(config.N)
        order = shuffled[: iterations * config.batch_size].reshape(iterations, -1)
    problem = Problem(data.x.numpy(), data.y.numpy(), (w1, b1, w2, b2), float(config.lr), order)
    times: Times = {name: [] for name in found}
    expected: list[float] = []
    for turn in range(rounds + 1):
        if turn == 1:
            gc.freeze()  # by now all is imported; no program is to have the others' objects searched for garbage
        for name, (threads, program) in found.items():
            train = program(problem, iterations)
            torch.set_num_threads(threads)
            harness.settle()
            start = time.perf_counter()
            losses = train()
            taken = time.perf_counter() - start
            torch.set_num_threads(CORES)
            expected = expected or losses
            if len(losses) == 1 < iterations:  # an epoch's mean is all that it keeps
                harness.check(name, losses, [statistics.fmean(expected)])
            elif name != PRODUCTS:
                harness.check(name, losses, expected)
            if turn:  # the first is a warm-up
                times[name].append(round(taken / iterations * 1e6, 3))
    return times


def ratio(times: Times, slow: str, fast: str) -> float:
    """How many times faster one is than another: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def goals(shape: tuple[int, int, int, int], auto: str, times: Times, wanted: dict[str, float | None]) -> list[Any]:
    """What `auto` reached at one shape: rows of shape, what is measured, its value, its goal, and whether it is met."""
    bases = [name for name in times if not name.startswith("twolayer") and name != PRODUCTS]
    nearest = min(bases, key=lambda name: ratio(times, name, auto))
    reached = [
        (f"faster than {base}", ratio(times, base if base in times else nearest, auto), goal)
        for base, goal in wanted.items()
    ]
    if PRODUCTS in times:
        N, D_in, H, D_out = shape
        more = (4 * N * D_in * H + 6 * N * H * D_out) / (4 * N * D_in * H)
        reached.append((f"share of the rate of {PRODUCTS}", more * ratio(times, PRODUCTS, auto), SHARE))
    keys = ("shape", "what", "value", "goal", "met")
    return [dict(zip(keys, (shape, *row, row[2] is None or row[1] >= row[2]), strict=True)) for row in reached]


def told(results: dict[str, Any]) -> str:
    """The section of docs/performance.md, from the results of a run."""
    lines = [
        f"`python benchmarks/loop.py` ({results['date']}, {results['rounds']} rounds in turn, load average"
        f" {results['load']:.1f} on {results['hardware']['cores']} cores): microseconds per iteration, medians."
        + harness.caution(results)
    ]
    for one in results["shapes"]:
        times, auto = one["times"], one["auto"]
        name = auto.removeprefix("twolayer ")
        lines += [
            "",
            f"**{name_of_shape(one['shape'])}**, {one['iterations']} iterations per round; `auto` takes {name}",
        ]
        lines += ["", "| program | threads | µs per iteration | min | max | by hand / it | JAX / it |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for program, taken in times.items():
            mark = "**" if program == auto else ""
            figures = f"{statistics.median(taken):.4g} | {min(taken):.4g} | {max(taken):.4g}"
            ratios = " | ".join(f"{ratio(times, base, program):.3g}" for base in ("by hand", "JAX"))
            lines.append(f"| {mark}{program}{mark} | {one['threads'][program]} | {figures} | {ratios} |")
    met = all(row["met"] for row in results["goals"])
    lines += ["", f"Our goals, {'all met' if met else 'not all met'} here:", ""]
    lines += ["| shape | `auto` | | goal | met |", "|---|---|---|---|---|"]
    for row in results["goals"]:
        goal, is_met = ("", "") if row["goal"] is None else (f"{row['goal']:g}", "yes" if row["met"] else "NO")
        lines.append(f"| {name_of_shape(row['shape'])} | {row['what']} | {row['value']:.3g} | {goal} | {is_met} |")
    return "\n".join(lines)


def name_of_shape(shape: Sequence[int]) -> str:
    """A shape in words."""
    N, D_in, H, D_out = shape
    name = f"{N} x {D_in} -> {H} -> {D_out}"
    return f"batches of {BATCH_SIZE} of {name}" if tuple(shape) == BATCHES else name


def config_of(shape: tuple[int, int, int, int], lr: float) -> Config:
    """The config of a long training at a shape."""
    N, D_in, H, D_out = shape
    keys: dict[str, Any] = {"batch_size": BATCH_SIZE} if shape == BATCHES else {}
    return load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, lr=lr, epochs=EPOCHS, environment={}, **keys)


def main() -> None:
    """Measure every shape; print a table for each, and what has been reached."""
    options = harness.options(__doc__ or "", rounds=7)
    shapes: list[dict[str, Any]] = []
    reached: list[dict[str, Any]] = []
    for (shape, lr, iterations), wanted in zip(SHAPES, GOALS, strict=True):
        try:
            config = config_of(shape, lr)
            found = programs(config)
            times = measure(config, found, iterations, options.rounds)
        except ConfigError as error:  # too large for this machine
            print(error)
            continue
        auto = name_of(prepare(config)[0])
        threads = {name: count for name, (count, _) in found.items()}
        shapes.append({"shape": shape, "iterations": iterations, "auto": auto, "threads": threads, "times": times})
        reached += goals(shape, auto, times, wanted)
        print(f"measured {name_of_shape(shape)}", flush=True)
    results = {"rounds": options.rounds, "shapes": shapes, "goals": reached}
    print("\n" + told(harness.environment() | results))
    harness.save(options.json, results)


if __name__ == "__main__":
    main()
