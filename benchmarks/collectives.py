"""Sums over many ranks, simulated message by message: how many bytes a rank receives, and how long it takes.

    python benchmarks/collectives.py [--latency 50e-6] [--bandwidth 1.25e9] [--numbers 262144] [--ranks 64 1000 10000]

A message of b bytes takes latency + b / bandwidth seconds. A rank sends one at a time and receives one at a time, both
at once, and a message starts when both its ends are free. Each rank has a vector of `numbers` float32; in the end each
has the sum of all. The vectors are cut into columns, and messages carry some of them; docs/ranks.md has the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
ITEMSIZE = 4


@dataclass(frozen=True)
class Network:
    """Seconds for each message, and bytes per second; `varying`: latencies are drawn, with this one as their mean."""

    latency: float
    bandwidth: float
    varying: bool = False


@dataclass(frozen=True)
class Step:
    """Messages that go at the same time: at most one from each rank, and one to each.

    Message i carries `count` columns from `first[i]` on. What comes is added, or else takes the place of what is there.
    """

    source: Array
    target: Array
    first: Array
    count: int
    added: bool


def gather(W: int) -> Iterator[Step]:
    """As it is, and as gloo does it: each vector, a column of its own, goes once around a ring."""
    ranks = np.arange(W)
    for step in range(W - 1):
        yield Step(ranks, (ranks + 1) % W, (ranks - step) % W, 1, False)


def slices(W: int) -> Iterator[Step]:
    """Each rank gets one of W slices from all others, adds it up, and sends it around a ring."""
    ranks = np.arange(W)
    for step in range(1, W):
        yield Step(ranks, (ranks + step) % W, (ranks + step) % W, 1, True)
    yield from gather(W)


def halving(W: int) -> Iterator[Step]:
    """Slices by a tree: neighbours exchange halves, then those of two ranks quarters, ...; and back again.

    Of W ranks P, a power of two, take part; the others first give their vector to a neighbour, and get the sum at last.
    """
    P = power_of_two(W)
    rest = np.arange(W - P)
    ranks = np.concatenate([2 * rest, np.arange(2 * len(rest), W)])  # those that take part
    none = np.zeros(len(rest), dtype=np.int64)
    if W > P:
        yield Step(2 * rest + 1, 2 * rest, none, P, True)
    own, places, distances = np.zeros(P, dtype=np.int64), np.arange(P), [2**k for k in range(P.bit_length() - 1)]
    firsts = []
    for distance in distances:
        half = P // (2 * distance)
        is_upper = (places // distance) % 2
        yield Step(ranks, ranks[places ^ distance], own + (1 - is_upper) * half, half, True)
        own = own + is_upper * half
        firsts.append(own)
    for distance, first in zip(reversed(distances), reversed(firsts), strict=True):
        yield Step(ranks, ranks[places ^ distance], first, P // (2 * distance), False)
    if W > P:
        yield Step(2 * rest, 2 * rest + 1, none, P, False)


def power_of_two(W: int) -> int:
    """The largest power of two that is at most W."""
    return int(1 << (W.bit_length() - 1))


@dataclass(frozen=True)
class Way:
    """A way to add up: its steps, how many columns there are, whether a column is a whole vector, and the formulas.

    Of W ranks: messages one after another, the vectors in these, and those that a rank receives at most.
    """

    name: str
    steps: Callable[[int], Iterator[Step]]
    columns: Callable[[int], int]
    is_whole: bool
    messages: Callable[[int], float]
    volume: Callable[[int], float]
    received: Callable[[int], float]

    def formula(self, W: int, numbers: int, network: Network) -> tuple[float, float]:
        """What `simulate` gives: seconds and bytes."""
        size = ITEMSIZE * numbers
        seconds = self.messages(W) * network.latency + self.volume(W) * size / network.bandwidth
        return seconds, self.received(W) * size


def _fold(W: int) -> int:
    """1 where some ranks have no part in the tree."""
    return int(power_of_two(W) < W)


WAYS = (
    Way("as it is", gather, lambda W: W, True, lambda W: W - 1, lambda W: W - 1, lambda W: W - 1),
    Way(
        "slices",
        slices,
        lambda W: W,
        False,
        lambda W: 2 * (W - 1),
        lambda W: 2 * (W - 1) / W,
        lambda W: 2 * (W - 1) / W,
    ),
    Way(
        "slices by a tree",
        halving,
        power_of_two,
        False,
        lambda W: 2 * (power_of_two(W).bit_length() - 1 + _fold(W)),
        lambda W: 2 * (1 - 1 / power_of_two(W) + _fold(W)),
        lambda W: 2 * (1 - 1 / power_of_two(W)) + _fold(W),
    ),
)


def simulate(way: Way, W: int, numbers: int, network: Network, seed: int = 0) -> tuple[float, float]:
    """The seconds until the last rank has the sum, and the bytes that the rank receives that receives most."""
    draw, size = np.random.default_rng(seed), ITEMSIZE * numbers / (1 if way.is_whole else way.columns(W))
    free, received = np.zeros(W), np.zeros(W)
    for step in way.steps(W):
        latency = network.latency * (draw.exponential(size=len(step.source)) if network.varying else 1)
        end = np.maximum(free[step.source], free[step.target]) + latency + step.count * size / network.bandwidth
        free[step.source] = end
        free[step.target] = np.maximum(free[step.target], end)
        received[step.target] += step.count * size
    return float(free.max()), float(received.max())


def contents(way: Way, W: int) -> list[list[Any]]:
    """What each rank has added up in the end, by column: a rank, a pair of such sums, or None."""
    columns = way.columns(W)
    held: list[list[Any]] = [
        [rank if not way.is_whole or column == rank else None for column in range(columns)] for rank in range(W)
    ]
    for step in way.steps(W):
        before = [row[:] for row in held]
        for source, target, first in zip(step.source, step.target, step.first, strict=True):
            for column in range(first, first + step.count):
                sent = before[source][column]
                held[target][column] = _sum(before[target][column], sent) if step.added else sent
    return held


def _sum(one: Any, other: Any) -> Any:
    """The pair of these, that with the lower rank first."""
    return (one, other) if min(added(one)) < min(added(other)) else (other, one)


def added(held: Any) -> list[int]:
    """The ranks in a sum, from left to right."""
    return [rank for part in held for rank in added(part)] if isinstance(held, tuple) else [held]


def main() -> None:
    """Print the table of docs/ranks.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--latency", type=float, default=50e-6, help="seconds; default: %(default)s")
    parser.add_argument("--bandwidth", type=float, default=1.25e9, help="bytes per second; default: %(default)s")
    parser.add_argument("--numbers", type=int, default=2**18, help="of a vector; default: %(default)s")
    parser.add_argument("--ranks", type=int, nargs="+", default=[64, 1000, 10_000])
    given = parser.parse_args()
    network = Network(given.latency, given.bandwidth)
    print("| ranks | how | MB received | formula, ms | simulated, ms | with varying latencies, ms |")
    print("|---|---|---|---|---|---|")
    for W in given.ranks:
        for way in WAYS:
            formula, _ = way.formula(W, given.numbers, network)
            seconds, received = simulate(way, W, given.numbers, network)
            varying, _ = simulate(way, W, given.numbers, Network(given.latency, given.bandwidth, varying=True))
            times = " | ".join(f"{1e3 * one:.3g}" for one in (formula, seconds, varying))
            print(f"| {W:,} | {way.name} | {received / 1e6:.3g} | {times} |", flush=True)


if __name__ == "__main__":
    main()
