from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from twolayer.history import Block, csv_row, jsonl_row


@given(st.integers(1, 10**6), st.integers(1, 200), st.integers(1, 50))
def test_every_takes_the_iterations_that_are_multiples(first: int, count: int, step: int) -> None:
    block = Block(first, tuple(float(first + i) for i in range(count)), 0.0)
    assert block.last == first + count - 1
    assert list(block.every(step)) == [(t, float(t)) for t in range(first, first + count) if t % step == 0]


def test_a_loss_that_is_not_finite_is_among_them_whatever_its_number() -> None:
    for step in (1, 2, 4):
        assert list(Block(1, (1.0, 2.0, math.inf), 0.0).every(step))[-1] == (3, math.inf)
        assert list(Block(1, (1.0, 2.0, 3.0, math.inf), 0.0).every(step))[-1] == (4, math.inf)


@given(st.floats(allow_nan=False))
def test_a_csv_row_reads_back_as_the_very_number(loss: float) -> None:
    iteration, text = csv_row((7, loss)).rstrip("\n").split(",")
    assert (int(iteration), float(text)) == (7, loss)


@given(st.floats())
def test_a_jsonl_row_is_json_and_null_where_json_has_no_number(loss: float) -> None:
    row = json.loads(jsonl_row(("iteration", "loss"), (7, loss)), parse_constant=lambda name: f"not JSON: {name}")
    assert row == {"iteration": 7, "loss": loss if math.isfinite(loss) else None}
