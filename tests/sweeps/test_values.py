"""The values that --sweep and --seeds give: lists, ranges, brackets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twolayer.sweeps import values


def texts(option: str) -> list[str]:
    axis, problems = values.parse(option)
    assert not problems
    assert axis is not None
    return [choice.override.text for choice in axis.choices]


def problem(option: str) -> str:
    axis, problems = values.parse(option)
    assert axis is None
    return problems[0].message


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ("lr=1e-4,1e-3", ["1e-4", "1e-3"]),
        ("lr=auto", ["auto"]),
        ("H=16..64+16", ["16", "32", "48", "64"]),
        ("H=16..70+16", ["16", "32", "48", "64"]),
        ("H=16..256*5", ["16", "32", "64", "128", "256"]),
        ("seed=3..6", ["3", "4", "5", "6"]),
        ("H=8,16..32+8,100", ["8", "16", "24", "32", "100"]),
        ("data.noise=0.1..0.5+0.1", ["0.1", "0.2", "0.3", "0.4", "0.5"]),
        ("data.weights=[1,2],[3, 4]", ["[1,2]", "[3, 4]"]),
        ("data.weights=[[1],[2]],[[3],[4]]", ["[[1],[2]]", "[[3],[4]]"]),
        ('data.exclude="a,b",c', ['"a,b"', "c"]),
        ("data.path=../a.csv,b.csv", ["../a.csv", "b.csv"]),
    ],
)
def test_values_stand_between_commas_and_in_ranges(option: str, found: list[str]) -> None:
    assert texts(option) == found


def test_a_range_of_multiples_is_numpys_geomspace_and_its_ends_are_exact() -> None:
    found = list(map(float, texts("lr=1e-5..1e-2*7")))
    assert found == pytest.approx(np.geomspace(1e-5, 1e-2, 7), rel=5e-6)
    assert (found[0], found[-1], len(found)) == (1e-5, 1e-2, 7)
    assert found[2] == 1e-4  # which 10 ** (log10(1e-5) + 1) is not


@given(st.integers(1, 1000), st.integers(0, 500), st.integers(1, 50))
def test_a_range_of_steps_is_pythons_range(start: int, more: int, step: int) -> None:
    assert texts(f"H={start}..{start + more}+{step}") == [*map(str, range(start, start + more + 1, step))]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("lr", "must be KEY=VALUES"),
        ("=1", "must be KEY=VALUES"),
        ("lr=", "a value is missing"),
        ("lr=1,,2", "a value is missing"),
        ("lr=1e-5..1e-2", "does not say which values"),
        ("lr=1e-5..1e-2*", "is not a range"),
        ("lr=1e-5..1e-2*1", "2 to 100,000 values"),
        ("lr=0..1*5", "both ends are above zero"),
        ("H=64..16+16", "has no values"),
        ("H=16..64+0", "has no values"),
        ("H=1..1000000000000+1", "at most 100,000"),
        ("H=1..4*10", "only 4 different ones"),
        ("H=1.5..4+1", "must be a whole number"),
        ("data={source: random}", "vary the keys inside data"),
    ],
)
def test_what_is_wrong_with_values_is_said(option: str, message: str) -> None:
    assert message in problem(option)


def test_seeds_are_so_many_from_the_first_or_a_list() -> None:
    def seeds(text: str) -> list[int]:
        axis, problems = values.seeds(text, 5)
        assert axis is not None, problems
        return [int(choice.override.text) for choice in axis.choices]

    assert seeds("3") == [5, 6, 7]
    assert seeds("3,7,11") == [3, 7, 11]
    assert seeds("3,") == [3]
    assert seeds("0..2,9") == [0, 1, 2, 9]
    for wrong in ("0", "100001", "3,,4", "1" * 5000, ""):
        axis, problems = values.seeds(wrong, 5)
        assert axis is None
        assert problems
