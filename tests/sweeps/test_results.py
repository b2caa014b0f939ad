"""sweep.csv written and read again, and how results spread over seeds."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.published import published
from twolayer.config.loading import load_config
from twolayer.sweeps import results, statistics
from twolayer.sweeps.points import Base, plan
from twolayer.sweeps.published import curve_of
from twolayer.sweeps.results import Result

PLAN = plan(Base("modules", environment={}), ["lr=1e-4,1e-3", "data.noise=0.5,1"], "3")
FOUND = [
    Result(point, "completed", {"final_loss": 1 / point.number, "iterations": 200, "seconds": 0.1}, point.name)
    for point in PLAN.points[:-2]
]
FOUND += [
    Result(PLAN.points[-2], "diverged", {"iterations": 3, "first_loss": 1.5}, "x"),
    Result(PLAN.points[-1], "failed", {}, "", '=1+1: no such thing, "really"'),
]


def test_a_table_is_read_back_and_a_line_that_was_cut_off_is_left_out() -> None:
    text = results.table(PLAN, FOUND)
    assert results.read_table(PLAN, text) == (FOUND, "")
    for cut in range(text.rindex("\n", 0, -1) + 1, len(text)):
        assert results.read_table(PLAN, text[:cut]) == (FOUND[:-1], "")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(row["final_loss"]) for row in rows[:-2]] == [1 / number for number in range(1, 11)]
    assert rows[-1]["error"].startswith("'=1+1")  # which no spreadsheet takes for a formula


def test_a_damaged_table_is_said_to_be_one() -> None:
    text = results.table(PLAN, FOUND)
    assert results.read_table(PLAN, "a,b\n" + text)[1] == "is damaged: it does not have the columns of this sweep"
    assert results.read_table(PLAN, '"' + text.replace("\n", "x" * 200_000 + "\n"))[1] == "is damaged after row 0"
    for path in ("../x", "/x", "..", "a/b"):  # no other folder than one in the sweep is read
        elsewhere = results.table(PLAN, [Result(PLAN.points[0], "completed", {}, path), *FOUND[1:]])
        assert results.read_table(PLAN, elsewhere) == ([], "is damaged after row 0")
    lines = text.splitlines(keepends=True)
    found, problem = results.read_table(PLAN, "".join([*lines[:3], "1,2\n", *lines[3:]]))
    assert (found, problem) == (FOUND[:2], "is damaged after row 2")


def test_points_are_ranked_by_the_validation_loss_else_the_final_loss() -> None:
    assert [result.point.number for result in results.ranked(FOUND)] == [*range(10, 0, -1), 11, 12]
    scored = [Result(r.point, r.status, {**r.figures, "final_val_loss": float(r.point.number)}) for r in FOUND]
    assert [result.point.number for result in results.ranked(scored)] == [*range(1, 13)]


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=30), st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], part: float) -> None:
    assert statistics.quantile(sorted(values), part) == pytest.approx(
        float(np.quantile(values, part)), rel=1e-9, abs=1e-9
    )


def test_the_spread_over_seeds_is_that_of_each_group() -> None:
    groups = statistics.groups(FOUND)
    assert [(group.values["lr"], group.values["data.noise"]) for group in groups] == [
        (1e-4, 0.5), (1e-4, 1.0), (1e-3, 0.5), (1e-3, 1.0),
    ]  # fmt: skip
    spread = statistics.spread(groups[0].results, "final_loss")
    assert spread is not None
    assert (spread.least, spread.median, spread.largest, spread.without) == (1 / 3, 1 / 2, 1, 0)
    last = statistics.spread(groups[-1].results, "final_loss")
    assert last is not None
    assert (last.count, last.without) == (1, 2)
    assert statistics.spread(groups[-1].results[1:], "final_loss") is None


@pytest.mark.parametrize(("name", "column"), [("scratch", "scratch_loss"), ("modules", "modules_loss")])
def test_the_published_curve_is_known_by_what_is_computed(name: str, column: str) -> None:
    found = curve_of(load_config(name, environment={}, seed=7, engine="fused", epochs=300))
    assert found is not None
    assert list(found.losses.values()) == published("torch_for_r_losses.csv", column)
    assert list(found.losses) == published("torch_for_r_losses.csv", "iteration")
    assert curve_of(load_config(name, environment={}, lr=1e-3)) is None
