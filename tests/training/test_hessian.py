"""Products with the Hessian and its largest eigenvalue; the oracle is the whole Hessian by autograd, and LAPACK."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.oracles import with_classes
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.engines.dual import gram
from twolayer.engines.losses import Objective
from twolayer.training import hessian, lanczos
from twolayer.training.hessian import HessianProduct
from twolayer.training.lanczos import Lanczos
from twolayer.training.learning_rate import MAX_PRODUCTS, curvature
from twolayer.training.setup import prepare

SHAPES = [(30, 5, 7, 3), (8, 20, 4, 2), (1, 1, 1, 1), (50, 2, 10, 6)]


def whole_hessian(model: nn.Sequential, data: Data, config: Config) -> Tensor:
    """The Hessian over all weights, in float64."""
    shapes = [parameter.shape for parameter in model.parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]
    x, y = data.x.double(), data.y.double()

    def loss(flat: Tensor) -> Tensor:
        w1, b1, w2, b2 = (part.view(shape) for part, shape in zip(torch.split(flat, sizes), shapes, strict=True))
        y_pred = torch.relu(x @ w1.t() + b1) @ w2.t() + b2
        if config.loss == "cross_entropy":
            return nn.functional.cross_entropy(y_pred, y.argmax(1), reduction=config.reduction)
        return nn.functional.mse_loss(y_pred, y, reduction=config.reduction)

    flat = torch.cat([parameter.detach().double().flatten() for parameter in model.parameters()])
    hessian: Tensor = torch.autograd.functional.hessian(loss, flat)  # type: ignore[no-untyped-call]
    return hessian


def drawn(shape: tuple[int, ...], loss: str, **keys: Any) -> tuple[Config, Data, nn.Sequential]:
    """A training in float64, of `loss`."""
    N, D_in, H, D_out = shape
    config, data, model = prepare(load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, dtype="float64", **keys))
    return config.model_copy(update={"loss": loss}), with_classes(data) if loss == "cross_entropy" else data, model


def product_of(
    config: Config, data: Data, model: nn.Sequential, *, k: Tensor | None = None, row_weights: Tensor | None = None
) -> HessianProduct:
    """The product at the model's weights."""
    product = HessianProduct(data, Objective.of(config), config.H, k=k, row_weights=row_weights)
    product.set_weights([parameter.detach() for parameter in model.parameters()])
    return product


def in_order(product: HessianProduct, flat: Tensor, x: Tensor) -> Tensor:
    """A vector in the order of the model's parameters: W1, b1, W2, b2."""
    vector = product.vector(flat)
    w1, b1 = vector.first if product.k is None else (vector.first[0] @ x, vector.first[0].sum(1))
    return torch.cat([w1.flatten(), b1.flatten(), vector.w2.flatten(), vector.b[:, -1]])


@pytest.mark.sample(16)
@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("is_dual", [False, True])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_a_product_is_that_of_the_whole_hessian(
    shape: tuple[int, ...], loss: str, is_dual: bool, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hessian, "PART", 7 * shape[2])  # rows in parts of seven
    monkeypatch.setattr(hessian, "KEPT", 2**24 if is_kept else 0)
    config, data, model = drawn(shape, loss, init="normal")
    product = product_of(config, data, model, k=gram(data.x) if is_dual else None)
    generator = torch.Generator().manual_seed(1)
    given, out, gradient = (data.x.new_full((product.width,), torch.nan) for _ in range(3))
    product.vector(given).coordinates.copy_(torch.randn(product.size, generator=generator))
    product.complete(product.vector(given))
    product(product.vector(given), product.vector(out))
    product.gradient(product.vector(gradient))
    scale = 2 if loss == "mse" else 1
    with torch.enable_grad():
        whole = whole_hessian(model, data, config)
        y_pred, classes = model(data.x), data.y.argmax(1)
        total = (y_pred - data.y).square().sum()
        if loss == "cross_entropy":
            total = nn.functional.cross_entropy(y_pred, classes, reduction="sum")
        expected = torch.cat([part.flatten() for part in torch.autograd.grad(total, list(model.parameters()))])
    torch.testing.assert_close(
        scale * in_order(product, out, data.x), whole @ in_order(product, given, data.x), rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(scale * in_order(product, gradient, data.x), expected, rtol=1e-10, atol=1e-10)
    dot = float(in_order(product, given, data.x) @ in_order(product, out, data.x))
    assert float(product.vector(given).coordinates @ product.vector(out).metric) == pytest.approx(dot, rel=1e-9)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_row_counts_as_often_as_its_weight_says(loss: str) -> None:
    config, data, model = drawn((6, 3, 5, 2), loss)
    times = torch.tensor([1, 3, 1, 2, 1, 4])
    repeated = Data(data.x.repeat_interleave(times, 0), data.y.repeat_interleave(times, 0))
    products = product_of(config, data, model, row_weights=times.double()), product_of(config, repeated, model)
    given, *outs = torch.randn(3, products[0].width, generator=torch.Generator().manual_seed(1)).double()
    for product, out in zip(products, outs, strict=True):
        product(product.vector(given), product.vector(out))
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-10, atol=1e-10)


