from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.oracles import same
from twolayer.errors import StateError
from twolayer.training.early_stopping import EarlyStopping


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_the_weights_with_the_least_loss_come_back() -> None:
    model = nn.Linear(2, 1)
    best, seen = EarlyStopping(model, patience=3), []
    for done, loss in enumerate([3.0, 1.0, 2.0, 1.0, 5.0]):
        with torch.no_grad():
            model.weight.fill_(done)
        seen.append(weights(model))
        stop = best.consider(loss, done)
    assert stop
    assert (best.loss, best.at) == (1.0, 1)  # the earliest of two
    best.restore()
    assert same(weights(model), seen[1])


def test_it_is_time_to_stop_when_so_many_have_brought_nothing_better() -> None:
    best = EarlyStopping(nn.Linear(1, 1), patience=2)
    assert [best.consider(loss, done) for done, loss in enumerate([2.0, 2.0, 1.0, 1.0, 1.0, 0.5])] == [
        *(False, False, False, False, True, False)
    ]


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    best = EarlyStopping(nn.Linear(1, 1), patience=2)
    assert [best.consider(loss, done) for done, loss in enumerate([float("nan"), 1.0, float("nan"), float("inf")])] == [
        *(False, False, False, True)
    ]
    assert best.at == 1


def test_a_continuation_stops_where_the_whole_would() -> None:
    model = nn.Linear(1, 1)
    other = nn.Linear(1, 1)
    first, second = EarlyStopping(model, patience=2), EarlyStopping(other, patience=2)
    first.consider(1.0, 0)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    assert (second.loss, second.at) == (1.0, 0)
    assert second.consider(1.0, 2)
    second.restore()
    assert same(weights(other), weights(model))


def test_the_patience_can_be_counted_again_with_the_best_weights_as_they_are() -> None:
    best = EarlyStopping(nn.Linear(1, 1), patience=3)
    assert [best.consider(loss, done) for done, loss in enumerate([2.0, 1.0, 3.0, 3.0, 3.0])] == [
        *(False, False, False, False, True)
    ]
    best.count_again(4)
    again = EarlyStopping(nn.Linear(1, 1), patience=3)
    again.load_state({name: tensor.clone() for name, tensor in best.state().items()})
    for each in (best, again):
        assert (each.loss, each.at, each.since) == (1.0, 1, 4)
        assert [each.consider(3.0, done) for done in range(4, 8)] == [False, False, False, True]
        assert not each.consider(0.5, 8)
        assert not each.consider(3.0, 10)
        assert each.consider(3.0, 11)


@pytest.mark.parametrize("figures", [[1.0, -1.0], [float("nan"), 0.0], [1.0, 2.0, -3.0], [1.0], [1.0] * 4])
def test_a_state_that_cannot_be_is_refused(figures: list[float]) -> None:
    best = EarlyStopping(nn.Linear(1, 1), patience=2)
    state = best.state() | {"best": torch.tensor(figures, dtype=torch.float64)}
    with pytest.raises(StateError, match="state of another training"):
        best.load_state(state)
