"""The largest stable learning rate, and `lr: auto`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.oracles import ENGINES, same, with_engine
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.engines.factory import make_engine
from twolayer.errors import DataError, DivergedError
from twolayer.runs.history import Block
from twolayer.tables.options import FileData
from twolayer.training import learning_rate
from twolayer.training.epoch import epoch_order
from twolayer.training.hessian import HessianProduct
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
from twolayer.training.setup import build_model, prepare, resolve_auto


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


def test_a_measurement_follows_a_quarter_later_and_half_as_late_again_while_the_curvature_is_steady() -> None:
    def numbers(*, steady: bool) -> list[int]:
        numbers = [0, next_measurement(0, 0, steady=False)]
        while numbers[-1] < 1000:
            numbers.append(next_measurement(numbers[-1], numbers[-1] - numbers[-2], steady=steady))
        return numbers

    assert numbers(steady=False)[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22]
    assert numbers(steady=True)[:14] == [0, 1, 2, 3, 4, 6, 9, 13, 19, 28, 42, 63, 94, 141]


def test_the_default_config_is_measured_with_few_products(monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[int] = []
    multiply = HessianProduct.__call__

    def counted(*given: Any) -> None:
        products.append(1)
        multiply(*given)

    monkeypatch.setattr(HessianProduct, "__call__", counted)
    assert train(load_config("default", lr="auto")).final_loss < 1e-6
    assert 10 < len(products) <= 60  # 38 where this was written; 666 before there was a warm start


@pytest.mark.parametrize("engine", ENGINES)
def test_with_lr_auto_each_engine_takes_the_same_steps(engine: str) -> None:
    def blocks(engine: str) -> list[Block]:
        config = with_engine(load_config("default", dtype="float64", lr="auto", epochs=60), engine)
        config, data, model = prepare(config)
        return list(fit(model, data, config))

    expected, found = blocks("autograd"), blocks(engine)
    steps = [[step for block in each for step in block.more["lr"]] for each in (expected, found)]
    assert len(set(steps[0])) > 5
    if engine == "fused dual":  # measured from another vector
        assert steps[1] == pytest.approx(steps[0], rel=0.15)
        return
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
    ("default", {"N": 64, "D_in": 5000, "H": 64, "D_out": 10, "epochs": 60}, 1.0),
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


def finder(config: Config, data: Data, model: nn.Sequential) -> LearningRateFinder:
    """The finder of a training that starts."""
    config = resolve_auto(config.model_copy(update={"lr": 1.0, "form": "primal", "engine": "fused", "N": len(data.x)}))
    return LearningRateFinder(model, data, config, make_engine(model, data, config))


def measured(config: Config, data: Data, model: nn.Sequential) -> float:
    """The learning rate at the start."""
    return finder(config, data, model).choose(math.inf, 0)


def test_a_measurement_of_many_rows_is_of_512_evenly_spaced_ones() -> None:
    config, data, model = prepare(load_config("scratch", N=3000, D_in=4, data={"source": "random"}))
    some = sample(data, config)
    assert torch.equal(some.x, data.x[[i * 3000 // 512 for i in range(512)]])
    assert same([some.x, some.y], [sample(data, config).x, sample(data, config).y])
    mean, total = (config.model_copy(update={"reduction": reduction}) for reduction in ("mean", "sum"))
    step = measured(mean, data, model)
    assert step == pytest.approx(suggested(model, data, mean), rel=0.2)
    assert measured(total, data, model) == pytest.approx(step / 3000, rel=1e-3)
    batches = total.model_copy(update={"batch_size": 64})  # 47 of them, of 64 rows at the most
    assert step / 128 < measured(batches, data, model) <= step / 64
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


def test_a_measure_beyond_the_dtype_is_an_error_and_of_zeros_none() -> None:
    config, data, model = prepare(load_config("scratch"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert measured(config, Data(data.x, 0 * data.y), model) < 1  # the last bias is never flat
    config, data, model = prepare(load_config("scratch"))
    with pytest.raises(DataError, match="the curvature of the loss is beyond float32; scale the data down"):
        measured(config, Data(data.x * 1e30, data.y * 1e30), model)


def test_a_curvature_that_is_lost_later_leaves_the_learning_rate_and_the_loss_tells() -> None:
    config, data, model = prepare(load_config("scratch", lr="auto"))
    training = Fit(model, data, config)
    assert training.finder is not None
    measure, too_large = training.finder.measure, {1: 1e30}
    training.finder.measure = lambda done: too_large.get(done, 1) * measure(done)  # type: ignore[method-assign]
    with pytest.raises(DivergedError):
        list(training)


def one_hot(N: int = 600) -> Data:
    """A table with a column for each of 30 categories, scaled; most of them have a handful of rows."""
    generator = torch.Generator().manual_seed(0)
    categories = (30 * torch.rand(N, generator=generator) ** 5).long()
    x = torch.cat([nn.functional.one_hot(categories, 30).float(), torch.randn(N, 3, generator=generator)], 1)
    x = x[:, x.std(0) > 0]
    y = torch.randn(30, generator=generator)[categories, None] + x[:, -1:]
    return Data((x - x.mean(0)) / x.std(0), y)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("batch_size", [4, 16, 64])
def test_the_learning_rate_is_stable_for_nearly_every_batch_of_a_table_with_rare_categories(
    batch_size: int, reduction: str
) -> None:
    data = one_hot()
    keys: dict[str, Any] = {
        "N": 600,
        "D_in": data.x.shape[1],
        "H": 20,
        "D_out": 1,
        "reduction": reduction,
        "threads": 1,
    }
    config = load_config("default", **keys, batch_size=batch_size, lr="auto")
    model = build_model(config)
    lr = measured(config, data, model)
    limits = []
    for rows in torch.split(epoch_order(0, 0, 600), batch_size):
        one = load_config("default", **(keys | {"N": len(rows), "form": "primal"}))
        limits.append(curvature(model, Data(data.x[rows], data.y[rows]), one).limit)
    assert sum(limit < lr for limit in limits) <= 0.02 * len(limits)
    assert lr > 0.1 * min(limits)
    if reduction == "mean" and batch_size < 64:  # that of all rows is not stable for some
        assert min(limits) < curvature(model, data, load_config("default", **keys)).limit / 2


def test_with_small_batches_and_rare_categories_lr_auto_holds() -> None:
    data = one_hot(2400)
    config = load_config(
        "default", N=2400, D_in=data.x.shape[1], H=150, D_out=1, reduction="mean", batch_size=16, lr="auto", epochs=6
    )
    losses = [loss for block in fit(build_model(config), data, config) for loss in block.losses]
    assert losses[-1] < 0.2 * losses[0]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("cut", [1, 3])
def test_with_batches_and_lr_auto_a_training_goes_on_bit_for_bit(cut: int) -> None:
    data = one_hot()
    config = load_config(
        "default", N=600, D_in=data.x.shape[1], H=20, D_out=1, reduction="mean", batch_size=16, lr="auto", epochs=5
    )
    model = build_model(config)
    whole = [row for block in fit(model, data, config) for row in block.every(1)]
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    first = Fit(build_model(config), data, config.model_copy(update={"epochs": cut}))
    rows = [row for block in first for row in block.every(1)]
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    model = build_model(config)
    rows += [row for block in Fit(model, data, config, state, cut) for row in block.every(1)]
    assert rows == whole
    assert same([parameter.detach() for parameter in model.parameters()], weights)


def test_a_state_of_0_1_0_goes_on_with_a_measurement_and_one_of_another_training_does_not() -> None:
    config, data, model = prepare(load_config("scratch", lr="auto", epochs=20))
    first = Fit(model, data, config.model_copy(update={"epochs": 5}))
    assert len(list(first)) > 0
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    old = {name: tensor for name, tensor in state.items() if name not in ("curvature", "measured")}
    assert sum(len(block.losses) for block in Fit(model, data, config, old, 5)) == 15
    with pytest.raises(DataError, match="is a state of another training"):
        Fit(model, data, config, state | {"curvature": torch.zeros(3)}, 5)
