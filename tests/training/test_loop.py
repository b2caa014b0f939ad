from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.published import agree_to_three_digits, published
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.errors import ConfigError, DivergedError
from twolayer.hardware.threads import set_up
from twolayer.runs.history import Block
from twolayer.training import loop
from twolayer.training.doctor.book import published_losses
from twolayer.training.loop import fit, train
from twolayer.training.metrics import final_loss
from twolayer.training.setup import prepare


def test_train_gives_the_books_losses_and_the_model_they_lead_to() -> None:
    result = train(load_config("default"))
    assert agree_to_three_digits(result.losses, published_losses())
    with torch.no_grad(), set_up(result.config):
        loss = nn.MSELoss(reduction="sum")(result.model(result.data.x), result.data.y)
    assert result.final_loss == float(loss) < result.losses[-1]
    assert result.seconds > 0
    assert (result.config.device, result.config.engine, result.config.form) == ("cpu", "fused", "dual")
    assert isinstance(result.config.threads, int)


@pytest.mark.parametrize("seeds", [50, pytest.param(200, marks=pytest.mark.deep)])
@pytest.mark.parametrize(("name", "column"), [("scratch", "scratch_loss"), ("modules", "modules_loss")])
def test_the_published_curve_lies_inside_the_95_percent_band_of_many_seeds(name: str, column: str, seeds: int) -> None:
    curve = published("torch_for_r_losses.csv", column)
    curves = np.array([train(load_config(name, seed=seed)).losses for seed in range(seeds)])
    low, high = np.quantile(curves[:, 9::10], [0.025, 0.975], axis=0)
    assert len(curve) == len(low) == 20
    assert (low <= curve).all()
    assert (curve <= high).all()


def test_blocks_are_consecutive_and_their_cuts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("default")
    whole = train(config)
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1000.0)  # each has four times the iterations of the one before
    full, data, model = prepare(config)
    blocks = list(fit(model, data, full))
    assert [len(block.losses) for block in blocks] == [1, 4, 16, 64, 256, 159]
    assert [block.first for block in blocks[1:]] == [block.last + 1 for block in blocks[:-1]]
    assert (blocks[0].first, blocks[-1].last) == (1, 500)
    assert tuple(loss for block in blocks for loss in block.losses) == whole.losses
    assert all(map(torch.equal, model.parameters(), whole.model.parameters()))


@pytest.mark.parametrize(("engine", "rel"), [("autograd", 0.0), ("manual", 0.0), ("fused", 1e-5), ("compiled", 1e-5)])
def test_between_two_blocks_the_model_is_the_one_of_the_next_loss(engine: str, rel: float) -> None:
    config, data, model = prepare(load_config("default", epochs=50, engine=engine))
    expected = None
    for block in fit(model, data, config):
        assert expected is None or block.losses[0] == pytest.approx(expected, rel=rel, abs=0)
        expected = final_loss(model, data, config)


def test_fit_leaves_grad_mode_and_threads_to_its_consumer() -> None:
    threads = torch.get_num_threads()
    config, data, model = prepare(load_config("default", epochs=20, threads=threads + 1))
    for _ in fit(model, data, config):
        assert torch.is_grad_enabled()
        assert torch.get_num_threads() == threads


def collect(blocks: Iterator[Block]) -> tuple[list[float], DivergedError]:
    """All losses up to the divergence, and the divergence."""
    losses: list[float] = []
    try:
        for block in blocks:
            losses.extend(block.losses)
    except DivergedError as error:
        return losses, error
    raise AssertionError("it did not diverge")


def test_the_first_loss_that_is_not_finite_ends_the_training_there() -> None:
    config, data, model = prepare(load_config("default", lr=1.0))
    losses, error = collect(fit(model, data, config))
    assert [math.isfinite(loss) for loss in losses] == [True] * (len(losses) - 1) + [False]
    assert (error.iteration, error.exit_code) == (len(losses), 3)
    where = f"at iteration {len(losses)}, after {len(losses) - 1} updates"
    assert str(error).startswith(f"the loss is {losses[-1]} {where}: lr 1 is too large")


def test_a_loss_that_is_not_finite_after_the_last_update_is_a_divergence_too() -> None:
    config, data, model = prepare(load_config("default", lr=1.0))
    finite = len(collect(fit(model, data, config))[0]) - 1
    config, data, model = prepare(config.model_copy(update={"epochs": finite}))
    assert all(math.isfinite(loss) for block in fit(model, data, config) for loss in block.losses)
    with pytest.raises(DivergedError, match=f"after {finite} updates:"):
        final_loss(model, data, config)


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(ConfigError, match="of memory"):
        train(load_config("default", N=10**13))


def test_prepare_resolves_every_auto() -> None:
    config, data, model = prepare(load_config("default", device="auto", N=3))
    assert isinstance(config, Config)
    assert "auto" not in (config.device, config.engine, config.threads)
    assert data.x.shape == (3, 1000)
    assert data.y.shape == (3, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 101110
