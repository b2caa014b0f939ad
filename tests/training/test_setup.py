from __future__ import annotations

import pytest
import torch

from twolayer.config.loading import load_config
from twolayer.errors import DataError
from twolayer.training.setup import load_data


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
