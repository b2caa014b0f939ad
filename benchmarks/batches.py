"""Batches of a table, side by side: microseconds per update on 64 rows, medians of interleaved rounds, and ratios.

    python benchmarks/batches.py [rounds] [--json PATH]

An epoch over the same rows in the same order, float32, one thread, every loss kept: the two engines of twolayer, the
fused one also as it computes batches that are not small (each by itself, with sixteen calls of PyTorch), the loop that
one would write by hand with torch.optim.SGD, and scikit-learn's `partial_fit` (plain gradient descent, no penalty).
Compiling is not measured: the first round, a warm-up, takes it.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import harness
import torch
from sklearn.neural_network import MLPRegressor
from torch import nn

from twolayer.config.loading import load_config
from twolayer.engines.base import RowEngine
from twolayer.engines.factory import make_engine
from twolayer.training.setup import prepare

ROWS, UPDATES, LR = 64, 200, 1e-3
# D_in, H, D_out; how many times faster than sixteen calls the compiled engine is to be
SHAPES = [
    ((5, 32, 1), 4.0),
    ((10, 150, 1), 4.0),
    ((20, 150, 1), 2.5),
    ((30, 150, 3), 2.5),
    ((100, 150, 1), 1.5),
    ((300, 150, 1), 1.0),
    ((1000, 300, 10), 1.0),
]
Epoch = Callable[[], list[float]]


def by_engine(engine: str, sizes: tuple[int, int, int], order: list[torch.Tensor], *, alone: bool = False) -> Epoch:
    """An epoch with one of our engines; `alone`: each batch by itself."""
    config, data, model = _problem(engine, sizes)
    made: Any = make_engine(model, data, config)
    if alone:
        made.small.largest = 0
    rows: RowEngine = made
    losses = torch.empty(len(order))

    def epoch() -> list[float]:
        rows.updates(order, losses)
        return losses.tolist()

    return epoch


def by_hand(sizes: tuple[int, int, int], order: list[torch.Tensor]) -> Epoch:
    """The loop of the tutorials, with torch.optim.SGD."""
    _, data, model = _problem("autograd", sizes)
    optimizer, loss_of = torch.optim.SGD(model.parameters(), lr=LR), nn.MSELoss()

    def epoch() -> list[float]:
        losses = []
        for rows in order:
            loss = loss_of(model(data.x[rows]), data.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()

    return epoch


def by_scikit_learn(sizes: tuple[int, int, int], order: list[torch.Tensor]) -> Epoch:
    """MLPRegressor.partial_fit on each batch; from weights of its own, and its loss is half the mean square."""
    _, data, _ = _problem("fused", sizes)
    x, y = data.x.numpy(), data.y.numpy()
    y = y[:, 0] if y.shape[1] == 1 else y
    model = MLPRegressor(
        hidden_layer_sizes=(sizes[1],),
        solver="sgd",
        alpha=0,
        momentum=0,
        nesterovs_momentum=False,
        learning_rate_init=LR,
        batch_size=ROWS,
    )

    def epoch() -> list[float]:
        losses = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for rows in order:
                index = rows.numpy()
                model.partial_fit(x[index], y[index])
                losses.append(float(model.loss_))
        return losses

    return epoch


def _problem(engine: str, sizes: tuple[int, int, int]) -> Any:
    D_in, H, D_out = sizes
    keys: dict[str, Any] = {"N": ROWS * UPDATES, "D_in": D_in, "H": H, "D_out": D_out, "lr": LR, "threads": 1}
    keys |= {"batch_size": ROWS, "reduction": "mean", "engine": engine, "environment": {}}
    return prepare(load_config("default", **keys))


def main() -> None:
    """Measure every shape; print a table, and what has been reached."""
    options = harness.options(__doc__ or "", rounds=7)
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    print("| batches of 64 | each alone | fused | compiled | by hand | scikit-learn | alone / compiled | goal | met |")
    print("|---|---|---|---|---|---|---|---|---|")
    for sizes, goal in SHAPES:
        shuffled = torch.randperm(ROWS * UPDATES, generator=torch.Generator().manual_seed(0))
        order = list(torch.split(shuffled, ROWS))
        programs = {
            "each alone": by_engine("fused", sizes, order, alone=True),
            "fused": by_engine("fused", sizes, order),
            "compiled": by_engine("compiled", sizes, order),
            "by hand": by_hand(sizes, order),
            "scikit-learn": by_scikit_learn(sizes, order),
        }
        times: dict[str, list[float]] = {name: [] for name in programs}
        for turn in range(options.rounds + 1):
            expected: list[float] = []
            for name, epoch in programs.items():
                harness.settle()
                start = time.perf_counter()
                losses = epoch()
                taken = time.perf_counter() - start
                if name != "scikit-learn":  # all others start from the same weights, and go on from the same
                    expected = expected or losses
                    harness.check(name, losses, expected)
                if turn:
                    times[name].append(1e6 * taken / UPDATES)
        gain = statistics.median(a / b for a, b in zip(times["each alone"], times["compiled"], strict=True))
        found.append({"shape": sizes, "times": times, "goal": goal, "gain": gain, "met": gain >= goal})
        figures = " | ".join(f"{statistics.median(each):.4g}" for each in times.values())
        met = "yes" if gain >= goal else "NO"
        print(f"| {sizes[0]} -> {sizes[1]} -> {sizes[2]} | {figures} | {gain:.3g} | {goal:g} | {met} |", flush=True)
    harness.save(options.json, {"rounds": options.rounds, "rows": ROWS, "shapes": found})


if __name__ == "__main__":
    main()
