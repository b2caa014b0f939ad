"""The curvature against an independent oracle: the whole Hessian by autograd, and its eigenvalues by LAPACK."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.oracles import same, with_classes, with_engine
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.engines.losses import Objective
from twolayer.errors import DataError, DivergedError
from twolayer.runs.history import Block
from twolayer.tables.options import FileData
from twolayer.training import learning_rate
from twolayer.training.hessian import MAX_PRODUCTS, HessianProduct
from twolayer.training.learning_rate import (
    Curvature,
    LearningRateFinder,
    curvature,
    is_cheap,
    is_sampled,
    next_measurement,
    sample,
    suggested,
)
from twolayer.training.loop import Fit, fit, train
from twolayer.training.metrics import final_loss
from twolayer.training.setup import prepare


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


def hessian_product(
    weights: list[Tensor], data: Data, config: Config, vector: list[Tensor], *, rows: int
) -> list[Tensor]:
    """The product with a vector, some rows at a time."""
    product = HessianProduct(data, Objective.of(config), config.H, rows)
    product.set_weights(weights)
    out = [torch.full_like(w, torch.nan) for w in weights]  # to be overwritten
    product(vector, out)
    return out


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("init", ["default", "normal"])
@pytest.mark.parametrize("shape", [(30, 5, 7, 3), (8, 20, 4, 1), (1, 1, 1, 1), (50, 2, 10, 6)])
def test_a_hessian_product_and_the_curvature_are_those_of_the_whole_hessian(
    shape: tuple[int, ...], init: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    N, D_in, H, D_out = shape
    config = load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, init=init, reduction=reduction, dtype="float64")
    config, data, model = prepare(config)
    hessian = whole_hessian(model, data, config)
    weights = [parameter.detach() for parameter in model.parameters()]
    vector = [torch.randn(w.shape, generator=torch.Generator().manual_seed(1)).to(w) for w in weights]
    flat = torch.cat([part.flatten() for part in vector])
    monkeypatch.setattr(learning_rate, "CHUNK", 7 * (D_in + 4 * H + 3 * D_out))  # rows in parts of seven
    found_product = hessian_product(weights, data, config, vector, rows=7)
    product = torch.cat([part.flatten() for part in found_product])
    torch.testing.assert_close(product, hessian @ flat, rtol=1e-10, atol=1e-10)

    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    found = curvature(model, data, config)
    assert 0.97 * largest <= found.largest <= (1 + 1e-9) * largest
    assert found.products <= MAX_PRODUCTS
    assert found.limit == 2 / found.largest


def test_where_the_eigenvalue_of_largest_size_is_negative_the_largest_is_found_all_the_same() -> None:
    config, data, model = prepare(load_config("default", N=6, D_in=3, H=4, D_out=1, dtype="float64"))
    with torch.no_grad():  # a tiny network far from its target: the mixed terms of W1 and W2 are all there is
        for parameter in model.parameters():
            parameter.mul_(1e-3)
    data = Data(data.x, 100 * data.y)
    eigenvalues = torch.linalg.eigvalsh(whole_hessian(model, data, config))
    found = curvature(model, data, config)
    assert found.largest == pytest.approx(float(eigenvalues[-1]), rel=0.05)


def test_a_flat_loss_has_no_limit() -> None:
    assert Curvature(0.0, 1).limit == float("inf")
    assert Curvature(-1.0, 1).limit == float("inf")


def test_the_estimate_is_the_same_every_time_and_near_that_of_float64() -> None:
    first, second = (curvature(model, data, config) for config, data, model in (prepare(load_config("default")),) * 2)
    assert first == second
    config, data, model = prepare(load_config("default", dtype="float64"))
    assert first.largest == pytest.approx(curvature(model, data, config).largest, rel=1e-3)


@pytest.mark.parametrize("name", ["default", "scratch", "modules"])
def test_at_the_limit_it_holds_and_far_beyond_it_is_gone(name: str) -> None:
    config, data, model = prepare(load_config(name))
    limit = curvature(model, data, config).limit
    held = train(load_config(name, lr=0.5 * limit))
    assert max(held.losses) <= held.losses[0]
    assert held.final_loss < held.losses[0]
    with pytest.raises(DivergedError):
        train(load_config(name, lr=16 * limit))


def test_cheap_is_a_small_part_of_the_run() -> None:
    assert not is_cheap(load_config("default"))
    assert is_cheap(load_config("default", engine="autograd", epochs=100_000))


ENGINES = ["autograd", "manual", "fused primal", "fused dual", "compiled"]


def test_the_step_is_measured_again_a_quarter_later_each_time() -> None:
    numbers = [0]
    while numbers[-1] < 1000:
        numbers.append(next_measurement(numbers[-1]))
    assert numbers[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22]
    assert all(1 < b / a <= 1.25 for a, b in pairwise(numbers[4:]))
    assert all(next_measurement(done) == next(n for n in numbers if n > done) for done in range(900))


@pytest.mark.parametrize("engine", ENGINES)
def test_with_lr_auto_each_engine_takes_the_same_steps(engine: str) -> None:
    def blocks(engine: str) -> list[Block]:
        config = with_engine(load_config("default", dtype="float64", lr="auto", epochs=60), engine)
        config, data, model = prepare(config)
        return list(fit(model, data, config))

    expected, found = blocks("autograd"), blocks(engine)
    steps = [[step for block in each for step in block.more["lr"]] for each in (expected, found)]
    assert len(set(steps[0])) > 10
    assert steps[1] == pytest.approx(steps[0], rel=1e-6)
    losses = [[loss for block in each for loss in block.losses] for each in (expected, found)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cut", [7, 15, 40])
def test_with_lr_auto_a_training_goes_on_bit_for_bit(engine: str, cut: int) -> None:
    config = with_engine(load_config("scratch", lr="auto", epochs=60), engine)
    config, data, model = prepare(config)
    whole = [row for block in fit(model, data, config) for row in block.every(1)]
    weights = [parameter.detach().clone() for parameter in model.parameters()]

    _, data, model = prepare(config)
    first = Fit(model, data, config.model_copy(update={"epochs": cut}))
    rows = [row for block in first for row in block.every(1)]
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    _, data, model = prepare(config)
    rows += [row for block in Fit(model, data, config, state, cut) for row in block.every(1)]
    assert rows == whole
    assert same([parameter.detach() for parameter in model.parameters()], weights)


CASES: list[Any] = [(name, {}, scale) for name in ("default", "scratch", "modules") for scale in (1.0, 100.0, 0.01)]
CASES += [
    ("default", {"N": 100, "D_in": 3, "H": 32, "D_out": 1}, 1.0),
    ("default", {"N": 64, "D_in": 10000, "H": 64, "D_out": 10, "epochs": 60}, 1.0),
    pytest.param("default", {"N": 64, "D_in": 20000, "H": 256, "D_out": 10, "epochs": 60}, 1.0, marks=pytest.mark.deep),
    ("default", {"N": 10000, "D_in": 20, "H": 64, "D_out": 1, "epochs": 60}, 1.0),
    pytest.param("default", {"N": 50000, "D_in": 20, "H": 64, "D_out": 1, "epochs": 60}, 1.0, marks=pytest.mark.deep),
]


@pytest.mark.parametrize(("name", "sizes", "scale"), CASES)
def test_lr_auto_falls_never_rises_and_no_fixed_part_of_it_does_twice_as_well(
    name: str, sizes: dict[str, Any], scale: float
) -> None:
    def end(lr: float | str, **more: int) -> tuple[list[float], float]:
        config, data, model = prepare(load_config(name, **(sizes | {"lr": lr} | more)))
        data = Data(data.x * scale, data.y)
        losses = [loss for block in fit(model, data, config) for loss in block.losses]
        return losses, final_loss(model, data, config)

    losses, final = end("auto")
    assert max(losses) <= losses[0]
    assert final < losses[0]
    config, data, model = prepare(load_config(name, **sizes))
    largest = curvature(model, Data(data.x * scale, data.y), config).largest
    floor = 1e-11 * losses[0]  # below it there is nothing but rounding
    for part in (0.25, 0.5, 1):
        assert end(part / largest)[1] >= 0.5 * final or final < floor
    with pytest.raises(DivergedError):  # some grow for long before the numbers end
        end(32 / largest, epochs=2000)


def test_a_flat_loss_bears_a_large_step_and_lr_auto_takes_it() -> None:
    sizes: dict[str, Any] = {"D_in": 20, "D_out": 1000, "reduction": "mean"}
    config, data, model = prepare(load_config("default", **sizes))
    step = suggested(model, data, config)
    assert step > 10
    fixed, auto = (train(load_config("default", **sizes, lr=lr)).final_loss for lr in (step, "auto"))
    assert auto <= 2 * fixed


def test_a_curvature_beyond_the_dtype_is_told_and_not_printed() -> None:
    config, data, model = prepare(load_config("scratch"))
    with pytest.raises(DataError, match="the curvature of the loss is beyond float32; scale the data down"):
        curvature(model, Data(data.x * 1e30, data.y * 1e30), config)


def classes(**sizes: Any) -> tuple[Config, Data, nn.Sequential]:
    config, data, model = prepare(load_config("default", **sizes))
    return config.model_copy(update={"loss": "cross_entropy"}), with_classes(data), model


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("init", ["default", "normal"])
@pytest.mark.parametrize("shape", [(30, 5, 7, 3), (8, 20, 4, 2), (50, 2, 10, 6)])
def test_for_classes_it_is_the_whole_hessian_of_cross_entropy(
    shape: tuple[int, ...], init: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    N, D_in, H, D_out = shape
    config, data, model = classes(
        N=N, D_in=D_in, H=H, D_out=D_out, init=init, reduction=reduction, dtype="float64", lr="auto"
    )
    hessian = whole_hessian(model, data, config)
    weights = [parameter.detach() for parameter in model.parameters()]
    vector = [torch.randn(w.shape, generator=torch.Generator().manual_seed(1)).to(w) for w in weights]
    flat = torch.cat([part.flatten() for part in vector])
    monkeypatch.setattr(learning_rate, "CHUNK", 7 * (D_in + 4 * H + 3 * D_out))
    found = hessian_product(weights, data, config, vector, rows=7)
    torch.testing.assert_close(torch.cat([part.flatten() for part in found]), hessian @ flat, rtol=1e-10, atol=1e-10)
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    assert 0.97 * largest <= curvature(model, data, config).largest <= (1 + 1e-9) * largest
    assert 0.8 * largest <= 1 / LearningRateFinder(model, data, config).measure() <= (1 + 1e-9) * largest


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_product_of_a_measure_is_the_hessian_product(loss: str, reduction: str) -> None:
    config, data, model = classes(N=40, D_in=5, H=7, D_out=3, dtype="float64", reduction=reduction)
    config = config.model_copy(update={"loss": loss})
    finder = LearningRateFinder(model, data, config)
    finder.measure()
    vector = [part.clone() for part in finder.vector.parts]
    weights = [parameter.detach() for parameter in model.parameters()]
    expected = hessian_product(weights, data, config, vector, rows=40)
    finder.product(finder.vector.parts, finder.image.parts)
    for own, other in zip(finder.image.parts, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12)


def test_a_measurement_of_many_rows_is_of_512_evenly_spaced_ones() -> None:
    config, data, model = prepare(load_config("scratch", N=3000, D_in=4, data={"source": "random"}))
    some = sample(data, config)
    assert torch.equal(some.x, data.x[[i * 3000 // 512 for i in range(512)]])
    assert same([some.x, some.y], [sample(data, config).x, sample(data, config).y])
    mean, total = (config.model_copy(update={"reduction": reduction}) for reduction in ("mean", "sum"))
    step = LearningRateFinder(model, data, mean).measure()
    assert step == pytest.approx(suggested(model, data, mean), rel=0.2)
    assert LearningRateFinder(model, data, total).measure() == pytest.approx(step / 3000, rel=1e-3)
    batches = total.model_copy(update={"batch_size": 64})  # 47 of them, of 64 rows at the most
    assert LearningRateFinder(model, data, batches).measure() == pytest.approx(step / 64, rel=1e-3)
    few = Data(data.x[:512], data.y[:512])
    assert sample(few, config).x is few.x


def test_a_large_file_is_sampled_and_what_is_drawn_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_rate, "LARGE", 999)
    config, data, model = prepare(load_config("scratch", N=1000, D_in=4, data={"source": "random"}))
    file = config.model_copy(update={"data": FileData(source="file", path="x.csv", target=["y"])})
    whole, some = curvature(model, data, config).largest, curvature(model, data, file).largest
    assert some != whole
    assert some == pytest.approx(whole, rel=0.2)
    few = sample(data, config)
    assert some == pytest.approx(curvature(model, few, config).largest * 1000 / 512, rel=1e-6)
    assert not is_sampled(config)
    assert not is_sampled(config.model_copy(update={"batch_size": 1000}))
    for more in ({"batch_size": 999}, {"loss": "cross_entropy"}, {"data": file.data}):
        assert is_sampled(config.model_copy(update=more))


def test_a_measurement_starts_where_the_one_before_has_ended_and_so_it_does_from_its_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, data, model = classes(N=600, D_in=4, H=9, D_out=3, reduction="mean")
    first = LearningRateFinder(model, data, config)
    products: list[int] = []
    multiply = HessianProduct.__call__

    def counted(*given: Any) -> None:
        products.append(1)
        multiply(*given)

    monkeypatch.setattr(HessianProduct, "__call__", counted)
    first.measure()
    cold = len(products)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    assert state.keys() == {"curvature"}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    second = first.measure()
    assert len(products) - cold == 2 < cold
    other = LearningRateFinder(model, data, config)
    other.load_state(state)
    assert other.measure() == second
    assert same([*other.state().values()], [*first.state().values()])
    with pytest.raises(DataError, match="is a state of another training"):
        other.load_state({"curvature": torch.zeros(3)})


def test_on_a_saddle_a_measure_is_of_the_right_sign_and_size() -> None:
    config, data, model = prepare(load_config("default", N=6, D_in=3, H=4, D_out=1, dtype="float64"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-3)
    data = Data(data.x, 100 * data.y)
    largest = float(torch.linalg.eigvalsh(whole_hessian(model, data, config))[-1])
    finder = LearningRateFinder(model, data, config)
    # A saddle, whose eigenvalues come in pairs of both signs: the iteration stops at a mixture of two eigenvectors.
    assert 0.6 * largest < 1 / finder.measure() <= largest


def test_a_measure_beyond_the_dtype_is_an_error_and_of_zeros_none() -> None:
    config, data, model = prepare(load_config("scratch"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert LearningRateFinder(model, Data(data.x, 0 * data.y), config).measure() < 1  # the last bias is never flat
    config, data, model = prepare(load_config("scratch"))
    beyond = LearningRateFinder(model, Data(data.x * 1e30, data.y * 1e30), config)
    with pytest.raises(DataError, match="the curvature of the loss is beyond float32; scale the data down"):
        beyond.measure()
