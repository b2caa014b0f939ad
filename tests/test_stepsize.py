"""The curvature against an independent oracle: the whole Hessian by autograd, and its eigenvalues by LAPACK."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from oracles import same, with_engine
from torch import Tensor, nn

from twolayer import stepsize
from twolayer.config import Config
from twolayer.data import Data
from twolayer.errors import DataError, DivergedError
from twolayer.history import Block
from twolayer.loading import load_config
from twolayer.stepsize import Curvature, curvature, hessian_product, is_cheap, next_measure, suggested
from twolayer.training import Fit, final_loss, fit, prepare, train


def whole_hessian(model: nn.Sequential, data: Data, config: Config) -> Tensor:
    """The Hessian over all weights, in float64."""
    shapes = [parameter.shape for parameter in model.parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]
    x, y = data.x.double(), data.y.double()

    def loss(flat: Tensor) -> Tensor:
        w1, b1, w2, b2 = (part.view(shape) for part, shape in zip(torch.split(flat, sizes), shapes, strict=True))
        y_pred = torch.relu(x @ w1.t() + b1) @ w2.t() + b2
        return nn.functional.mse_loss(y_pred, y, reduction=config.reduction)

    flat = torch.cat([parameter.detach().double().flatten() for parameter in model.parameters()])
    hessian: Tensor = torch.autograd.functional.hessian(loss, flat)  # type: ignore[no-untyped-call]
    return hessian


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
    monkeypatch.setattr(stepsize, "CHUNK", 7 * (D_in + 4 * H + 3 * D_out))  # rows in parts of seven
    product = torch.cat([part.flatten() for part in hessian_product(weights, data, reduction, vector)])
    torch.testing.assert_close(product, hessian @ flat, rtol=1e-10, atol=1e-10)

    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    found = curvature(model, data, config)
    assert 0.97 * largest <= found.largest <= (1 + 1e-9) * largest
    assert found.products <= stepsize.MOST_PRODUCTS
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


ENGINES = ["autograd", "manual", "fused primal", "fused dual"]


def test_the_step_is_measured_again_a_quarter_later_each_time() -> None:
    numbers = [0]
    while numbers[-1] < 1000:
        numbers.append(next_measure(numbers[-1]))
    assert numbers[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22]
    assert all(1 < b / a <= 1.25 for a, b in pairwise(numbers[4:]))
    assert all(next_measure(done) == next(n for n in numbers if n > done) for done in range(900))


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


Case = tuple[str, dict[str, Any], float]
CASES: list[Case] = [(name, {}, scale) for name in ("default", "scratch", "modules") for scale in (1.0, 100.0, 0.01)]
CASES += [
    ("default", {"N": 100, "D_in": 3, "H": 32, "D_out": 1}, 1.0),
    ("default", {"N": 64, "D_in": 20000, "H": 256, "D_out": 10, "epochs": 60}, 1.0),
    ("default", {"N": 50000, "D_in": 20, "H": 64, "D_out": 1, "epochs": 60}, 1.0),
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
