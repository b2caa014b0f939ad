"""Every engine on a GPU beside the loops that one writes by hand: microseconds per iteration, and a page of them.

    python benchmarks/gpu.py [rounds] [--device cuda] [--json PATH] [--page PATH]

Five shapes, full batch, and a batch of a table; float32. `by hand` is the book's loop, `SGD` the one with
torch.optim.SGD, `compiled, CPU` the compiled engine on this machine's CPU. The paths default to
benchmarks/results/gpu-<name>.json and docs/gpu-<name>.md. Ends with 1, and one line, where there is no such device.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import torch
from torch import nn

from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.factory import make_engine
from twolayer.engines.selection import operations
from twolayer.errors import TwolayerError
from twolayer.hardware.device import device_name, resolve_device
from twolayer.hardware.threads import set_up
from twolayer.training.benchmark import MatmulRate, clock
from twolayer.training.setup import prepare

SMALL = (64, 1000, 100, 10)
LARGE = (65536, 4096, 4096, 64)
SHAPES = [(SMALL, 1e-4), ((100, 3, 32, 1), 1e-4), ((64, 20000, 256, 10), 1e-6), ((4096, 1024, 1024, 64), 1e-8)]
SHAPES += [(LARGE, 1e-10)]
TABLE, BATCH = (50000, 20, 64, 1), 256
GOALS = {SMALL: ("microseconds an iteration", 30.0), LARGE: ("share of the rate of large products", 0.8)}
ROUND, BUDGET = 0.3, 360.0  # seconds of a round, and of all of it: `make gpu` has two minutes more for the rest

Work = Callable[[int], object]  # does n iterations, to the last update


def engine(config: Config) -> Work:
    """One of ours; with batches a call is an update on one of them, over and over."""
    resolved, data, model = prepare(config)
    made: Any = make_engine(model, data, resolved)
    if config.batch_size is None:
        return lambda count: made.advance(count)
    batches = torch.split(torch.arange(config.N, device=data.x.device), config.batch_size)[:-1]
    losses = data.y.new_empty(len(batches))

    def train(count: int) -> None:
        for start in range(0, count, len(batches)):
            n = min(len(batches), count - start)
            made.updates(batches[:n], losses[:n])

    return train


def loop(config: Config, *, sgd: bool) -> Work:
    """The loop as one writes it, by hand or with torch.optim.SGD; the losses stay on the device."""
    _, data, model = prepare(config.model_copy(update={"engine": "autograd"}))
    loss_fn, lr = nn.MSELoss(reduction=config.reduction), float(config.lr)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    batches = [(data.x, data.y)]
    if config.batch_size is not None:
        batches = [*zip(torch.split(data.x, config.batch_size), torch.split(data.y, config.batch_size), strict=True)]

    def train(count: int) -> None:
        for step in range(count):
            x, y = batches[step % len(batches)]
            loss = loss_fn(model(x), y)
            model.zero_grad()
            loss.backward()
            if sgd:
                optimizer.step()
                continue
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= lr * parameter.grad  # type: ignore[misc, operator]

    return train


def programs(config: Config) -> Iterator[tuple[str, Config, Callable[[Config], Work]]]:
    """The programs of a shape: name, config, and what sets it up."""
    yield "by hand", config, lambda one: loop(one, sgd=False)
    yield "SGD", config, lambda one: loop(one, sgd=True)
    for name, changes in (
        ("autograd", {"engine": "autograd"}),
        ("manual", {"engine": "manual"}),
        ("fused primal", {"engine": "fused", "form": "primal"}),
        ("fused primal, no graph", {"engine": "fused", "form": "primal", "cuda_graph": False}),
        ("fused primal, tf32", {"engine": "fused", "form": "primal", "precision": "tf32"}),
        ("fused dual", {"engine": "fused", "form": "dual"}),
        ("fused dual, no graph", {"engine": "fused", "form": "dual", "cuda_graph": False}),
        ("compiled, CPU", {"engine": "compiled", "device": "cpu"}),
    ):
        is_dual = changes.get("form") == "dual"
        if is_dual and (config.batch_size is not None or 2 * config.D_in < config.N):
            continue
        if name == "compiled, CPU" and operations(config, config.batch_size) > 1e11:  # minutes on a CPU
            continue
        if config.batch_size is not None and "graph" in name:
            continue
        yield name, config.model_copy(update=changes), engine


def measure(config: Config, set_up_one: Callable[[Config], Work], rounds: int) -> list[float]:
    """Microseconds per iteration, for each round. Raises TwolayerError."""
    resolved = prepare(config)[0]
    with set_up(resolved):
        train = set_up_one(config)
        train(100 if operations(config, config.batch_size) < 1e10 else 2)  # to capture, compile and warm up
        start = clock(config.device)
        train(2)
        pace = max((clock(config.device) - start) / 2, 1e-6)
        count, found = max(2, int(ROUND / pace)), []
        for _ in range(rounds):
            start = clock(config.device)
            train(count)
            found.append((clock(config.device) - start) / count * 1e6)
    return found


def all_of(device: str, rounds: int, shapes: list[tuple[tuple[int, int, int, int], float]]) -> Iterator[dict[str, Any]]:
    """A row for each program at each shape, and for a batch of a table."""
    end = time.perf_counter() + BUDGET
    for shape, lr, batch in [*((shape, lr, None) for shape, lr in shapes), (TABLE, 1e-6, BATCH)]:
        N, D_in, H, D_out = shape
        base = load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, lr=lr, device=device, environment={})
        base = base.model_copy(update={"epochs": 1_000_000, "batch_size": batch})
        for name, config, set_up_one in programs(base):
            row: dict[str, Any] = {"shape": shape, "batch": batch, "program": name}
            if time.perf_counter() > end:
                yield row | {"error": "not measured: the time was up"}
                continue
            try:
                times = measure(config, set_up_one, rounds)
            except (TwolayerError, RuntimeError) as error:
                yield row | {"error": str(error).splitlines()[0]}
                continue
            rate = operations(prepare(config)[0], batch) / statistics.median(times) * 1e6
            yield row | {"microseconds": [round(value, 3) for value in times], "operations_per_second": rate}


def reached(rows: list[dict[str, Any]], products: float) -> Iterator[str]:
    """A line for each goal."""
    for shape, (what, goal) in GOALS.items():
        ours = [row for row in rows if row["shape"] == shape and str(row["program"]).startswith("fused")]
        exact = [row for row in ours if "microseconds" in row and "tf32" not in row["program"]]
        if not exact:
            continue
        share = goal < 1
        rates = [row["operations_per_second"] / products for row in exact]
        values = rates if share else [statistics.median(row["microseconds"]) for row in exact]
        value = max(values) if share else min(values)
        met = "met" if (value >= goal) == share else "NOT met"
        yield f"{' x '.join(map(str, shape))}: {what} {value:.3g}, goal {goal:g}: {met}"


def page(title: str, rows: list[dict[str, Any]], goals: list[str]) -> str:
    """The results as Markdown."""
    what = f"`make gpu`, PyTorch {torch.__version__}, float32. Microseconds per iteration."
    lines = [f"# Measured on {title}", "", what, ""]
    lines += ["| N x D_in -> H -> D_out | program | median | min | max |", "|---|---|---|---|---|"]
    for row in rows:
        shape = "{} x {} -> {} -> {}".format(*row["shape"]) + (f", batches of {row['batch']}" if row["batch"] else "")
        times = row.get("microseconds")
        figures = [f"{f(times):.4g}" for f in (statistics.median, min, max)] if times else [row["error"], "", ""]
        lines.append(f"| {shape} | {row['program']} | {' | '.join(figures)} |")
    return "\n".join([*lines, "", *(f"- {goal}" for goal in goals)]) + "\n"


def main() -> int:
    """Measure, print the page, and write it and the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="only the two smallest shapes, as a trial")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    try:
        device = resolve_device(options.device)
    except TwolayerError as error:
        print(f"nothing was measured: {error}")
        return 1
    title = device_name(device).partition("(")[2].rstrip(")") or device
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    product = MatmulRate(load_config("default", device=device, environment={}))
    for _ in range(options.rounds):
        product.measure()
    rows = list(all_of(device, options.rounds, SHAPES[:2] if options.small else SHAPES))
    goals = list(reached(rows, product.rate))
    text = page(title, rows, goals)
    print(text)
    results = {"gpu": title, "products_per_second": product.rate, "rows": rows, "goals": goals}
    harness.save(options.json or Path(f"benchmarks/results/gpu-{name}.json"), results)
    place = options.page or Path(f"docs/gpu-{name}.md")
    place.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
