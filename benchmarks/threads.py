"""What CPU threads are worth: small and large shapes with one thread and with all, and what `threads: auto` takes.

    python benchmarks/threads.py [rounds] [--json PATH]

Microseconds per iteration of `engine: auto`, medians of interleaved rounds; then the default config alone and twice at
the same time, as processes; then several threads by how often they spin; then `threads: auto` and one thread beside
processes that spin, one, two, five and twelve for each core, and that are started after the training.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import harness

from twolayer.config.loading import load_config
from twolayer.engines.factory import make_engine
from twolayer.engines.selection import operations
from twolayer.hardware.threads import cores, set_up
from twolayer.training.loop import Fit
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
BUSY_SHAPES = [  # and the engine
    ((5000, 20, 64, 1), "fused"),
    ((256, 256, 256, 16), "fused"),
    ((1000, 100, 100, 10), "fused"),
    ((350, 256, 256, 16), "fused"),
    ((500, 300, 300, 10), "fused"),
    ((2000, 200, 100, 3), "fused"),
    ((1024, 512, 512, 32), "fused"),
    ((2000, 50, 64, 1), "compiled"),
    ((50000, 20, 64, 1), "compiled"),
]
BUSY_GOAL = 2.0  # times as long with `auto` as with one thread
BUSY_SECONDS = 0.3
SPINS = [0, 100, 1000]
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


def at_once(processes: int, threads: int | str) -> list[float]:
    """Microseconds per iteration for several trainings at the same time, of the default config."""
    command = [TWOLAYER, "train", "--quiet", "--no-save", "--epochs", "30000", "--threads", str(threads)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    outputs = [process.communicate()[0] for process in started]
    found = [re.search(r"([\d.]+) (µs|ms|s) per iteration", output) for output in outputs]
    return [float(one[1]) * {"µs": 1, "ms": 1e3, "s": 1e6}[one[2]] for one in found if one]


class Trainer:
    """A training in a process of its own, which goes on for a while when it is asked to."""

    def __init__(self, shape: tuple[int, int, int, int], engine: str, threads: int, spins: int) -> None:
        command = [sys.executable, __file__, "train", *map(str, shape), engine, str(threads)]
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        environment["GOMP_SPINCOUNT"] = str(spins)
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.times: list[float] = []
        self.microseconds()

    def microseconds(self) -> float:
        """The time that an iteration takes now."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        """Let the process go."""
        self.process.communicate()


def train() -> None:
    """What a `Trainer`'s process does."""
    *sizes, engine, threads = sys.argv[2:]
    keys: dict[str, Any] = dict(zip(("N", "D_in", "H", "D_out"), map(int, sizes), strict=True))
    keys |= {"lr": 1e-9, "engine": engine, "threads": int(threads), "epochs": 10**9, "environment": {}}
    config, data, model = prepare(load_config("default", **keys))
    fit = Fit(model, data, config)
    next(fit)
    for _ in sys.stdin:
        start, before = time.perf_counter(), fit.done
        while fit.done == before or time.perf_counter() - start < BUSY_SECONDS:
            next(fit.pieces)
        print(1e6 * (time.perf_counter() - start) / (fit.done - before), flush=True)


def in_turn(trainers: Iterable[Trainer], rounds: int, others: int = 0) -> None:
    """Measure each in each round, while so many processes spin; then end them."""
    program = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(others)]
    try:
        for _ in range(rounds):
            for each in trainers:
                each.times.append(each.microseconds())
    finally:
        for process in spinning:
            process.kill()
            process.wait()
        for each in trainers:
            each.end()


def by_spins(rounds: int) -> list[dict[str, Any]]:
    """A row for each shape: all threads, by how often they spin before they sleep, and one thread."""
    rows = []
    for shape, engine in BUSY_SHAPES[2:6]:
        trainers = {str(spins): Trainer(shape, engine, cores(), spins) for spins in SPINS}
        trainers["1 thread"] = Trainer(shape, engine, 1, SPINS[-1])
        in_turn(trainers.values(), rounds)
        rows.append({"spins": shape, "times": {name: each.times for name, each in trainers.items()}})
    return rows


def beside_others(rounds: int, others: int) -> list[dict[str, Any]]:
    """A row for each shape: with `threads: auto` and with one thread, in turn, while others spin."""
    rows = []
    for shape, engine in BUSY_SHAPES:
        keys: dict[str, Any] = dict(zip(("N", "D_in", "H", "D_out"), shape, strict=True))
        auto = int(prepare(load_config("default", **keys, engine=engine, environment={}))[0].threads)
        trainers = {"auto": Trainer(shape, engine, auto, SPINS[-1]), "1": Trainer(shape, engine, 1, SPINS[-1])}
        in_turn(trainers.values(), rounds, others)
        times = {name: each.times for name, each in trainers.items()}
        rows.append({"busy": shape, "engine": engine, "others": others, "threads": auto, "times": times})
    return rows


def name_of(shape: Sequence[int]) -> str:
    """A shape in words."""
    N, D_in, H, D_out = shape
    return f"{N} x {D_in} -> {H} -> {D_out}"


def main() -> None:
    """Measure and print the tables."""
    if sys.argv[1:2] == ["train"]:
        train()
        return
    options = harness.options(__doc__ or "", rounds=7)
    if "GOMP_SPINCOUNT" not in os.environ:  # as the command sets it; it is read when torch is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"GOMP_SPINCOUNT": str(SPINS[-1])})
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
        name, millions = name_of(shape), operations(config) / 1e6
        print(f"| {name} | {config.form} | {millions:.3g} | {one:.4g} | {more:.4g} | {config.threads} |", flush=True)
        results.append({"shape": name, "operations": operations(config), "times": measures, "cost": cost})

    print("\n| threads each | alone | two at once |\n|---|---|---|")
    for each in ("auto", cores()):
        alone, both = at_once(1, each), at_once(2, each)
        print(f"| {each} | {alone[0]:.3g} | {both[0]:.3g} and {both[1]:.3g} |", flush=True)
        results.append({"threads": each, "alone": alone, "two at once": both})

    print(f"\n| {cores()} threads | {' | '.join(f'{spins} spins' for spins in SPINS)} | 1 thread |")
    print("|---|" + "---|" * (len(SPINS) + 1))
    for row in by_spins(options.rounds):
        print(
            f"| {name_of(row['spins'])} | " + " | ".join(f"{statistics.median(t):.4g}" for t in row["times"].values())
        )
        results.append(row)

    print("\n| beside others | engine | others | auto takes | auto | 1 thread | auto / 1 thread | at most 2 |")
    print("|---|---|---|---|---|---|---|---|")
    for row in (
        row
        for others in (cores(), 2 * cores(), 5 * cores(), 12 * cores())
        for row in beside_others(max(3, options.rounds), others)
    ):
        auto, one = row["times"].values()
        ratio = statistics.median(a / b for a, b in zip(auto, one, strict=True))
        cells = f"{row['threads']} | {statistics.median(auto):.4g} | {statistics.median(one):.4g} | {ratio:.2f}"
        met = "yes" if ratio <= BUSY_GOAL else "NO"
        print(f"| {name_of(row['busy'])} | {row['engine']} | {row['others']} | {cells} | {met} |", flush=True)
        results.append(row | {"ratio": ratio})
    harness.save(options.json, {"results": results})


if __name__ == "__main__":
    main()
