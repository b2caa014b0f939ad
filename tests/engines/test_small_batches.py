"""Small batches, whose rows are fetched together: the same bits however the calls are cut, and torch.optim.SGD's."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.engines.test_batched import batches_of, close, made, start, weights
from tests.helpers.oracles import allocations, same, sgd_on
from tests.helpers.processes import examples
from twolayer.engines import small_batches
from twolayer.engines.batched import BatchedEngine
from twolayer.hardware.threads import set_up


def trained(
    batches: list[Tensor], calls: list[int], loss: str, shape: tuple[int, ...], **more: Any
) -> tuple[Tensor, list[Tensor]]:
    """The losses of updates from these batches, so many in each call, and the weights after them."""
    config, data, model = start("fused", loss, shape, 1, **{"lr": 1e-2} | more)
    machine = made(model, data, config)
    losses, at = torch.empty(len(batches), *(() if loss == "mse" else (2,)), dtype=data.x.dtype), 0
    with set_up(config):
        for count in [*calls, len(batches)]:
            end = min(at + count, len(batches))
            if end > at:
                machine.updates(batches[at:end], losses[at:end])
            at = end
        machine.sync()
    return losses, weights(model)


@given(
    loss=st.sampled_from(["mse", "cross_entropy"]),
    dtype=st.sampled_from(["float32", "float64"]),
    shape=st.tuples(st.integers(2, 300), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5)),
    size=st.integers(1, 70),
    calls=st.lists(st.integers(1, 9), max_size=6),
)
@examples(60)
def test_a_batch_gives_the_same_bits_wherever_a_call_ends(
    loss: str, dtype: str, shape: tuple[int, ...], size: int, calls: list[int]
) -> None:
    batches = batches_of(shape[0], min(size, shape[0]), 2)
    at_once = trained(batches, [], loss, shape, dtype=dtype)
    assert same(*([losses, *after] for losses, after in (at_once, trained(batches, calls, loss, shape, dtype=dtype))))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("D_out", [1, 3])
def test_several_batches_in_a_call_are_torchs_sgd(loss: str, D_out: int, threads: int) -> None:
    shape = (200, 6, 9, D_out)
    batches = batches_of(200, 33, 3)
    losses, after = trained(batches, [], loss, shape, threads=threads)
    config, data, model = start("fused", loss, shape, 1, lr=1e-2)
    expected = torch.stack(sgd_on(model, data, config, cast(list[Tensor | None], batches)))
    torch.testing.assert_close(losses, expected, rtol=1e-11, atol=0)
    close(after, weights(model), 1e-11)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_larger_batch_among_small_ones_is_computed_by_itself(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (200, 6, 9, 3)
    batches = [torch.arange(start, start + n) for start, n in ((0, 8), (8, 50), (60, 8), (70, 9), (80, 100))]
    expected, weights_expected = trained(batches, [], loss, shape)
    monkeypatch.setattr(small_batches, "SMALL_HIDDEN", 81)  # 9 rows of 9 hidden units
    losses, after = trained(batches, [], loss, shape)
    torch.testing.assert_close(losses, expected, rtol=1e-11, atol=0)
    close(after, weights_expected, 1e-11)
    assert same(*([a, *b] for a, b in ((losses, after), trained(batches, [1, 1, 2], loss, shape))))


def test_views_are_kept_for_a_limited_number_of_sequences_of_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_batches, "PLANS", 3)
    config, data, model = start("fused", shape=(60, 6, 9, 3))
    machine = made(model, data, config)
    assert isinstance(machine, BatchedEngine)
    for n in range(1, 9):
        machine.updates([torch.arange(n), torch.arange(n + 1)], torch.empty(2, dtype=torch.float64))
        assert 1 <= len(machine.small.plans) <= 3


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_nothing_is_allocated_by_calls_with_the_same_sizes(loss: str) -> None:
    config, data, model = start("fused", loss, (200, 6, 9, 3), dtype="float32")
    machine = made(model, data, config)
    batches = batches_of(200, 33, 1)
    losses = torch.empty(len(batches), *(() if loss == "mse" else (2,)))
    machine.updates(batches, losses)
    assert allocations(lambda: machine.updates(batches, losses)) == []


@pytest.mark.parametrize(("dtype", "lr"), [("float32", 3e38), ("float64", 1.5e308)])  # PyTorch refuses twice as much
def test_a_batch_that_diverges_spoils_no_loss_before_it(dtype: str, lr: float) -> None:
    shape = (60, 6, 9, 3)
    batches = batches_of(60, 10, 1)
    expected, _ = trained(batches[:3], [], "mse", shape, lr=lr, dtype=dtype, reduction="sum")
    losses, _ = trained(batches, [], "mse", shape, lr=lr, dtype=dtype, reduction="sum")
    assert torch.isfinite(losses[0])
    assert not torch.isfinite(losses[3:]).any()
    assert same([losses[:3]], [expected])


def test_what_is_fetched_at_once_is_limited_for_many_inputs_and_for_many_outputs() -> None:
    for D_in, D_out, size in ((2047, 3, 64), (3, 60, 64), (2047, 3, 10)):
        config, data, model = start("fused", shape=(2048, D_in, 4, D_out))
        machine = made(model, data, config)
        assert isinstance(machine, BatchedEngine)
        batches = batches_of(2048, size, 1)
        machine.updates(batches, torch.empty(len(batches), dtype=torch.float64))
        x, y = machine.small.buffers.x.numel(), machine.small.buffers.y.numel()
        assert max(x, 4 * y) > small_batches.NUMBERS / 2
        assert max(x, 4 * y) <= small_batches.NUMBERS


@pytest.mark.parametrize(
    ("loss", "D_in", "H", "D_out", "small", "large"),
    [
        ("mse", 3, 4, 64, 64, 65),
        ("cross_entropy", 3, 4, 64, 256, 257),
        ("mse", 1023, 4, 1, 128, 129),
        ("mse", 300, 1000, 1, 262, 263),
        ("mse", 4095, 4, 1, 16, 1),  # 15 rows of 4096 numbers would be fetched for nothing
    ],
)
def test_a_batch_whose_arithmetic_costs_more_than_calls_is_computed_by_itself(
    loss: str, D_in: int, H: int, D_out: int, small: int, large: int
) -> None:
    config, data, model = start("fused", loss, (300, D_in, H, D_out))
    machine = made(model, data, config)
    assert isinstance(machine, BatchedEngine)
    assert [machine.small.fits(torch.arange(n)) for n in (small, large)] == [True, False]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("D_in", "H", "size"), [(200, 100, 600), (30, 20, 1000), (30, 20, 100), (30, 1, 100)])
def test_the_first_layers_weights_in_float32_are_as_near_to_float64_as_torchs_sgd(
    D_in: int, H: int, size: int, threads: int
) -> None:
    batches, shape = batches_of(1200, size, 5), (1200, D_in, H, 2)
    config, data, model = start("fused", shape=shape, lr=1e-2, threads=threads, dtype="float64")
    sgd_on(model, data, config, cast(list[Tensor | None], batches))
    exact = weights(model)[0]
    config, data, model = start("fused", shape=shape, lr=1e-2, threads=threads, dtype="float32")
    machine = made(model, data, config)
    assert isinstance(machine, BatchedEngine)
    assert all(map(machine.small.fits, batches))
    _, (own, *_) = trained(batches, [], "mse", shape, threads=threads, dtype="float32")
    with set_up(config):
        sgd_on(model, data, config, cast(list[Tensor | None], batches))
    ours, torchs = (float((each.double() - exact).norm()) for each in (own, weights(model)[0]))
    assert ours <= 1.2 * torchs
