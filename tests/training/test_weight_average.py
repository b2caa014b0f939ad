"""The average of the weights over epochs, against its definition in numpy, and trainings that keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from tests.helpers.oracles import needs_cuda, same
from tests.helpers.trained import config_of
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.errors import ConfigError, StateError
from twolayer.training.loop import Fit
from twolayer.training.setup import prepare
from twolayer.training.weight_average import WeightAverage

ENGINES = ["autograd", "manual", "fused", "compiled"]
Arrays = list[np.ndarray[Any, np.dtype[np.float64]]]


def defined(history: list[Arrays], decay: float) -> Arrays:
    """The average by its definition: after t epochs the weights of epoch i count decay^(t - i)."""
    counts = np.array([decay ** (len(history) - 1 - i) for i in range(len(history))])
    return [np.tensordot(counts / counts.sum(), np.stack(each), 1) for each in zip(*history, strict=True)]


def arrays(tensors: Any) -> Arrays:
    return [tensor.detach().double().cpu().numpy().copy() for tensor in tensors]


def scores(weights: Arrays, data: Data, loss: str) -> list[float]:
    """The loss, a mean, and for classes the accuracy, in numpy."""
    w1, b1, w2, b2 = weights
    x, y = data.x.double().cpu().numpy(), data.y.double().cpu().numpy()
    output = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
    if loss == "mse":
        return [float(((output - y) ** 2).mean())]
    log_p = output - np.log(np.exp(output).sum(1, keepdims=True))
    return [float(-(log_p * y).sum(1).mean()), float((output.argmax(1) == y.argmax(1)).mean())]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, as noisy as they have to be for the last weights and their average to differ."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator)
    noisy = (x[:, 0] + torch.randn(200, generator=generator)).tolist()
    names = ["low" if v < -0.5 else "high" if v > 0.5 else "middle" for v in noisy]
    path = tmp_path_factory.mktemp("classes") / "classes.csv"
    pl.DataFrame({f"x{i}": column.tolist() for i, column in enumerate(x.t())} | {"y": names}).write_csv(path)
    return path


def trained(config: Config) -> tuple[list[tuple[float, ...]], list[Arrays], Fit]:
    """The rows of the history, the weights after each epoch, and the training."""
    config, data, model = prepare(config)
    training = Fit(model, data, config, cut_every=1)
    rows: list[tuple[float, ...]] = []
    weights: list[Arrays] = []
    for block in training:
        rows += list(block.every(1))
        weights.append(arrays(model.parameters()))
    return rows, weights, training


@pytest.mark.parametrize("decay", [0.5, 0.97, 0.999])
def test_it_is_the_average_of_its_definition_without_the_initial_weights(decay: float) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = {name: torch.randn(size, generator=generator, dtype=torch.float64) for name, size in (("a", 3), ("b", 1))}
    average, seen = WeightAverage(weights, decay), []
    assert same(list(average.mean.values()), list(weights.values()))  # before the first epoch
    for done in range(1, 60):
        for tensor in weights.values():
            tensor.normal_(generator=generator)
        average.add(done)
        seen.append(arrays(weights.values()))
        for found, wanted in zip(arrays(average.mean.values()), defined(seen, decay), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


def test_the_engine_has_its_own_weights_again_after_a_look_at_the_average() -> None:
    weights = {"w1": torch.tensor([0.1, 1e-30])}
    own = weights["w1"]
    average = WeightAverage(weights, 0.9)
    own.copy_(torch.tensor([0.3, 1e30]))
    with average.in_place():
        assert own.tolist() == pytest.approx([0.1, 1e-30])
    assert same([own], [torch.tensor([0.3, 1e30])])
    with pytest.raises(ZeroDivisionError), average.in_place():
        _ = 1 / 0
    assert same([own], [torch.tensor([0.3, 1e30])])


def assert_averaged(engine: str, path: Path | None, **options: Any) -> None:
    """Hold a training with `average` against one without it, whose weights are averaged in numpy."""
    options = {
        "engine": engine,
        "lr": 0.05,
        "epochs": 25,
        "dtype": "float64",
        "average": 0.9,
        "patience": None,
    } | options
    rows, weights, training = trained(config_of(path, **options))
    plain_rows, plain_weights, _ = trained(config_of(path, **options | {"average": None}))
    config, data = training.config, training.data
    width = len([name for name in config.columns if not name.startswith("val_")])
    assert [row[:width] for row in rows] == [row[:width] for row in plain_rows]  # the descent is the same
    for each, plain in zip(weights, plain_weights, strict=True):
        assert all(map(np.array_equal, each, plain))

    averages = [arrays(prepare(config)[2].parameters())]
    averages += [defined(plain_weights[:done], 0.9) for done in range(1, 26)]
    if data.validation is not None:
        for row, average in zip(rows, averages, strict=False):
            assert row[width:] == pytest.approx(scores(average, data.validation, config.loss), rel=1e-9)
    outcome = training.finish()
    assert outcome.kept == 25
    for found, wanted in zip(arrays(training.model.parameters()), averages[25], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    assert outcome.loss == pytest.approx(scores(averages[25], data, config.loss)[0], rel=1e-9)


@pytest.mark.sample(8)
@pytest.mark.parametrize("options", [{}, {"batch_size": None, "average": 0.9}, {"validation": None}])
@pytest.mark.parametrize("of_classes", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_validates_and_keeps_the_average_and_descends_as_without_it(
    engine: str, of_classes: bool, options: dict[str, Any], classes: Path
) -> None:
    assert_averaged(engine, classes if of_classes else None, **options)


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_keeps_the_average_on_cuda(engine: str, classes: Path) -> None:
    assert_averaged(engine, classes, device="cuda")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_best_weights_are_the_average_with_the_least_validation_loss(engine: str) -> None:
    options = {"engine": engine, "epochs": 150, "dtype": "float64", "average": 0.9, "lr": 0.05}
    rows, _, training = trained(config_of(None, **options, patience=10))
    assert training.stopped
    _, plain_weights, _ = trained(config_of(None, **options | {"average": None, "epochs": len(rows)}))
    outcome = training.finish()
    assert outcome.kept == len(rows) - 10
    losses = [row[-1] for row in rows]
    assert losses[outcome.kept] == min(losses)
    assert outcome.scores["val_loss"] == pytest.approx(min(losses), rel=1e-9)
    best = defined(plain_weights[: outcome.kept], 0.9)
    for found, wanted in zip(arrays(training.model.parameters()), best, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_a_drawn_problem_can_be_averaged_too_an_iteration_at_a_time() -> None:
    config = load_config("scratch", environment={}, epochs=30, average=0.9, dtype="float64")
    rows, weights, training = trained(config)
    assert len(rows) == 30
    training.finish()
    for found, wanted in zip(arrays(training.model.parameters()), defined(weights, 0.9), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_a_state_without_the_average_is_another_training_s() -> None:
    config, data, model = prepare(config_of(None, epochs=3))
    state = Fit(model, data, config.model_copy(update={"average": None})).state()
    with pytest.raises(StateError, match=r"average\.b1 is missing"):
        Fit(model, data, config, state, 1)
    average = WeightAverage(dict(nn.Linear(1, 1).state_dict()), 0.9)
    with pytest.raises(StateError):
        average.load_state({})


def test_a_file_with_batches_is_averaged_by_default_and_nothing_else(classes: Path) -> None:
    assert config_of(classes).average == config_of(None).average == 0.97
    assert config_of(classes, epochs=7).average == 0.97
    assert config_of(classes, average=None).average is None
    assert config_of(classes, batch_size=None).average is None  # an epoch is one step then
    assert load_config("default", environment={}).average is None
    with pytest.raises(ConfigError, match="average is set"):
        load_config("default", environment={}, form="dual", average=0.9)
    for wrong in (0, 1, 1.5, -0.1, "yes"):
        with pytest.raises(ConfigError, match=r"average=: must be a number between 0 and 1"):
            load_config("default", environment={}, average=wrong)
