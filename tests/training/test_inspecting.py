"""`twolayer.inspect`: the network of a config, a run or a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.trained import train as train_runs
from twolayer.errors import ConfigError, RunError
from twolayer.training import inspection
from twolayer.training.inspecting import inspect
from twolayer.training.loop import train
from twolayer.training.setup import prepare


def test_a_config_is_inspected_at_its_start_and_after_any_iteration() -> None:
    config, data, model = prepare("modules")
    wanted = inspection.inspect(model, data, config, float(config.lr))
    found = inspect("modules")
    assert found.loss == wanted.loss
    assert found.differences() == dict.fromkeys(inspection.NAMES)
    assert inspect("modules", 0).loss == wanted.loss
    losses = train("modules", epochs=8).losses
    assert inspect("modules", 7).loss == pytest.approx(losses[7], rel=1e-6)
    assert inspect("modules", "end", epochs=7).loss == pytest.approx(losses[7], rel=1e-6)


def test_a_training_is_inspected_as_it_ended() -> None:
    result = train("modules", epochs=9)
    found = inspect(result)
    assert found.loss == pytest.approx(result.final_loss, rel=1e-6)
    assert torch.equal(found.parameters["0.weight"], next(result.model.parameters()))
    assert repr(found) == f"<Inspection of 100 x 3 -> 32 -> 1: loss {found.loss:.4g}, lr 0.0001, 100 rows>"


def test_a_run_is_inspected_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_runs(tmp_path, "modules --epochs 12")
    monkeypatch.chdir(tmp_path)
    end = train("modules", epochs=12)
    assert inspect("modules-1").loss == pytest.approx(end.final_loss, rel=1e-6)
    assert inspect("runs/modules-1", 5).loss == pytest.approx(end.losses[5], rel=1e-6)
    with pytest.raises(RunError, match="has 12 iterations, so there is no 13"):
        inspect("modules-1", 13)
    with pytest.raises(RunError, match="a run is taken as it was trained; remove lr="):
        inspect("modules-1", lr=1.0)


def test_what_cannot_be_inspected_is_told_in_pythons_words() -> None:
    with pytest.raises(RunError, match="at=201 is after the last of 200; add epochs=201"):
        inspect("modules", 201)
    for at in (-1, "middle", 1.5):
        with pytest.raises(RunError, match='at: must be "start", "end" or a number'):
            inspect("modules", at)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="a Training has the weights that it ended with"):
        inspect(train("modules", epochs=1), "start")
    with pytest.raises(ConfigError, match="did you mean modules"):
        inspect("module")
