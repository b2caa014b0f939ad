"""A network taken apart: its gradients by hand have autograd's bits, and its numbers are those of plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from torch import nn

from tests.helpers.oracles import configs, needs_cuda, with_classes
from tests.helpers.processes import examples
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.training.from_run import train_to
from twolayer.training.importance import REPEATS, permutation_importance
from twolayer.training.inspection import NAMES, inspect, moved
from twolayer.training.setup import prepare

BUNDLED = ("default", "modules", "scratch", "diabetes")


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("at", ["start", "end"])
def test_the_gradients_by_hand_have_the_bits_of_autograds(name: str, at: str) -> None:
    config, data, model = prepare(load_config(name, environment={}))
    if at == "end":
        train_to(None, config.epochs, config, data, model)
    found = inspect(model, data, config, 0.1)
    assert found.differences() == dict.fromkeys(NAMES)


@given(configs())
@examples(40)
def test_they_have_the_same_bits_at_any_shape(config: Config) -> None:
    assume(config.N > 1 or config.H > 1)  # docs/numerics.md names this exception
    config, data, model = prepare(config)
    assert inspect(model, data, config, 0.1).differences() == dict.fromkeys(NAMES)


@given(configs())
@examples(30)
def test_they_have_the_same_bits_for_classes(config: Config) -> None:
    assume(config.D_out > 1 and (config.N > 1 or config.H > 1))
    config, data, model = prepare(config)
    config = config.model_copy(update={"loss": "cross_entropy"})
    assert inspect(model, with_classes(data), config, 0.1).differences() == dict.fromkeys(NAMES)


def test_one_row_and_one_unit_differ_by_rounding_alone() -> None:
    config, data, model = prepare(Config(N=1, D_in=50, H=1, D_out=7, lr=1e-4, epochs=1, init="normal"))
    found = inspect(model, data, config, 0.1)
    for name, gradient in found.gradients.items():
        torch.testing.assert_close(found.by_hand[name], gradient, rtol=1e-6, atol=1e-6)


def test_the_numbers_are_those_of_plain_pytorch() -> None:
    torch.manual_seed(3)
    x = torch.randn(20, 4)
    y = torch.randn(20, 2)
    first, second = nn.Linear(4, 6), nn.Linear(6, 2)
    model = nn.Sequential(first, nn.ReLU(), second)
    with torch.no_grad():
        first.bias[2] = -100  # off for every row
        first.bias[5] = 100  # on for every row
    pre = first(x)
    hidden = pre.relu()
    output = second(hidden)
    seen = {"pre": pre, "hidden": hidden, "output": output}
    for tensor in seen.values():
        tensor.retain_grad()
    loss = ((output - y) ** 2).sum()
    loss.backward()
    config = Config(N=20, D_in=4, H=6, D_out=2, lr=0.01, epochs=1, threads=1)
    found = inspect(model, Data(x, y), config, 0.01)
    assert found.loss == loss.item()
    for name in ("pre", "hidden", "output"):
        assert torch.equal(getattr(found, name), seen[name])
    for name, tensor in (("pre-activation", pre), ("hidden", hidden), ("output", output)):
        torch.testing.assert_close(found.signals[name], tensor.grad, rtol=1e-6, atol=1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found.gradients[name], parameter.grad, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found.after[name], parameter - 0.01 * parameter.grad)
    assert (found.dead, found.always_on) == ([2], [5])
    assert found.active.tolist() == (seen["hidden"] > 0).sum(0).tolist()
    assert not found.gradients["0.weight"][2].any()
    assert not found.gradients["0.bias"][2].any()


def test_the_loss_after_a_step_is_the_loss_of_the_next_iteration() -> None:
    config, data, model = prepare(load_config("modules", environment={}, threads=1))
    found = inspect(model, data, config, float(config.lr))
    second = train_to(None, 1, config, data, model)
    assert second.done == 1
    assert found.loss_after() == inspect(model, data, config, 0.1).loss


@pytest.mark.cuda
@needs_cuda
def test_a_gpu_gives_the_same_but_for_rounding() -> None:
    config, data, model = prepare(load_config("default", environment={}))
    found = inspect(model, data, config, 0.1)
    other = moved(found, "cuda")
    assert other.x.is_cuda
    for name, gradient in found.gradients.items():
        torch.testing.assert_close(other.gradients[name].cpu(), gradient, rtol=1e-4, atol=1e-3)


def test_the_importance_of_a_column_is_the_rise_of_the_loss_when_it_is_shuffled() -> None:
    config, data, model = prepare(load_config("diabetes", environment={}, lr=0.01))
    train_to(None, 10, config, data, model)
    found = permutation_importance(model, data, config)
    assert data.validation is not None
    assert data.columns is not None
    x, y = data.validation.x, data.validation.y
    generator = torch.Generator().manual_seed(config.seed)
    orders = [torch.randperm(len(x), generator=generator) for _ in range(REPEATS)]
    model.requires_grad_(False)
    loss = float(nn.functional.mse_loss(model(x), y))
    assert found.loss == pytest.approx(loss)
    deviation = data.columns.targets[0].deviation
    by_name = {item.column: item for item in found.columns}
    for j, name in enumerate(data.columns.inputs):
        rises, errors = [], []
        for order in orders:
            other = x.clone()
            other[:, j] = x[order, j]
            mean = float(nn.functional.mse_loss(model(other), y))
            rises.append(mean - loss)
            errors.append((mean**0.5 - loss**0.5) * deviation)
        assert by_name[name].loss == pytest.approx(sum(rises) / REPEATS, abs=1e-6)
        assert by_name[name].change == pytest.approx(sum(errors) / REPEATS, abs=1e-4)
    assert [item.column for item in found.columns[:2]] == sorted(by_name, key=lambda name: -by_name[name].loss)[:2]
    assert found.constant == pytest.approx(float(((y.double() - data.y.double().mean()) ** 2).mean()))
