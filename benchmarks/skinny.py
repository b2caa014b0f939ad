"""Many rows of few columns, full batch, 20 -> 64 -> 1: an iteration of ours and of the loop by hand, and its memory.

    python benchmarks/skinny.py [rounds] [--json PATH]

Each figure is a process of its own: milliseconds per iteration, CPU time of them, and the most memory it had. The loop
by hand keeps several hidden layers of all rows, which is 8 GiB for ten million: it is measured with two million.
`python benchmarks/skinny.py PROGRAM ROWS THREADS` is one of the processes.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import harness
import torch
from torch import nn

from twolayer.config.loading import load_config
from twolayer.engines.factory import make_engine
from twolayer.hardware.threads import cores, set_up
from twolayer.training.setup import prepare

D_in, H, D_out, LR, ITERATIONS = 20, 64, 1, 1e-9, 5
FEW, MANY = 2_000_000, 10_000_000
PROGRAMS = [("auto", FEW), ("fused", FEW), ("by hand", FEW), ("auto", MANY), ("fused", MANY)]


def measured(train: Callable[[int], object]) -> None:
    """Print the milliseconds per iteration, those of the CPU, and MiB."""
    train(1)
    start, cpu = time.perf_counter(), time.process_time()
    train(ITERATIONS)
    taken, cpu = time.perf_counter() - start, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(1e3 * taken / ITERATIONS, 1e3 * cpu / ITERATIONS, memory)


def by_engine(engine: str, rows: int, threads: int) -> None:
    """One of ours, or what `auto` takes for a long training."""
    keys: dict[str, Any] = {"N": rows, "D_in": D_in, "H": H, "D_out": D_out, "lr": LR, "epochs": 10_000}
    config, data, model = prepare(load_config("default", **keys, engine=engine, threads=threads, environment={}))
    with set_up(config):
        measured(make_engine(model, data, config).advance)
    print(config.engine)


def by_hand(rows: int, threads: int) -> None:
    """The book's loop."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, y = torch.randn(rows, D_in), torch.randn(rows, D_out)
    model, loss_fn = nn.Sequential(nn.Linear(D_in, H), nn.ReLU(), nn.Linear(H, D_out)), nn.MSELoss(reduction="sum")

    def train(iterations: int) -> None:
        for _ in range(iterations):
            loss = loss_fn(model(x), y)
            loss.item()
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= LR * p.grad  # type: ignore[misc, operator]

    measured(train)
    print("by hand")


def main() -> None:
    """One of the processes, or all in turn."""
    if len(sys.argv) == 4 and sys.argv[3].isdigit():
        program, rows, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        by_hand(rows, threads) if program == "by hand" else by_engine(program, rows, threads)
        return
    options = harness.options(__doc__ or "", rounds=3)
    every = [(*one, threads) for threads in sorted({1, cores()}) for one in PROGRAMS]
    found: dict[tuple[str, int, int], list[list[float]]] = {one: [] for one in every}
    names = {}
    for _ in range(options.rounds):
        for one in every:
            command = [sys.executable, __file__, *map(str, one)]
            figures, name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            found[one].append([float(word) for word in figures.split()])
            names[one] = f"auto: {name}" if one[0] == "auto" else name
    print("| rows | program | threads | ms per iteration | CPU ms | MiB |\n|---|---|---|---|---|---|")
    for (program, rows, threads), each in found.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*each, strict=True))
        name = names[program, rows, threads]
        print(f"| {rows:,} | {name} | {threads} | {wall:.0f} | {cpu:.0f} | {memory:.0f} |")
    programs = [{"program": one, "ran": names[one], "figures": each} for one, each in found.items()]
    harness.save(options.json, {"rounds": options.rounds, "programs": programs})


if __name__ == "__main__":
    main()
