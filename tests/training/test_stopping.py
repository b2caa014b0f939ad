"""A training that is stopped amid an update or an evaluation that takes long, which it does again when resumed."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from tests.helpers.oracles import same
from tests.helpers.trained import config_of
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.training import loop
from twolayer.training.loop import Fit
from twolayer.training.setup import prepare

Row = tuple[float, ...]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 0.0)  # an update at a time
    monkeypatch.setattr(selection, "PART", 64 * 100)  # and 100 rows of 64 hidden units


def fit_of(config: Config, *state: Any) -> Fit:
    full, data, model = prepare(config)
    return Fit(model, data, full, *state)


def result(fit: Fit, rows: list[Row]) -> tuple[list[Row], list[torch.Tensor]]:
    rows = [*rows, *(row for piece in fit.pieces for row in piece.every(1))]
    fit.finish()
    return rows, [parameter.detach().clone() for parameter in fit.model.parameters()]


TABLE: dict[str, Any] = {"H": 64, "epochs": 3, "average": None}
CONFIGS: dict[str, dict[str, Any]] = {
    "parts": {"batch_size": None, "validation": None, "lr": 0.02, **TABLE},
    "validated": {"batch_size": None, "lr": 0.02, **TABLE, "average": 0.9, "patience": 3},
    "large batches": {"batch_size": 200, "lr": 0.02, **TABLE},
    "measured": {"batch_size": 200, "lr": "auto", **TABLE},
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("engine", ["autograd", "fused"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_stop_amid_an_update_leaves_the_state_before_it(name: str, engine: str) -> None:
    config = config_of(None, engine=engine, **CONFIGS[name])
    calls = 0
    fit = fit_of(config)
    check = fit.engine.check

    def counted() -> None:
        nonlocal calls
        calls += 1
        check()

    fit.engine.check = counted
    whole = result(fit, [])
    assert calls > 8
    abandoned = 0
    for at in range(1, calls, max(1, calls // 12)):
        first = fit_of(config)
        asked, check = 0, first.engine.check

        def asking(first: Fit = first, check: Any = check, at: int = at) -> None:
            nonlocal asked
            asked += 1
            if asked == at:
                first.request_stop()
            check()

        first.engine.check = asking
        rows: list[Row] = [row for piece in first.pieces for row in piece.every(1)]
        if first.is_finished:  # the last update could not be abandoned
            continue
        abandoned += asked == at  # nothing was computed after it
        state = {name: tensor.clone() for name, tensor in first.state().items()}
        second = fit_of(config, state, first.done)
        again = result(second, rows)
        assert again[0] == whole[0]
        assert same(again[1], whole[1])
    assert abandoned > 2


@pytest.mark.parametrize("engine", ["autograd", "manual", "fused"])
def test_a_stop_between_two_products_of_an_iteration_leaves_the_weights(engine: str) -> None:
    # x with 2^20 numbers: what `fused` then takes has no folded biases, and checks between its products.
    form: dict[str, Any] = {"form": "primal"} if engine == "fused" else {}
    config = load_config("default", N=1100, D_in=1000, H=4, epochs=3, engine=engine, lr=1e-6, **form)
    fit = fit_of(config)
    check, before = fit.engine.check, [parameter.detach().clone() for parameter in fit.model.parameters()]

    def asking() -> None:
        fit.request_stop()
        check()

    fit.engine.check = asking
    assert list(fit.pieces) == []
    assert fit.done == 0
    assert same([parameter.detach() for parameter in fit.model.parameters()], before)


def test_of_several_updates_at_once_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("scratch", epochs=50, engine="manual")
    fit = fit_of(config)
    check = fit.engine.check

    def asking() -> None:
        if fit.done >= 5:
            fit.request_stop()
        check()

    fit.engine.check = asking
    rows = [row for piece in islice(fit.pieces, 5) for row in piece.every(1)]
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1000.0)
    rows += [row for piece in fit.pieces for row in piece.every(1)]
    assert len(rows) == fit.done > 6  # a piece of several began before the request


def test_a_request_after_the_end_does_not_disturb_it() -> None:
    config = config_of(None, engine="fused", **CONFIGS["validated"])
    fit = fit_of(config)
    assert list(fit.pieces)
    fit.request_stop()
    assert fit.is_finished
    assert fit.finish().loss > 0
