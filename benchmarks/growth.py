"""How the cost grows: microseconds per iteration against N, D_in and H, beside the operations in an iteration.

    python benchmarks/growth.py [rounds] [--json PATH]

With `engine: auto`, around the default 64 x 1000 -> 100 -> 10, one size changed at a time; the loop alone, of an engine
that is made beforehand. Medians of interleaved rounds.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

import harness
import torch

from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.base import Engine
from twolayer.engines.factory import make_engine
from twolayer.engines.selection import operations
from twolayer.errors import ConfigError
from twolayer.training.setup import prepare

CENTRE = {"N": 64, "D_in": 1000, "H": 100, "D_out": 10}
SIZES = {
    "N": (4, 16, 64, 256, 1024, 4096, 16384),
    "D_in": (10, 32, 100, 320, 1000, 3200, 10000, 32000),
    "H": (3, 10, 32, 100, 320, 1000, 3200, 10000),
}
SECONDS = 0.2  # that a measure takes
CORES = torch.get_num_threads()


@dataclass
class Point:
    """One size of one of the three, and the microseconds per iteration, round by round."""

    of: str
    size: int
    config: Config
    engine: Engine
    iterations: int = 1
    times: list[float] = field(default_factory=list)

    def seconds(self, iterations: int) -> float:
        """The time that a number of iterations takes."""
        assert isinstance(self.config.threads, int)
        torch.set_num_threads(self.config.threads)
        harness.settle()
        start = time.perf_counter()
        self.engine.advance(iterations)
        taken = time.perf_counter() - start
        torch.set_num_threads(CORES)
        return taken

    def calibrate(self) -> None:
        """Choose the iterations, doubled until they take a good part of the time; this warms up, too."""
        while (taken := self.seconds(self.iterations)) < SECONDS / 4:
            self.iterations *= 2
        self.iterations = max(1, round(self.iterations * SECONDS / taken))


def point(of: str, size: int) -> Point:
    """The engine that `auto` chooses for this size, on its data."""
    config = load_config("default", **CENTRE | {of: size}, lr=1e-9, environment={})  # no size diverges
    config, data, model = prepare(config)
    before = torch.get_num_threads()
    assert isinstance(config.threads, int)
    torch.set_num_threads(config.threads)
    engine = make_engine(model, data, config)
    torch.set_num_threads(before)
    return Point(of, size, config, engine)


def main() -> None:
    """Measure every size in turn, round after round, and print a table for each of the three."""
    options = harness.options(__doc__ or "", rounds=7)
    points = []
    for of, sizes in SIZES.items():
        for size in sizes:
            try:
                points.append(point(of, size))
            except ConfigError as error:  # too large for this machine
                print(error)
    for one in points:
        one.calibrate()
    for _ in range(options.rounds):
        for one in points:
            one.times.append(round(one.seconds(one.iterations) / one.iterations * 1e6, 3))

    results = []
    for of in SIZES:
        fixed = ", ".join(f"{name} = {size}" for name, size in CENTRE.items() if name != of)
        print(f"\n{fixed}; {options.rounds} rounds\n")
        print(f"| {of} | form | threads | million operations | µs per iteration | min | max | GFLOP/s |")
        print("|---|---|---|---|---|---|---|---|")
        for one in points:
            if one.of != of:
                continue
            count, median = operations(one.config), statistics.median(one.times)
            print(f"| {one.size} | {one.config.form} | {one.config.threads} | {count / 1e6:.4g}", end=" ")
            print(f"| {median:.4g} | {min(one.times):.4g} | {max(one.times):.4g} | {count / median / 1e3:.3g} |")
            form = {"form": one.config.form, "threads": one.config.threads}
            results.append({"of": of, "size": one.size, **form, "operations": count, "times": one.times})
    harness.save(options.json, {"rounds": options.rounds, "centre": CENTRE, "points": results})


if __name__ == "__main__":
    main()
