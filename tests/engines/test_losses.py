"""Cross entropy in every engine, against torch.optim.SGD with nn.CrossEntropyLoss, and against numpy."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from torch import Tensor, nn

from tests.helpers.oracles import ENGINES, allocations, configs, same, score, sgd_on, with_classes, with_engine
from tests.helpers.processes import examples
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines import fused, selection
from twolayer.engines.base import Data, Engine
from twolayer.engines.factory import make_engine
from twolayer.engines.fused import PlainEngine
from twolayer.engines.losses import ClassScore, Objective
from twolayer.hardware.threads import set_up
from twolayer.training.loop import fit
from twolayer.training.metrics import final_loss
from twolayer.training.setup import prepare

ALL = [*ENGINES, "fused plain", "rows"]


# `fused plain` is fused for large x, and `rows` is what goes with a validation set.
engines = pytest.mark.parametrize("engine", ALL)


def start(config: Config, engine: str) -> tuple[Config, Data, nn.Sequential]:
    """What such an engine trains on from the config's start, with classes."""
    kind = {"fused plain": "fused primal", "rows": "fused"}.get(engine, engine)
    more = {"loss": "cross_entropy", "validation": 0.1 if engine == "rows" else None}
    config, data, model = prepare(with_engine(config, kind).model_copy(update=more))
    return config, with_classes(data), model


def made(engine: str, model: nn.Sequential, data: Data, config: Config) -> Engine:
    if engine != "fused plain":
        return make_engine(model, data, config)
    return PlainEngine(model, data, Objective.of(config), lr=float(config.lr))


def run(config: Config, engine: str, cuts: tuple[int, ...] = (5,)) -> tuple[Tensor, list[Tensor]]:
    config, data, model = start(config, engine)
    with set_up(config):
        machine = made(engine, model, data, config)
        scores = torch.cat([machine.advance(count) for count in cuts])
        machine.sync()
    return scores, [parameter.detach() for parameter in model.parameters()]


@pytest.mark.sample(4)
@engines
@given(config=configs(30))
@examples(40)
def test_each_engine_is_torchs_sgd_on_torchs_cross_entropy(engine: str, config: Config) -> None:
    config = config.model_copy(update={"lr": 1e-2 if config.reduction == "mean" else 1e-4})
    full, data, model = start(config, engine)
    expected = torch.stack(sgd_on(model, data, full, [None] * 5))
    scores, weights = run(config, engine)
    rel = 1e-10 if config.dtype == "float64" else 1e-4
    torch.testing.assert_close(scores[:, 0], expected[:, 0], rtol=rel, atol=rel * float(expected[0, 0]))
    assert scores.shape == (5, 2)
    if config.dtype == "float64":  # rounding may turn one row's answer
        assert torch.equal(scores[:, 1], expected[:, 1])
    for own, parameter in zip(weights, model.parameters(), strict=True):
        torch.testing.assert_close(own, parameter.detach(), rtol=0, atol=rel * float(parameter.detach().abs().max()))


@given(configs())
@examples(100)
def test_manual_equals_autograd_bit_for_bit_for_classes_too(config: Config) -> None:
    assume(config.N > 1 or config.H > 1)
    scores, weights = run(config, "autograd")
    manual_scores, manual_weights = run(config, "manual")
    assert same([manual_scores[:, 1]], [scores[:, 1]])
    torch.testing.assert_close(manual_scores[:, 0], scores[:, 0], rtol=1e-6, atol=0)  # its sum is in another order
    assert same(manual_weights, weights)


