"""The training loop alone, side by side: microseconds an iteration, medians of interleaved rounds, and their ratios.

    python benchmarks/loop.py [rounds]

Every program does the same work on the same data from the same weights, full batch, float32. The loops by hand and
torch.optim.SGD read each loss with `.item()`, as the tutorials do, and have PyTorch's default number of threads.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from twolayer.config import Config
from twolayer.data import Data
from twolayer.engines import make_engine
from twolayer.errors import ConfigError
from twolayer.loading import load_config
from twolayer.training import choose_threads, prepare

# N, D_in, H, D_out; lr; iterations a round
SHAPES = [
    ((64, 1000, 100, 10), 1e-4, 500),
    ((100, 3, 32, 1), 1e-4, 1000),
    ((64, 20000, 256, 10), 1e-6, 150),
    ((4096, 1024, 1024, 64), 1e-8, 8),
    ((50000, 20, 64, 1), 1e-8, 50),
]
CORES = torch.get_num_threads()
PAUSE = 0.1  # seconds, in which the threads of the program before cease to spin


def by_hand(model: nn.Sequential, data: Data, lr: float, iterations: int) -> list[float]:
    """The book's loop."""
    loss_fn, losses = nn.MSELoss(reduction="sum"), []
    for _ in range(iterations):
        loss = loss_fn(model(data.x), data.y)
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad  # type: ignore[misc, operator]
    return losses


def by_sgd(model: nn.Sequential, data: Data, lr: float, iterations: int, **options: Any) -> list[float]:
    """The loop with torch.optim.SGD."""
    loss_fn, losses = nn.MSELoss(reduction="sum"), []
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, **options)
    for _ in range(iterations):
        loss = loss_fn(model(data.x), data.y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def by_numpy(model: nn.Sequential, data: Data, lr: float, iterations: int) -> list[float]:
    """Back-propagation in numpy."""
    x, y = data.x.numpy(), data.y.numpy()
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in model.parameters())
    losses, step = [], np.float32(lr)
    for _ in range(iterations):
        h = np.maximum(x @ w1.T + b1, 0)
        residual = h @ w2.T + b2 - y
        losses.append(float(np.sum(residual * residual)))
        g = 2 * residual
        gh = (g @ w2) * (h > 0)
        w2 -= step * (g.T @ h)
        b2 -= step * g.sum(0)
        w1 -= step * (gh.T @ x)
        b1 -= step * gh.sum(0)
    return losses


def by_engine(model: nn.Sequential, data: Data, config: Config, iterations: int) -> list[float]:
    """One of ours, to the last update in the model's parameters."""
    engine = make_engine(model, data, config)
    losses: list[float] = engine.advance(iterations).tolist()
    engine.sync()
    return losses


def programs(config: Config) -> dict[str, tuple[int, Callable[[nn.Sequential, Data, int], list[float]]]]:
    """The programs by name, each with its number of threads."""
    found: dict[str, tuple[int, Callable[[nn.Sequential, Data, int], list[float]]]] = {
        "by hand": (CORES, lambda m, d, n: by_hand(m, d, config.lr, n)),
        "torch.optim.SGD": (CORES, lambda m, d, n: by_sgd(m, d, config.lr, n)),
        "torch.optim.SGD, foreach": (CORES, lambda m, d, n: by_sgd(m, d, config.lr, n, foreach=True)),
        "torch.optim.SGD, fused": (CORES, lambda m, d, n: by_sgd(m, d, config.lr, n, fused=True)),
        "numpy": (CORES, lambda m, d, n: by_numpy(m, d, config.lr, n)),
    }
    for engine, form in (("autograd", "auto"), ("manual", "auto"), ("fused", "primal"), ("fused", "dual")):
        one = config.model_copy(update={"engine": engine, "form": form})
        if form == "dual" and 2 * config.D_in < config.N:  # K would be larger than x: no one would ask for it
            continue
        name = f"twolayer {engine}" + (f" ({form})" if form != "auto" else "")
        found[name] = (choose_threads(one), lambda m, d, n, one=one: by_engine(m, d, one, n))  # type: ignore[misc]
    return found


def measure(config: Config, iterations: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds an iteration, round by round; every program's losses are held against autograd's."""
    times: dict[str, list[float]] = {name: [] for name in programs(config)}
    for turn in range(rounds + 1):
        expected: list[float] = []
        for name, (threads, program) in programs(config).items():
            _, data, model = prepare(config)
            torch.set_num_threads(threads)
            time.sleep(PAUSE)
            start = time.perf_counter()
            losses = program(model, data, iterations)
            taken = time.perf_counter() - start
            torch.set_num_threads(CORES)
            expected = expected or losses
            if not np.allclose(losses, expected, rtol=1e-2):
                raise SystemExit(f"{name} computes something else")
            if turn:  # the first is a warm-up
                times[name].append(taken / iterations * 1e6)
    return times


def main() -> None:
    """Measure every shape and print a table for each."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"{rounds} rounds, {CORES} cores, PyTorch {torch.__version__}")
    for (N, D_in, H, D_out), lr, iterations in SHAPES:
        try:
            config = load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, lr=lr, epochs=500, environment={})
            times = measure(config, iterations, rounds)
        except ConfigError as error:  # too large for this machine
            print(error)
            continue
        chosen, threads = prepare(config)[0], {name: count for name, (count, _) in programs(config).items()}
        auto = f"twolayer {chosen.engine} ({chosen.form})"
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        print(f"\n{N} x {D_in} -> {H} -> {D_out}; auto takes {chosen.engine} ({chosen.form})\n")
        print("| program | threads | µs an iteration | least | most | against by hand |\n|---|---|---|---|---|---|")
        for name, taken in times.items():
            ratio = statistics.median(a / b for a, b in zip(times["by hand"], taken, strict=True))
            mark = "**" if name == auto else ""
            figures = f"{medians[name]:.4g} | {min(taken):.4g} | {max(taken):.4g} | {ratio:.3g}x"
            print(f"| {mark}{name}{mark} | {threads[name]} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
