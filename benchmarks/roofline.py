"""The arithmetic of each engine beside what the machine can do: the rate of a large product, and memory bandwidth.

    python benchmarks/roofline.py [rounds] [--json PATH]

GFLOP/s of the matrix products of an update, the best of interleaved rounds, at the shapes of loop.py; in the same run
the limits, and the products of `auto` at each shape by PyTorch and nothing else. An update has to read its rows, and to
read and write its weights, once (in the dual form K, Z0, S and the second layer): that many bytes at the bandwidth are
the other limit, where they do not fit the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import harness
import torch
from loop import BATCHES, SHAPES, config_of, name_of, name_of_shape

from twolayer.config.schema import Config
from twolayer.engines.factory import make_engine
from twolayer.engines.selection import operations, weights
from twolayer.hardware.threads import cores, set_up
from twolayer.training.setup import prepare

UPDATES = 200  # of an epoch of batches
SIDE, NUMBERS = 2048, 2**24  # of the square matrices; in each of three vectors, far more than a cache holds
SECONDS = 0.08  # that a measure takes, where one update takes less
COLUMNS = ["autograd", "manual", "fused (primal)", "fused (dual)", "compiled"]
ENGINES = [("autograd", "auto"), ("manual", "auto"), ("fused", "primal"), ("fused", "dual"), ("compiled", "auto")]


@dataclass
class Program:
    """One engine at one shape, and its GFLOP/s, round by round."""

    config: Config
    run: Callable[[int], object]  # so many updates
    operations: int
    bytes: int
    count: int = 1
    rates: list[float] = field(default_factory=list)

    def seconds(self) -> float:
        """The time that `count` updates take."""
        with set_up(self.config):
            harness.settle()
            start = time.perf_counter()
            self.run(self.count)
            return time.perf_counter() - start

    def calibrate(self) -> None:
        """Choose `count`, doubled until the updates take long enough; this warms up, too."""
        while (taken := self.seconds()) < SECONDS / 4:
            self.count *= 2
        self.count = max(1, round(self.count * SECONDS / taken))


def program(shape: tuple[int, int, int, int], engine: str, form: str) -> Program:
    """An engine with its own data, which it has seen once."""
    N, D_in, H, D_out = shape
    config, data, model = prepare(config_of(shape, 1e-12).model_copy(update={"engine": engine, "form": form}))
    with set_up(config):
        made: Any = make_engine(model, data, config)
    rows = min(N, config.batch_size or N)
    numbers = rows * (D_in + D_out) + 2 * weights(config)
    if config.form == "dual":
        numbers = N * N + N * D_out + 3 * N * H + 2 * D_out * (H + 1)
    run = made.advance
    if shape == BATCHES:
        order = list(torch.split(torch.randperm(N, generator=torch.Generator().manual_seed(0)), rows))[:UPDATES]
        losses = torch.empty(UPDATES)

        def run(count: int) -> None:
            for first in range(0, count, UPDATES):
                made.updates(order[: count - first], losses[: count - first])

    return Program(config, run, operations(config, rows), 4 * numbers)


def products(config: Config) -> Callable[[int], object]:
    """The matrix products of updates, each of the size that the config has, and nothing else."""
    N, D_in, H, D_out = min(config.N, config.batch_size or config.N), config.D_in, config.H, config.D_out
    large = [(H, N, N)] if config.form == "dual" else [(N, D_in, H), (H, N, D_in)]
    sizes = [*large, (N, H, D_out), (N, D_out, H), (D_out, N, H)]
    matrices = [(torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)) for m, k, n in sizes]

    def run(count: int) -> None:
        for _ in range(count):
            for a, b, out in matrices:
                torch.mm(a, b, out=out)

    return run


def programs(shape: tuple[int, int, int, int]) -> list[Program]:
    """The engines at a shape; with batches `manual` and `fused` are one program, and there is no dual form."""
    N, D_in = shape[:2]
    engines = [one for one in ENGINES if one[1] != "dual" or 2 * D_in >= N]
    if shape == BATCHES:
        engines = [("autograd", "auto"), ("fused", "auto"), ("compiled", "auto")]
    return [program(shape, engine, form) for engine, form in engines]


def product_rate() -> float:
    """GFLOP/s of a product of square matrices: MKL's or oneDNN's, whichever is faster."""
    a, b, out = (torch.randn(SIDE, SIDE) for _ in range(3))
    multiply = [lambda: torch.mm(a, b, out=out), lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")]
    taken = [_least(one) for one in multiply]
    return 2 * SIDE**3 / min(taken) / 1e9


def bandwidth() -> float:
    """GB/s of c = a + 2 b: two vectors read and one written."""
    a, b, c = (torch.ones(NUMBERS) for _ in range(3))
    return 12 * NUMBERS / _least(lambda: torch.add(a, b, alpha=2, out=c)) / 1e9


def _least(work: Callable[[], object]) -> float:
    """The least time of three calls."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Measure the limits and every shape, a round of all before the next; print a table."""
    options = harness.options(__doc__ or "", rounds=3)
    limits: dict[int, dict[str, float]] = {n: {"product": 0.0, "bandwidth": 0.0} for n in {1, cores()}}
    results = []
    for shape, _, _ in SHAPES:
        found = programs(shape)
        auto = next(one for one in found if name_of(one.config) == name_of(prepare(config_of(shape, 1e-12))[0]))
        alone = Program(auto.config, products(auto.config), auto.operations, 0)
        for one in (*found, alone):
            one.calibrate()
        for _ in range(options.rounds):
            for threads, limit in limits.items():
                torch.set_num_threads(threads)
                limit["product"] = max(limit["product"], product_rate())
                limit["bandwidth"] = max(limit["bandwidth"], bandwidth())
            for one in (*found, alone):
                one.rates.append(one.operations * one.count / one.seconds() / 1e9)
        engines = {
            name_of(one.config): {
                "threads": int(one.config.threads),
                "operations": one.operations,
                "bytes": one.bytes,
                "rates": one.rates,
            }
            for one in found
        }
        results.append({"shape": shape, "auto": name_of(auto.config), "engines": engines, "products": alone.rates})
        print(f"measured {name_of_shape(shape)}", flush=True)
    torch.set_num_threads(cores())
    found_all = {"rounds": options.rounds, "cores": cores(), "limits": limits, "shapes": results}
    print("\n" + told(harness.environment() | found_all))
    harness.save(options.json, found_all)