@engines
def test_in_float64_100_iterations_agree_with_numpy(engine: str) -> None:
    config = load_config("default", N=40, D_in=6, H=9, D_out=3, dtype="float64", lr=0.5, reduction="mean")
    _, data, model = start(config, engine)
    x, y = data.x.numpy(), data.y.numpy()
    w1, b1, w2, b2 = (parameter.detach().numpy().copy() for parameter in model.parameters())
    expected = []
    for _ in range(100):
        h = np.maximum(x @ w1.T + b1, 0)
        z = h @ w2.T + b2
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        expected.append([-np.log((p * y).sum(1)).mean(), (z.argmax(1) == y.argmax(1)).mean()])
        g = (p - y) / len(x)
        gh = (g @ w2) * (h > 0)
        w2, b2, w1, b1 = w2 - 0.5 * g.T @ h, b2 - 0.5 * g.sum(0), w1 - 0.5 * gh.T @ x, b1 - 0.5 * gh.sum(0)
    scores, weights = run(config, engine, (100,))
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-9)
    for own, other in zip(weights, (w1, b1, w2, b2), strict=True):
        np.testing.assert_allclose(own.numpy(), other, rtol=0, atol=1e-9)


@engines
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4, 1e30])
def test_a_loss_is_right_however_small_or_large(engine: str, size: float, reduction: str) -> None:
    config, data, model = start(load_config("default", D_out=4, lr=1e-9, reduction=reduction), engine)
    with torch.no_grad():
        list(model.parameters())[2].mul_(size)
    truth = score(copy.deepcopy(model).double(), Data(data.x.double(), data.y.double()), config).detach()
    with set_up(config):
        found = made(engine, model, data, config).advance(1)[0]
    torch.testing.assert_close(found.double(), truth, rtol=2e-6, atol=0)


@engines
def test_of_equal_outputs_the_first_counts(engine: str) -> None:
    config, data, model = start(load_config("default"), engine)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    loss, accuracy = made(engine, model, data, config).advance(1)[0].tolist()
    assert accuracy == pytest.approx(float(data.y[:, 0].mean()))
    assert loss == pytest.approx(64 * np.log(10))


@engines
@pytest.mark.parametrize("shape", [(64, 1000, 100, 10), (100, 3, 32, 2), (20, 5, 4, 700), (1, 9, 3, 2)])
def test_neither_cuts_nor_syncs_change_a_bit(
    engine: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "FOLD_EVERY", 13)
    monkeypatch.setattr(fused, "CHUNK", 2000)
    N, D_in, H, D_out = shape
    config = load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, lr=1e-4)
    scores, weights = run(config, engine, (1, 7, 30, 2))
    whole, whole_weights = run(config, engine, (40,))
    assert torch.equal(scores, whole)
    assert same(weights, whole_weights)


@engines
def test_nothing_is_allocated_inside_the_loop(engine: str) -> None:
    if engine == "autograd":
        pytest.skip("autograd allocates by its nature")
    config, data, model = start(load_config("scratch", D_out=3, data={"source": "random"}), engine)
    machine = made(engine, model, data, config)
    machine.advance(3)
    assert allocations(lambda: machine.advance(50)) == [4 * 2 * 50]
    assert allocations(lambda: machine.advance(500)) == [4 * 2 * 500]


@engines
def test_a_training_gives_the_losses_and_the_final_one(engine: str) -> None:
    config, data, model = start(load_config("default", lr=1e-3, epochs=20), engine)
    if engine == "rows":
        data = replace(data, validation=data)
    losses = [loss for block in fit(model, data, config) for loss in block.losses]
    assert len(losses) == 20
    end = final_loss(model, data, config)
    assert end < losses[-1] < losses[0]
    assert end == pytest.approx(score(model, data, config)[0].item(), rel=1e-6)


def test_a_score_goes_into_the_tensor_that_is_given_each_time() -> None:
    z, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.eye(3)[[0, 1, 2, 0, 1]]
    score, first, second = ClassScore(z, -1), torch.zeros(2), torch.zeros(2)
    score(z, y, first)
    expected = [-float(nn.functional.cross_entropy(z, y, reduction="sum")), float((z.argmax(1) == y.argmax(1)).sum())]
    torch.testing.assert_close(first, torch.tensor(expected))
    score(-z, y, second)
    torch.testing.assert_close(first, torch.tensor(expected))
    score(z, y, second)
    assert torch.equal(first, second)