@pytest.mark.sample(16)
@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("init", ["default", "normal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_curvature_is_the_largest_eigenvalue_in_both_forms(
    shape: tuple[int, ...], init: str, reduction: str, loss: str, form: str
) -> None:
    config, data, model = drawn(shape, loss, init=init, reduction=reduction, form=form, engine="fused")
    largest = float(np.linalg.eigvalsh(whole_hessian(model, data, config).numpy())[-1])
    found = curvature(model, data, config)
    assert found.largest == pytest.approx(largest, rel=1e-3, abs=1e-12)
    assert found.largest <= (1 + 1e-9) * largest + 1e-12
    assert found.products <= MAX_PRODUCTS
    assert found.limit == (2 / found.largest if found.largest > 0 else float("inf"))


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_with_few_vectors_it_starts_again_from_the_best_and_finds_the_same(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data, model = drawn((30, 40, 9, 4), "mse", form=form, engine="fused")
    largest = float(np.linalg.eigvalsh(whole_hessian(model, data, config).numpy())[-1])
    monkeypatch.setattr(lanczos, "BASIS", 0)  # three vectors
    assert curvature(model, data, config).largest == pytest.approx(largest, rel=1e-3)


def saddle() -> tuple[Config, Data, nn.Sequential]:
    """A tiny network far from its target: the mixed terms of W1 and W2 are all there is, of both signs."""
    config, data, model = prepare(load_config("default", N=6, D_in=3, H=4, D_out=1, dtype="float64"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-3)
    return config, Data(data.x, 100 * data.y), model


def test_where_the_eigenvalue_of_largest_size_is_negative_the_largest_is_found_all_the_same() -> None:
    config, data, model = saddle()
    eigenvalues = np.linalg.eigvalsh(whole_hessian(model, data, config).numpy())
    assert curvature(model, data, config).largest == pytest.approx(eigenvalues[-1], rel=1e-3)


def test_from_its_eigenvector_one_product_is_enough_and_the_gradient_shows_it_a_larger_one() -> None:
    config, data, model = drawn((40, 3, 6, 2), "mse")
    product = product_of(config, data, model)
    space = Lanczos(product, data.x)
    with torch.no_grad():
        space.start(torch.Generator().manual_seed(0))
        largest, cold = space.largest(1e-6, 200)
        again, warm = space.largest(0.1, 200)
    assert again == pytest.approx(largest, rel=1e-6)
    assert warm == 1 < cold
    # An eigenvector of another eigenvalue is found to be one at once. The gradient leads away from it.
    values, vectors = torch.linalg.eigh(whole_hessian(model, data, config) / 2)
    order = in_order(product, torch.arange(product.width).double(), data.x).long()
    with torch.no_grad():
        space.basis[0, order] = vectors[:, -5]
        found, count = space.largest(0.1, 200)
        assert found == pytest.approx(float(values[-5]))
        assert count == 1
        space.add_gradient(0.3)
        assert 0.9 * largest <= space.largest(0.1, 200)[0] <= (1 + 1e-9) * largest
    assert values[-5] < 0.8 * largest


@pytest.mark.parametrize("diagonal", [[3.0, 1.0], [1.0, 3.0], [-2.0, -2.0], [1e30, -1e30], [0.0, 0.0]])
@pytest.mark.parametrize("other", [0.0, 0.5, 1e30])
def test_two_by_two_is_solved_as_by_lapack(diagonal: list[float], other: float) -> None:
    matrix = np.array([[diagonal[0], other], [other, diagonal[1]]])
    size, largest, vector = lanczos._eigen(diagonal, [other])
    expected = np.linalg.eigvalsh(matrix)
    assert [size, largest] == pytest.approx([abs(expected).max(), expected[1]], rel=1e-12, abs=1e-12)
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert matrix @ vector == pytest.approx(largest * np.array(vector), rel=1e-12, abs=1e-12 * max(size, 1))
