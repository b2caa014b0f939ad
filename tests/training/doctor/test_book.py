"""The book's numbers, by hand and by other programs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from twolayer.training.doctor import book
from twolayer.training.setup import prepare


def test_the_published_losses_are_500_and_fall_from_628_to_one_in_a_hundred_thousand() -> None:
    losses = book.published_losses()
    assert len(losses) == 500
    assert losses[0] == 628.283874511719
    assert losses[-1] == pytest.approx(1.457e-5, rel=1e-3)


@pytest.mark.parametrize(
    ("loss", "other", "agrees"),
    [
        (628.28, 628.4, True),
        (628.28, 627.7, False),
        (1.006, 1.0, False),
        (1.4571e-5, 1.457e-5, True),
    ],
)
def test_three_digits_are_half_a_unit_of_the_third(loss: float, other: float, agrees: bool) -> None:
    assert book.agrees_to_three_digits(loss, other) is agrees


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_numpy_draws_what_torch_draws(seed: int) -> None:
    config = book.book(seed=seed)
    torch.manual_seed(seed)
    own = [torch.randn(64, 1000), torch.randn(64, 10)]
    own += [p.detach() for layer in (nn.Linear(1000, 100), nn.Linear(100, 10)) for p in layer.parameters()]
    for tensor, array in zip(own, book.drawn(config).values(), strict=True):
        assert np.abs(tensor.numpy() - array).max() < 2e-6


def test_numpys_descent_is_that_of_autograd() -> None:
    _, data, model = prepare(book.book(dtype="float64", N=9, D_in=5, H=7, D_out=2, lr=1e-3))
    arrays = [parameter.detach().numpy().copy() for parameter in model.parameters()]
    losses, weights = book.descend(data.x.numpy(), data.y.numpy(), arrays, 1e-3, 50)
    for loss in losses:
        own = ((model(data.x) - data.y) ** 2).sum()
        assert loss == pytest.approx(own.item(), rel=1e-12)
        gradients = torch.autograd.grad(own, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=1e-3)
    for array, parameter in zip(weights, model.parameters(), strict=True):
        assert np.abs(array - parameter.detach().numpy()).max() < 1e-13


def test_the_environment_does_not_change_the_book(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOLAYER_LR", "1")
    assert book.book().lr == 1e-4