def told(results: dict[str, Any]) -> str:
    """The section of docs/performance.md, from the results of a run."""
    limits = {int(threads): limit for threads, limit in results["limits"].items()}
    rates, widths = (
        " and ".join(f"{limit[key]:.0f}" for _, limit in sorted(limits.items())) for key in ("product", "bandwidth")
    )
    lines = [
        f"`python benchmarks/roofline.py` ({results['date']}, load average {results['load']:.1f} on {results['cores']}"
        " cores): GFLOP/s of the matrix products",
        "of an update, the best of the rounds; what `auto` takes is in bold. In the same run a product of 2048 x 2048",
        f"matrices had {rates} GFLOP/s and the memory {widths} GB/s, on {' and '.join(map(count, sorted(limits)))}.",
        "`memory` is the rate at which rows and weights could come from it and go back, once each, with all threads."
        + harness.caution(results),
        "",
        f"| shape | {' | '.join(COLUMNS)} | memory |",
        "|---|" + "---|" * (len(COLUMNS) + 1),
    ]
    said = []
    for one in results["shapes"]:
        engines, auto, name = one["engines"], one["auto"], name_of_shape(one["shape"])
        best = engines[auto]
        memory = best["operations"] / best["bytes"] * limits[results["cores"]]["bandwidth"]
        cells = [""] * len(COLUMNS)
        for engine, found in engines.items():
            mark = "**" if engine == auto else ""
            cells[COLUMNS.index(engine.removeprefix("twolayer "))] = f"{mark}{max(found['rates']):.3g}{mark}"
        lines.append(f"| {name} | {' | '.join(cells)} | {memory:.0f} |")
        reached, products = (
            max(each) / limits[best["threads"]]["product"] for each in (best["rates"], one["products"])
        )
        rest = "what `auto` does besides takes the rest" if products > reached else "`auto` is ahead of these"
        said.append(
            f"- **{name}**: {100 * reached:.0f} % of the large product on {count(best['threads'])}; PyTorch's products"
            f" of these sizes alone reach {100 * products:.0f} %, and {rest}."
        )
    return "\n".join([*lines, "", "What remains to the limit:", "", *said])


def count(threads: int) -> str:
    """One thread, or how many."""
    return "one thread" if threads == 1 else f"{threads} threads"


if __name__ == "__main__":
    main()
