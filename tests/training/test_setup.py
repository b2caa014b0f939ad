from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.oracles import needs_cuda
from twolayer.config.loading import load_config
from twolayer.errors import DataError, DeviceError
from twolayer.training.setup import build_model, load_data


def test_random_data_is_the_books_x_then_y() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 1000), torch.randn(64, 10)
    data = load_data(load_config("default"))
    assert torch.equal(data.x, x)
    assert torch.equal(data.y, y)


def test_linear_data_is_the_weighted_inputs_plus_noise() -> None:
    weights = [[0.2, -1.3, -0.5], [1.0, 2.0, 3.0]]
    data_key = {"source": "linear", "weights": weights, "noise": 0.25}
    config = load_config("scratch", N=50, D_out=2, seed=3, data=data_key)
    torch.manual_seed(3)
    x, noise = torch.randn(50, 3), torch.randn(50, 2)
    data = load_data(config)
    assert torch.equal(data.x, x)
    torch.testing.assert_close(data.y, x @ torch.tensor(weights).t() + 0.25 * noise)


def test_without_noise_the_target_is_the_weighted_sum_of_the_inputs() -> None:
    config = load_config("scratch")
    data = load_data(config.model_copy(update={"data": config.data.model_copy(update={"noise": 0.0})}))
    torch.testing.assert_close(data.y[:, 0], 0.2 * data.x[:, 0] - 1.3 * data.x[:, 1] - 0.5 * data.x[:, 2])


@pytest.mark.parametrize("name", ["default", "scratch"])
def test_float64_data_is_the_float32_data(name: str) -> None:
    single, double = load_data(load_config(name)), load_data(load_config(name, dtype="float64"))
    assert double.x.dtype == double.y.dtype == torch.float64
    assert torch.equal(double.x, single.x.double())
    assert torch.equal(double.y, single.y.double())


def test_the_seed_draws_the_data_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, same, other = (load_data(load_config("default", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first.x, same.x)
    assert not torch.equal(first.x, other.x)
    assert torch.equal(torch.get_rng_state(), before)


def test_targets_that_float32_cannot_hold_are_refused() -> None:
    config = load_config("scratch")
    huge = config.model_copy(update={"data": config.data.model_copy(update={"weights": [1e39, 0.0, 0.0]})})
    with pytest.raises(DataError, match="too large for float32"):
        load_data(huge)


def test_the_model_is_the_books_drawn_after_the_data() -> None:
    torch.manual_seed(0)
    torch.randn(64, 1000), torch.randn(64, 10)
    book = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))

    config, generator = load_config("default"), torch.Generator().manual_seed(0)
    load_data(config, generator)
    model = build_model(config, generator)
    assert str(model) == str(book)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), book.parameters(), strict=True))


def test_without_a_generator_the_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    book = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))
    model = build_model(load_config("default", seed=5))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), book.parameters(), strict=True))


def test_normal_weights_are_standard_normal_and_biases_zero() -> None:
    model = build_model(load_config("default", init="normal"))
    w1, b1, w2, b2 = (parameter.detach() for parameter in model.parameters())
    assert not b1.any()
    assert not b2.any()
    assert abs(float(w1.mean())) < 0.02  # 100,000 numbers: a standard error of 0.003
    assert abs(float(w1.std()) - 1) < 0.02
    assert w2.shape == (10, 100)


def test_float64_weights_are_the_float32_weights() -> None:
    single, double = build_model(load_config("default")), build_model(load_config("default", dtype="float64"))
    assert all(torch.equal(a.double(), b) for a, b in zip(single.parameters(), double.parameters(), strict=True))


@pytest.mark.parametrize("init", ["default", "normal"])
def test_the_global_generator_is_left_alone(init: str) -> None:
    before = torch.get_rng_state()
    build_model(load_config("default", init=init))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_data_and_models_resolve_the_device_themselves() -> None:
    assert load_data(load_config("default", device="auto")).x.device.type == "cpu"
    for draw in (load_data, build_model):
        with pytest.raises(DeviceError, match="no device cuda"):
            draw(load_config("default", device="cuda"))


@pytest.mark.cuda
@needs_cuda
def test_every_device_starts_from_the_same_numbers() -> None:
    config = load_config("default")
    there = config.model_copy(update={"device": "cuda:0"})
    assert torch.equal(load_data(there).x.cpu(), load_data(config).x)
    pairs = zip(build_model(there).parameters(), build_model(config).parameters(), strict=True)
    assert all(torch.equal(a.cpu(), b) for a, b in pairs)
