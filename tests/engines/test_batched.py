"""Updates from batches, computing in parts, and judging by other rows: both engines that do so, against torch.optim."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.helpers.oracles import allocations, needs_cuda, same, score, sgd_on, with_classes
from tests.helpers.processes import examples
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.autograd import AutogradEngine
from twolayer.engines.base import Data, Engine, RowEngine
from twolayer.engines.batched import BatchedEngine
from twolayer.engines.dual import DualEngine
from twolayer.engines.factory import make_engine
from twolayer.engines.fused import PlainEngine, PrimalEngine
from twolayer.engines.losses import Objective
from twolayer.engines.manual import ManualEngine
from twolayer.engines.selection import choose_form
from twolayer.errors import DataError, StateError
from twolayer.hardware import memory
from twolayer.hardware.threads import set_up
from twolayer.runs import checkpoint
from twolayer.training.setup import prepare

KINDS = ["autograd", "manual", "fused", "compiled"]


def start(
    engine: str, loss: str = "mse", shape: tuple[int, ...] = (50, 6, 9, 3), batch_size: int | None = 16, **more: Any
) -> tuple[Config, Data, nn.Sequential]:
    """Data, a model and the config of an engine that takes rows."""
    N, D_in, H, D_out = shape
    values: dict[str, Any] = {"lr": 0.05, "reduction": "mean", "dtype": "float64"} | more
    config = load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, engine=engine, batch_size=batch_size, **values)
    config, data, model = prepare(config)
    config = config.model_copy(update={"loss": loss})
    return config, with_classes(data) if loss == "cross_entropy" else data, model


def made(model: nn.Sequential, data: Data, config: Config) -> RowEngine:
    return cast(RowEngine, make_engine(model, data, config))


def batches_of(N: int, size: int, epochs: int) -> list[Tensor]:
    """Near-equal batches of shuffled rows."""
    count, generator = -(-N // size), torch.Generator().manual_seed(3)
    edges = [round(i * N / count) for i in range(count + 1)]
    orders = [torch.randperm(N, generator=generator) for _ in range(epochs)]
    return [order[a:b] for order in orders for a, b in pairwise(edges)]


def weights(model: nn.Sequential) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def close(found: list[Tensor], expected: list[Tensor], rel: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=rel * float(other.abs().max()))


@pytest.mark.sample(2)
@pytest.mark.parametrize("engine", KINDS)
@given(
    loss=st.sampled_from(["mse", "cross_entropy"]),
    reduction=st.sampled_from(["sum", "mean"]),
    dtype=st.sampled_from(["float32", "float64"]),
    shape=st.tuples(st.integers(2, 60), st.integers(1, 30), st.integers(1, 30), st.integers(1, 5)),
    size=st.integers(1, 60),
    part=st.sampled_from([1, 100, 2**24]),
)
@examples(40)
def test_an_update_is_torchs_sgd_on_the_same_rows_however_large_the_parts(
    engine: str, loss: str, reduction: str, dtype: str, shape: tuple[int, ...], size: int, part: int
) -> None:
    config, data, model = start(engine, loss, shape, min(size, shape[0] - 1), reduction=reduction, dtype=dtype, lr=1e-3)
    batches = batches_of(shape[0], size, 2)
    with pytest.MonkeyPatch.context() as patch, set_up(config):
        patch.setattr(selection, "PART", part)
        machine = made(model, data, config)
        found = torch.stack([machine.update(rows) for rows in batches])
        machine.sync()
    trained = weights(model)
    config, _, model = start(engine, loss, shape, 1, reduction=reduction, dtype=dtype, lr=1e-3)
    expected = torch.stack(sgd_on(model, data, config, cast(list[Tensor | None], batches)))
    rel = 1e-10 if dtype == "float64" else 1e-4
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=rel, atol=rel * float(expected.max()))
    close(trained, weights(model), rel)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_autograd_is_torchs_sgd_on_batches_bit_for_bit(loss: str) -> None:
    config, data, model = start("autograd", loss, dtype="float32")
    batches = batches_of(50, 16, 3)
    machine = made(model, data, config)
    with set_up(config):
        found = [machine.update(rows) for rows in batches]
    trained = weights(model)
    config, _, model = start("autograd", loss, dtype="float32")
    with set_up(config):
        expected = sgd_on(model, data, config, cast(list[Tensor | None], batches))
    assert same(found, expected)
    assert same(trained, weights(model))


@pytest.mark.sample(20)
@pytest.mark.parametrize("part", [1, 90, 9 * 17, 9 * 49, 9 * 50])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("engine", KINDS)
def test_all_rows_in_parts_are_all_rows_at_once(
    engine: str, loss: str, reduction: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data, model = start(engine, loss, reduction=reduction, lr=1e-3)
    expected = torch.stack(sgd_on(model, data, config, [None] * 20))
    at_once = weights(model)
    monkeypatch.setattr(selection, "PART", part)
    config, _, model = start(engine, loss, reduction=reduction, lr=1e-3)
    machine = made(model, data, config)
    with set_up(config):
        found = torch.cat([machine.advance(count) for count in (1, 12, 7)])
        machine.sync()
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)
    close(weights(model), at_once, 1e-11)
    if isinstance(machine, BatchedEngine):
        assert machine.h.numel() <= max(part, 9)


@pytest.mark.parametrize("part", [9 * 7, 2**24])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("engine", KINDS)
def test_other_rows_are_judged_by_the_weights_as_they_are(
    engine: str, loss: str, reduction: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "PART", part)
    config, data, model = start(engine, loss, reduction=reduction, lr=1e-3)
    other = Data(data.x[:23] + 1, data.y[:23])
    data = Data(data.x, data.y, other)
    machine = made(model, data, config)
    with set_up(config):
        for rows in batches_of(50, 16, 1):
            before = machine.evaluate(other)
            assert same([machine.evaluate(other)], [before])
            machine.sync()
            torch.testing.assert_close(before, score(model, other, config).detach(), rtol=1e-11, atol=0)
            loss_before = machine.update(rows)
            kept = loss_before.clone()
        machine.evaluate(data)
        machine.update(batches_of(50, 16, 1)[0])
    assert same([loss_before], [kept])


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("engine", KINDS)
def test_from_its_state_it_goes_on_bit_for_bit(engine: str, loss: str) -> None:
    batches = batches_of(50, 16, 2)
    config, data, model = start(engine, loss, dtype="float32")
    machine = made(model, data, config)
    with set_up(config):
        whole = [machine.update(rows) for rows in batches[:3]]
        assert {name: tensor.shape for name, tensor in machine.state().items()} == {
            "w1": (9, 6),
            "b1": (9,),
            "w2": (3, 9),
            "b2": (3,),
        }
        saved, _ = checkpoint.unpack(b"".join(checkpoint.pack(machine.state(), {})))
        whole += [machine.update(rows) for rows in batches[3:]]
        whole.append(machine.advance(2))
        machine.sync()
    expected = weights(model)

    config, data, model = start(engine, loss, dtype="float32")
    machine = made(model, data, config)
    with set_up(config):
        machine.load_state(saved, 3)
        rest = [machine.update(rows) for rows in batches[3:]]
        rest.append(machine.advance(2))
        machine.sync()
    assert same(rest, whole[3:])
    assert same(weights(model), expected)
    with pytest.raises(DataError, match="is a state of another training"):
        machine.load_state({name: tensor for name, tensor in saved.items() if name != "b2"}, 3)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_rows_of_one_part_are_judged_as_those_of_several(monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    config, data, model = start("fused", loss)
    engine = BatchedEngine(model, data, Objective.of(config), lr=0.05)
    some = Data(data.x[:20], data.y[:20])
    at_once = engine.evaluate(some)
    engine.update(torch.arange(16))
    engine.load_state({name: tensor.clone() for name, tensor in made(model, data, config).state().items()}, 0)
    assert torch.equal(engine.evaluate(some), at_once)  # also with the buffers that an update has used
    monkeypatch.setattr(engine, "part", 8)
    torch.testing.assert_close(engine.evaluate(some), at_once)


def test_the_model_is_packed_after_training() -> None:
    config, data, model = start("fused")
    machine = made(model, data, config)
    machine.update(torch.arange(16))
    machine.sync()
    tensors, _ = checkpoint.unpack(b"".join(checkpoint.pack(model.state_dict(), {})))
    own = machine.state().values()
    assert same([tensors[name] for name in ("0.weight", "0.bias", "2.weight", "2.bias")], list(own))
    assert all(parameter.is_contiguous() for parameter in model.parameters())


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("part", [100, 2**24])
def test_nothing_is_allocated_by_an_update_or_an_iteration(
    loss: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "PART", part)
    config, data, model = start("fused", loss, dtype="float32")
    machine = made(model, data, config)
    batches = batches_of(50, 16, 1)
    outs = torch.empty(len(batches), *(() if loss == "mse" else (2,))).unbind()

    def epoch() -> None:
        for rows, out in zip(batches, outs, strict=True):
            machine.update(rows, out)

    epoch()
    machine.advance(1)
    # But for the sum over parts, of 8 or 16 bytes, which is cast.
    assert [size for size in allocations(epoch) if size > 16 or part > 100] == []
    sizes = allocations(lambda: machine.advance(20))
    assert [size for size in sizes if size > 16 or part > 100] == [4 * 20 * (1 if loss == "mse" else 2)]


def test_it_is_chosen_for_batches_validation_and_large_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(engine: str, batch_size: int | None, **more: object) -> type:
        config, data, model = start(engine, batch_size=batch_size)
        return type(make_engine(model, data, config.model_copy(update=more)))

    for engine in ("manual", "fused"):
        assert chosen(engine, 49) is BatchedEngine
        assert chosen(engine, 50) is not BatchedEngine
        assert chosen(engine, None) is not BatchedEngine
        assert chosen(engine, None, validation=0.1) is BatchedEngine
    assert chosen("autograd", 49) is AutogradEngine
    monkeypatch.setattr(selection, "PART", 449)  # 50 x 9 = 450 hidden units
    for engine in ("manual", "fused"):
        assert chosen(engine, None) is BatchedEngine
    assert chosen("fused", None, form="dual") is DualEngine


def test_many_rows_of_few_inputs_go_in_parts_that_the_cache_holds() -> None:
    def made_for(N: int, D_in: int, H: int, **more: Any) -> Engine:
        config, data, model = prepare(
            load_config("default", N=N, D_in=D_in, H=H, D_out=1, **{"form": "primal", **more})
        )
        return make_engine(model, data, config)

    for H, dtype, rows in ((64, "float32", 4096), (64, "float64", 2048), (20_000, "float32", 64)):
        many = made_for(2 * rows, 3, H, dtype=dtype)
        assert isinstance(many, BatchedEngine)
        assert len(many.h) == rows
        assert isinstance(made_for(2 * rows - 1, 3, H, dtype=dtype), PrimalEngine)
    assert isinstance(made_for(8192, 256, 64), BatchedEngine)
    assert isinstance(made_for(8192, 257, 64), PlainEngine)  # larger products are better with more rows
    assert isinstance(made_for(8192, 3, 64, engine="manual", form="auto"), ManualEngine)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_state_of_all_rows_at_once_goes_on_in_parts(loss: str) -> None:
    config, data, model = start("fused", loss)
    whole = PrimalEngine(copy.deepcopy(model), data, Objective.of(config), lr=1e-3)
    parts = BatchedEngine(model, data, Objective.of(config), lr=1e-3)
    whole.advance(5)
    parts.load_state(whole.state(), 5)
    torch.testing.assert_close(parts.advance(5), whole.advance(5), rtol=1e-11, atol=0)
    with pytest.raises(StateError):
        parts.load_state({"a_t": whole.a_t[:2], "b": whole.b}, 5)


def test_the_form_of_what_goes_by_rows_is_primal(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("default")
    assert choose_form(config) == "dual"
    assert choose_form(config.model_copy(update={"batch_size": 32})) == "primal"
    assert choose_form(config.model_copy(update={"validation": 0.1})) == "primal"
    assert prepare(load_config("default", batch_size=32))[0].engine_name == "fused (primal)"
    monkeypatch.setattr(selection, "PART", 64 * 100 - 1)
    assert choose_form(config) == "primal"


def test_the_memory_of_a_large_table_is_that_of_a_part() -> None:
    config = load_config("default", N=10_000_000, D_in=10, H=100, D_out=1)
    for engine, at_once in (("fused", 2**18), ("autograd", 2**24)):
        numbers = 10_000_000 * 11 + 3 * (100 * 11 + 101) + 2 * (at_once // 100) * 101
        assert memory.needed(config.model_copy(update={"engine": engine})) == 4 * numbers


def test_validation_rows_of_another_shape_are_refused() -> None:
    config, data, model = start("fused")
    for wrong in (Data(data.x[:, :5], data.y), Data(data.x, data.y[:, :2])):
        with pytest.raises(DataError, match=r"the validation rows' . must be of shape"):
            make_engine(model, Data(data.x, data.y, wrong), config)


@pytest.mark.parametrize("engine", KINDS)
def test_the_largest_step_diverges_and_is_no_other_error(engine: str) -> None:
    config, data, model = start(engine, dtype="float32", lr=3e38, reduction="sum")
    machine = made(model, data, config)
    losses = [float(machine.update(rows)) for rows in batches_of(50, 16, 2)]
    assert not torch.tensor(losses).isfinite().all()


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("engine", KINDS[:-1])
def test_on_cuda_it_is_the_same_descent(engine: str, loss: str) -> None:
    results = []
    for device in ("cpu", "cuda"):
        config, data, model = start(engine, loss, device=device)
        machine = made(model, data, config)
        with set_up(config):
            found = [machine.update(rows.to(data.x.device)) for rows in batches_of(50, 16, 3)]
            found += [machine.evaluate(data), *machine.advance(3)]
        results.append(torch.stack(found).cpu())
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=0)
