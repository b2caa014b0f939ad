"""What CPU threads are worth: small and large shapes with one thread and with all, and what `threads: auto` takes.

    python benchmarks/threads.py [rounds] [--json PATH]

Microseconds per iteration of `engine: auto`, medians of interleaved rounds; then the default config alone and twice at
the same time, as processes; then processes beside others that spin, one for each core: `threads: auto` and one thread.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness

from twolayer.config.loading import load_config
from twolayer.engines.factory import make_engine
from twolayer.engines.selection import operations
from twolayer.hardware.threads import cores, set_up
from twolayer.training.setup import prepare

SHAPES = [
    (100, 3, 32, 1),
    (64, 300, 60, 10),
    (64, 1000, 100, 10),
    (64, 20000, 256, 10),
    (1000, 20, 64, 1),
    (5000, 20, 64, 1),
    (256, 256, 256, 16),
    (1000, 100, 100, 10),
    (256, 5000, 512, 16),
    (20000, 20, 64, 1),
    (500, 300, 300, 10),
    (50000, 20, 64, 1),
    (1024, 512, 512, 32),
    (4096, 1024, 1024, 64),
]
SECONDS = 0.1  # minimum per measurement
BUSY_SHAPES = [
    (64, 20000, 256, 10),
    (1000, 20, 64, 1),
    (5000, 20, 64, 1),
    (256, 256, 256, 16),
    (1000, 100, 100, 10),
    (500, 300, 300, 10),
]
BUSY_OPERATIONS, BUSY_GOAL = 5e9, 2.0  # about a tenth of a second; times as long with `auto` as with one thread
TWOLAYER = str(Path(sys.executable).with_name("twolayer"))


def microseconds(shape: tuple[int, int, int, int], threads: int) -> float:
    """Microseconds per iteration."""
    N, D_in, H, D_out = shape
    config = load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, lr=1e-9, threads=threads, environment={})
    config, data, model = prepare(config)
    with set_up(config):
        engine, count, seconds = make_engine(model, data, config), 1, 0.0
        engine.advance(1)
        while seconds < SECONDS:
            count *= 2
            start = time.perf_counter()
            engine.advance(count)
            seconds = time.perf_counter() - start
    return 1e6 * seconds / count


def at_once(processes: int, threads: int | str, *more: str) -> list[float]:
    """Microseconds per iteration for several trainings at the same time, of the default config unless told more."""
    command = [TWOLAYER, "train", "--quiet", "--no-save", "--epochs", "30000", "--threads", str(threads), *more]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    outputs = [process.communicate()[0] for process in started]
    found = [re.search(r"([\d.]+) (µs|ms|s) per iteration", output) for output in outputs]
    return [float(one[1]) * {"µs": 1, "ms": 1e3, "s": 1e6}[one[2]] for one in found if one]


def beside_others(rounds: int) -> list[dict[str, Any]]:
    """A row for each shape: with `threads: auto` and with one thread, in turn, while others spin on each core."""
    program = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(cores())]
    rows = []
    try:
        for shape in BUSY_SHAPES:
            keys = dict(zip(("N", "D_in", "H", "D_out"), shape, strict=True))
            config = prepare(load_config("default", **keys, environment={}))[0]
            more = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
            more += ["--lr", "1e-9", "--epochs", str(round(BUSY_OPERATIONS / operations(config)))]
            times: dict[str, list[float]] = {"auto": [], "1": []}
            for _ in range(rounds):
                for threads, taken in times.items():
                    taken += at_once(1, threads, *more)
            rows.append({"busy": shape, "threads": config.threads, "times": times})
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    return rows


def main() -> None:
    """Measure and print both tables."""
    options = harness.options(__doc__ or "", rounds=7)
    print(f"{cores()} cores\n\n| shape | form | million operations | 1 thread | {cores()} threads | auto chooses |")
    print("|---|---|---|---|---|---|")
    results: list[dict[str, Any]] = []
    for shape in SHAPES:
        measures: dict[int, list[float]] = {1: [], cores(): []}
        for _ in range(options.rounds):
            for threads, times in measures.items():
                harness.settle()
                times.append(microseconds(shape, threads))
        N, D_in, H, D_out = shape
        config = prepare(load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, environment={}))[0]
        one, more = (statistics.median(times) for times in measures.values())
        cost = (one if config.threads == 1 else more) / min(one, more)
        name, millions = f"{N} x {D_in} -> {H} -> {D_out}", operations(config) / 1e6
        print(f"| {name} | {config.form} | {millions:.3g} | {one:.4g} | {more:.4g} | {config.threads} |", flush=True)
        results.append({"shape": name, "operations": operations(config), "times": measures, "cost": cost})

    print("\n| threads each | alone | two at once |\n|---|---|---|")
    for each in ("auto", cores()):
        alone, both = at_once(1, each), at_once(2, each)
        print(f"| {each} | {alone[0]:.3g} | {both[0]:.3g} and {both[1]:.3g} |", flush=True)
        results.append({"threads": each, "alone": alone, "two at once": both})

    print("\n| beside others | auto takes | auto | 1 thread | auto / 1 thread | at most 2 |\n|---|---|---|---|---|---|")
    for row in beside_others(max(3, options.rounds // 2)):
        auto, one = row["times"].values()
        ratio = statistics.median(a / b for a, b in zip(auto, one, strict=True))
        N, D_in, H, D_out = row["busy"]
        cells = f"{row['threads']} | {statistics.median(auto):.4g} | {statistics.median(one):.4g} | {ratio:.2f}"
        print(f"| {N} x {D_in} -> {H} -> {D_out} | {cells} | {'yes' if ratio <= BUSY_GOAL else 'NO'} |", flush=True)
        results.append(row | {"ratio": ratio})
    harness.save(options.json, {"results": results})


if __name__ == "__main__":
    main()
