"""What is told before a training by ranks: times of what would really be done, and none that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from torch import Tensor

from twolayer.cli import ranks
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines import factory
from twolayer.engines.parts import Alone
from twolayer.engines.selection import ITEMSIZE, numba_works, weights
from twolayer.formatting import size
from twolayer.hardware import memory
from twolayer.hardware.launchers import Place
from twolayer.system import available_memory
from twolayer.training import pace as paces
from twolayer.training.loop import Fit
from twolayer.training.pace import Pace, one_process, pace
from twolayer.training.setup import prepare, resolve_auto

BATCHES = {"N": 512, "D_in": 8, "H": 32, "D_out": 1, "batch_size": 64, "epochs": 20_000, "lr": 1e-6}


class Deaf(Alone):
    """The first of two ranks, of which the other one never says anything."""

    rank, size = 0, 2

    def gather(self, own: Tensor, all_: Sequence[Tensor]) -> None:
        for tensor in all_:
            tensor.copy_(own)


def fit(**values: Any) -> Fit:
    config, data, model = prepare(load_config("default", parts=4, **values))
    return Fit(model, data, config, group=Deaf())


@pytest.mark.parametrize(
    ("values", "engine"),
    [
        ({}, "fused (dual)"),
        ({"form": "primal"}, "fused (dual)"),
        ({"split": "rows"}, "fused (dual)"),
        pytest.param(BATCHES, "compiled", marks=pytest.mark.skipif(not numba_works(), reason="numba is missing")),
    ],
)
def test_one_process_is_that_of_auto_without_parts(values: dict[str, Any], engine: str) -> None:
    one = one_process(resolve_auto(load_config("default", parts=4, **values)))
    assert one.engine_name == engine
    assert one == resolve_auto(load_config("default", **(values | {"form": "auto", "split": "auto"})))


@pytest.mark.skipif(not numba_works(), reason="numba is missing")
def test_what_is_timed_is_that_process_and_the_training_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Config] = []
    right = factory.make_engine

    def noted(model: Any, data: Any, config: Config, *group: Any) -> Any:
        made.append(config)
        return right(model, data, config, *group)

    monkeypatch.setattr(paces, "make_engine", noted)
    training = fit(**BATCHES)
    before = [parameter.clone() for parameter in training.model.parameters()]
    found = pace(training)
    assert found is not None
    assert found.computes is not None
    assert found.alone is not None
    assert min(found.computes, found.exchanges, found.alone) > 0
    assert [(config.engine, config.parts) for config in made] == [("compiled", 4), ("compiled", None)]
    assert all(one.equal(other) for one, other in zip(before, training.model.parameters(), strict=True))


def test_one_more_engine_is_counted_and_not_made_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    training = fit(N=512, D_in=16, H=512, D_out=2, lr=1e-9, split="units")
    config, one = training.config, one_process(training.config)
    data = 512 * 18 * ITEMSIZE["float32"]
    others = (weights(config) - weights(config) // 2) * ITEMSIZE["float32"]  # the first rank has all weights
    own, whole = memory.needed(config, 2) + others - data, memory.needed(one) - data
    assert own == memory.beside_data(config, 2) < whole == memory.beside_data(one)
    for free, computes, alone in ((whole / 0.89, True, True), (own / 0.89, True, False), (own / 0.91, False, False)):
        monkeypatch.setattr(available_memory, "available", lambda free=free: free)
        found = pace(training)
        assert found is not None
        assert (found.computes is not None, found.alone is not None) == (computes, alone)


def test_what_was_not_timed_is_said() -> None:
    config = load_config("default", parts=12, split="units")
    others, one = ranks.Others(Place(0, 2, 0, 2), 1, 1), one_process(config)

    def lines(computes: float | None, alone: float | None) -> list[str]:
        return list(ranks.pace_lines(others, config, Pace(computes, 4e-4, alone, one)))

    shared, timed = "2 ranks, 12 parts of units", "an update computes for 200 µs and exchanges for 400 µs"
    slower = "2 ranks make this slower: one process without parts, 1 thread, needs 500 µs"
    assert lines(2e-4, 7e-4) == [shared, timed]
    assert lines(2e-4, 5e-4) == [shared, timed, slower]
    need = size(memory.needed(one))
    assert lines(2e-4, None) == [
        shared, timed, f"one process without parts, 1 thread, is not timed: it needs {need} of memory",
    ]  # fmt: skip
    little = "an update exchanges for 400 µs; there is too little memory to time more of it"
    assert lines(None, None) == [shared, little]
