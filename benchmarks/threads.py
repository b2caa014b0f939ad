"""What CPU threads are worth: small and large shapes with one thread and with all, and what `threads: auto` takes.

    python benchmarks/threads.py [rounds] [--json PATH]

Microseconds per iteration of `engine: auto`, medians of interleaved rounds; then the default config alone and twice at
the same time, as processes.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

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


def at_once(processes: int, threads: int | str) -> list[float]:
    """Microseconds per iteration for several trainings of the default config at the same time."""
    command = [str(Path(sys.executable).with_name("twolayer")), "train", "--quiet", "--epochs", "30000"]
    started = [
        subprocess.Popen([*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    outputs = [process.communicate()[0] for process in started]
    return [float(found[1]) for output in outputs if (found := re.search(r"([\d.]+) µs per iteration", output))]


def main() -> None:
    """Measure and print both tables."""
    options = harness.options(__doc__ or "", rounds=7)
    print(f"{cores()} cores\n\n| shape | form | million operations | 1 thread | {cores()} threads | auto chooses |")
    print("|---|---|---|---|---|---|")
    results = []
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
    harness.save(options.json, {"results": results})


if __name__ == "__main__":
    main()
