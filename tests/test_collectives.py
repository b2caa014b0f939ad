"""The simulation in benchmarks/collectives.py: it computes sums, as the formulas say, and is of what is exchanged."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from twolayer.engines.parts import Group, Sum

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("collectives", ROOT / "benchmarks" / "collectives.py")
assert _spec is not None
assert _spec.loader is not None
collectives: Any = importlib.util.module_from_spec(_spec)
sys.modules["collectives"] = collectives
_spec.loader.exec_module(collectives)

WAYS = {way.name: way for way in collectives.WAYS}
NUMBERS, LATENCY, BANDWIDTH = 2**18, 50e-6, 1.25e9  # those of the docs


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("W", [2, 3, 4, 5, 7, 8, 12, 16])
def test_each_rank_ends_with_the_numbers_of_all_ranks_once(way: str, W: int) -> None:
    for row in collectives.contents(WAYS[way], W):
        if way == "as it is":
            assert row == list(range(W))
        else:
            assert all(sorted(collectives.added(held)) == list(range(W)) for held in row)


@pytest.mark.parametrize("W", [2, 4, 16])
def test_a_tree_of_a_power_of_two_adds_neighbours_first_as_parts_do(W: int) -> None:
    def tree(first: int, end: int) -> Any:
        middle = (first + end) // 2
        return first if end - first == 1 else (tree(first, middle), tree(middle, end))

    assert all(held == tree(0, W) for row in collectives.contents(WAYS["slices by a tree"], W) for held in row)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("W", [2, 3, 4, 6, 13, 64])
def test_times_and_volumes_are_those_of_the_formulas(way: str, W: int) -> None:
    for latency, bandwidth in ((LATENCY, BANDWIDTH), (0, 1e8), (1e-3, 1e15)):
        network = collectives.Network(latency, bandwidth)
        found = collectives.simulate(WAYS[way], W, NUMBERS, network)
        assert found == pytest.approx(WAYS[way].formula(W, NUMBERS, network), rel=1e-9)
    varying, _ = collectives.simulate(WAYS[way], W, NUMBERS, collectives.Network(LATENCY, BANDWIDTH, varying=True))
    assert varying != pytest.approx(found[0], rel=1e-3)


class Counting:
    """A group that counts what a rank receives."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.received = rank, size, 0

    def gather(self, own: Tensor, all_: Sequence[Tensor]) -> None:
        self.received += sum(tensor.nbytes for tensor in all_) - own.nbytes

    def broadcast(self, tensor: Tensor, source: int) -> None:
        raise AssertionError

    def give(self, tensor: Tensor, source: int) -> None:
        raise AssertionError

    def first(self, size: int) -> Group:
        raise AssertionError


@pytest.mark.parametrize(("W", "nodes"), [(2, 1), (3, 3), (4, 1), (6, 2), (12, 1)])
def test_of_12_parts_a_rank_receives_what_the_simulation_says_once_for_each_node(W: int, nodes: int) -> None:
    group = Counting(W - 1, W)
    Sum(640, 12, torch.zeros(0), group)(lambda index, slot: slot.zero_())
    assert group.received == nodes * collectives.simulate(WAYS["as it is"], W, 640, collectives.Network(1, 1))[1]


def test_the_docs_have_these_figures() -> None:
    text = (ROOT / "docs" / "ranks.md").read_text()
    rows = re.findall(r"^\| (64|1,000|10,000) \| (.+?) \| (\S+) (MB|GB) \| (\S+) (ms|s) \|", text, flags=re.M)
    assert [(W, way) for W, way, *_ in rows] == [(W, way) for W in ("64", "1,000", "10,000") for way in WAYS]
    network = collectives.Network(LATENCY, BANDWIDTH)
    for W, way, volume, of_volume, time, of_time in rows:
        seconds, received = WAYS[way].formula(int(W.replace(",", "")), NUMBERS, network)
        assert float(volume) * {"MB": 1e6, "GB": 1e9}[of_volume] == pytest.approx(received, rel=0.006)
        assert float(time) * {"ms": 1e-3, "s": 1}[of_time] == pytest.approx(seconds, rel=0.006)
