"""The scaling, on one rank: on several see tests/cli/test_ranks.py."""

from __future__ import annotations

from typing import Any

import pytest

from twolayer.config.loading import load_config
from twolayer.errors import DivergedError
from twolayer.hardware import device, memory
from twolayer.training import benchmark
from twolayer.training.pace import one_process
from twolayer.training.scaling import Measured, Scaling


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "ROUND_SECONDS", 0.002)


def scaling(**values: Any) -> Scaling:
    return Scaling(load_config("default", parts=4, **values), None, None, [1])


@pytest.mark.parametrize("values", [{}, {"batch_size": 8, "lr": "auto"}])
def test_one_rank_is_the_measure_of_all(values: dict[str, Any]) -> None:
    timed = scaling(N=40, D_in=6, **values)
    assert list(timed.rounds(3)) == [1, 2, 3]
    one, alone = timed.rows()
    assert (one["speed_up"], one["efficiency"], one["same_bits"], one["exchanging_us"]) == (1, 1, True, 0)
    assert alone["speed_up"] == pytest.approx(one["median_us"] / alone["median_us"])
    assert one["min_us"] <= one["median_us"] <= one["max_us"]
    assert (alone["ranks"], alone["parts"], alone["same_bits"]) == (1, None, None)
    other = Measured(timed.config, 2, losses=[[*max(timed.ranks[0].losses, key=len), 1.0]])
    assert timed.has_same_bits(other)  # as far as both have losses
    timed.ranks[0].losses[-1][2] *= 1 + 2**-23
    assert not timed.has_same_bits(timed.ranks[0])


def test_one_process_that_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("default", N=40, D_in=6, parts=4)
    need = memory.beside_data(one_process(config))
    monkeypatch.setattr(device, "free_memory", lambda name: need / 0.89)
    assert Scaling(config, None, None, [1]).alone is not None
    monkeypatch.setattr(device, "free_memory", lambda name: need / 0.91)
    timed = Scaling(config, None, None, [1])
    assert timed.alone is None
    assert list(timed.rounds(1)) == [1]
    assert [row["parts"] for row in timed.rows()] == [4]


def test_losses_that_diverge_end_it() -> None:
    with pytest.raises(DivergedError):
        list(scaling(lr=1e6).rounds(1))
