"""Training on a table: epochs of batches, validation and early stopping, against torch.optim.SGD and by definition."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

from tests.helpers.oracles import same
from tests.helpers.trained import config_of
from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.training.epoch import epoch_order
from twolayer.training.loop import Fit, fit, train
from twolayer.training.setup import prepare

ENGINES = ["autograd", "manual", "fused", "compiled"]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that two of four columns tell apart, as far as they can."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 4, generator=generator)
    noisy = x[:, 0] + 0.5 * torch.randn(150, generator=generator)
    names = ["low" if v < -0.5 else "high" if v > 0.5 else "middle" for v in noisy.tolist()]
    path = tmp_path_factory.mktemp("classes") / "classes.csv"
    pl.DataFrame({f"x{i}": column.tolist() for i, column in enumerate(x.t())} | {"y": names}).write_csv(path)
    return path


def rows_of(training: Fit) -> list[tuple[float, ...]]:
    return [row for block in training for row in block.every(1)]


def by_sgd(config: Config, data: Data, model: nn.Sequential) -> list[tuple[float, ...]]:
    """The rows of the history, as PyTorch's own optimiser and losses give them."""
    is_mse = config.loss == "mse"
    loss_fn = (nn.MSELoss if is_mse else nn.CrossEntropyLoss)(reduction=config.reduction)
    optimizer = torch.optim.SGD(model.parameters(), lr=float(config.lr))
    assert data.validation is not None

    def scores(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        output = model(x)
        accuracy = (output.argmax(1) == y.argmax(1)).double().mean()
        return [loss_fn(output, y)] if is_mse else [loss_fn(output, y), accuracy]

    rows = []
    for epoch in range(config.epochs):
        with torch.no_grad():
            validated = [float(score) for score in scores(data.validation.x, data.validation.y)]
        order = epoch_order(config.seed, epoch, config.N)
        count = max(1, int(config.N / (config.batch_size or config.N) + 0.5))
        edges = [i * config.N // count for i in range(count + 1)]
        totals = [0.0] * len(validated)
        for start, end in pairwise(edges):
            loss, *accuracy = scores(data.x[order[start:end]], data.y[order[start:end]])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            share = (end - start) / config.N
            totals[0] += float(loss.detach()) * (share if config.reduction == "mean" else 1)
            for value in accuracy:
                totals[1] += float(value.detach()) * share
        rows.append((epoch + 1, *totals, *validated))
    return rows


@pytest.mark.sample(16)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("batch_size", [64, 7, None, 10_000])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("of_classes", [False, True])
def test_epochs_are_those_of_torch_optim_sgd(
    of_classes: bool, engine: str, batch_size: int | None, reduction: str, classes: Path
) -> None:
    lr = 0.02 if reduction == "mean" else 1e-4
    config = config_of(
        classes if of_classes else None,
        engine=engine,
        batch_size=batch_size,
        reduction=reduction,
        lr=lr,
        epochs=4,
        dtype="float64",
        average=None,
    )
    full, data, model = prepare(config)
    rows = rows_of(fit(model, data, full))
    _, _, other = prepare(config)
    expected = by_sgd(full, data, other)
    assert len(rows[0]) == (5 if of_classes else 3) == len(full.columns)
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-9)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.sample(12)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("of_classes", [False, True])
@pytest.mark.parametrize("options", [{}, {"batch_size": None}, {"validation": None}, {"lr": 0.01}, {"average": None}])
@pytest.mark.parametrize("cut", [1, 9, 40])
def test_a_training_on_a_table_goes_on_bit_for_bit(
    cut: int, options: dict[str, Any], of_classes: bool, engine: str, classes: Path
) -> None:
    path = classes if of_classes else None
    full, data, model = (
        prepare(config_of(path, engine=engine, epochs=50, patience=15, **options))
        if (options.get("validation", 1) is not None)
        else prepare(config_of(path, engine=engine, epochs=50, **options))
    )
    whole = Fit(model, data, full)
    rows, outcome = rows_of(whole), whole.finish()
    weights = [parameter.detach().clone() for parameter in model.parameters()]

    _, data, model = prepare(full)
    first = Fit(model, data, full.model_copy(update={"epochs": cut}))
    found = rows_of(first)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    _, data, model = prepare(full)
    second = Fit(model, data, full, state, first.done)
    found += rows_of(second)
    assert found == rows
    assert second.finish() == outcome
    assert second.stopped == whole.stopped
    assert same([parameter.detach() for parameter in model.parameters()], weights)


@pytest.mark.parametrize("of_classes", [False, True])
@pytest.mark.parametrize("batch_size", [64, None])
def test_the_weights_that_are_kept_have_the_least_validation_loss(
    batch_size: int | None, of_classes: bool, classes: Path
) -> None:
    path = classes if of_classes else None
    whole, data, model = prepare(config_of(path, epochs=81, batch_size=batch_size))
    losses = [row[whole.columns.index("val_loss")] for row in rows_of(Fit(model, data, whole))]

    full = whole.model_copy(update={"patience": 10, "epochs": 80})
    _, data, model = prepare(full)
    training = Fit(model, data, full)
    stopped_at = len(rows_of(training))
    outcome = training.finish()
    seen = losses[: stopped_at + 1]
    assert outcome.kept == seen.index(min(seen))
    assert outcome.scores["val_loss"] == pytest.approx(min(seen), rel=1e-6)
    if training.stopped:
        assert stopped_at == outcome.kept + 10
    else:
        assert stopped_at == 80


def test_a_table_that_is_trained_on_twice_gives_the_same(classes: Path) -> None:
    one, two = (train(config_of(classes, epochs=20)) for _ in range(2))
    assert one.losses == two.losses
    assert one.final_loss == two.final_loss


def test_the_step_of_a_table_never_rises() -> None:
    full, data, model = prepare(config_of(None, epochs=100, validation=None))
    steps = [row[-1] for row in rows_of(fit(model, data, full))]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > steps[-1]


def test_the_order_of_the_rows_is_another_in_every_epoch_and_of_every_seed() -> None:
    orders = [epoch_order(seed, epoch, 100).tolist() for seed in (0, 1, 2**64 - 1) for epoch in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len(set(map(tuple, orders))) == 9
    assert epoch_order(1, 2, 100).tolist() == orders[5]
