"""A training that is stopped within an epoch, after any update, and goes on there."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from tests.helpers.oracles import same
from tests.helpers.trained import config_of
from twolayer.config.schema import Config
from twolayer.errors import StateError
from twolayer.training import loop
from twolayer.training.loop import Fit
from twolayer.training.setup import prepare

State = dict[str, torch.Tensor]
Result = tuple[list[tuple[float, ...]], list[torch.Tensor], Any]


@pytest.fixture(autouse=True)
def _a_piece_is_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 0.0)


def config(**values: Any) -> Config:
    """Five epochs of seven updates."""
    return config_of(
        None, **({"batch_size": 64, "epochs": 5, "lr": 0.02, "average": None, "validation": 0.05} | values)
    )


def to_the_end(fit: Fit, rows: list[tuple[float, ...]]) -> Result:
    rows = [*rows, *(row for piece in fit.pieces for row in piece.every(1))]
    outcome = fit.finish()
    return rows, [parameter.detach().clone() for parameter in fit.model.parameters()], (outcome, fit.stopped, fit.done)


def stopped_after(updates: int, values: Config) -> tuple[Fit, State, list[tuple[float, ...]]]:
    """A training that is stopped by a request; its state, and the rows so far."""
    full, data, model = prepare(values)
    fit = Fit(model, data, full)
    rows: list[tuple[float, ...]] = [row for piece in islice(fit.pieces, updates) for row in piece.every(1)]
    fit.request_stop()
    assert list(fit.pieces) == []
    return fit, {name: tensor.clone() for name, tensor in fit.state().items()}, rows


@pytest.mark.sample(14)
@pytest.mark.parametrize("engine", ["autograd", "fused"])
@pytest.mark.parametrize(
    "values",
    [
        {"validation": None},
        {"validation": None, "reduction": "sum", "lr": 1e-4},
        {"patience": 1, "lr": 0.2},  # which ends it early
        {"average": 0.5, "patience": 3},
        {"lr": "auto", "average": 0.9},
    ],
)
@pytest.mark.parametrize("updates", [1, 6, 7, 8, 12, 20, 34])
def test_a_training_goes_on_bit_for_bit_from_any_update(updates: int, values: dict[str, Any], engine: str) -> None:
    wanted = config(engine=engine, **values)
    full, data, model = prepare(wanted)
    whole = to_the_end(Fit(model, data, full), [])
    first, state, rows = stopped_after(updates, wanted)
    if first.is_finished:
        assert values.get("patience") == 1
        return
    assert (first.done, first.updates, first.batches) == (*divmod(updates, 7), 7)
    _, data, model = prepare(wanted)
    second = Fit(model, data, full, state, first.done)
    assert (second.updates, second.progress) == (first.updates, first.progress)
    again = to_the_end(second, rows)
    assert again[0] == whole[0]
    assert same(again[1], whole[1])
    assert again[2] == whole[2]


def test_the_loss_of_a_class_and_its_accuracy_are_those_of_the_whole_epoch(tmp_path: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 2, generator=generator)
    rows = [f"{a:.4f},{b:.4f},{'up' if a > b else 'down'}" for a, b in x.tolist()]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]) + "\n")
    wanted = config_of(tmp_path / "t.csv", batch_size=16, epochs=3, lr=0.1)
    full, data, model = prepare(wanted)
    whole = to_the_end(Fit(model, data, full), [])
    first, state, rows_so_far = stopped_after(3, wanted)
    assert (state["epoch.losses"].shape, state["epoch.validated"].shape) == ((3, 2), (2,))
    _, data, model = prepare(wanted)
    again = to_the_end(Fit(model, data, full, state, first.done), rows_so_far)
    assert again[0] == whole[0]
    assert same(again[1], whole[1])


def test_between_two_epochs_a_state_holds_nothing_of_one() -> None:
    _, state, _ = stopped_after(7, config())
    assert not any(name.startswith("epoch.") for name in state)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch.losses": torch.zeros(7)},  # an epoch has seven
        {"epoch.losses": torch.zeros(0)},
        {"epoch.losses": torch.tensor(1.0)},
        {"epoch.losses": torch.zeros(3, 2)},
        {"epoch.losses": torch.zeros(3, dtype=torch.float64)},
        {"epoch.validated": torch.zeros(2, dtype=torch.float64)},
    ],
)
def test_a_state_within_another_epoch_is_refused(change: State) -> None:
    first, state, _ = stopped_after(3, config())
    full, data, model = prepare(config())
    with pytest.raises(StateError, match="state of another training"):
        Fit(model, data, full, state | change, first.done)
    state.pop(next(iter(change)))
    with pytest.raises(StateError, match="state of another training"):
        Fit(model, data, full, state, first.done)


def test_a_training_without_epochs_refuses_the_state_of_one() -> None:
    full, data, model = prepare(config(batch_size=None, validation=None))
    state = {name: tensor.clone() for name, tensor in Fit(model, data, full).state().items()}
    with pytest.raises(StateError, match="state of another training"):
        Fit(model, data, full, state | {"epoch.losses": torch.zeros(1)}, 1)
