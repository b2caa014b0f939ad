"""The engines against each other and against three independent oracles: torch.optim.SGD, numpy and the profiler."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from torch import nn

from tests.helpers.oracles import (
    ENGINES,
    ON_CUDA,
    allocations,
    configs,
    needs_cuda,
    numpy64,
    run,
    same,
    sgd,
    with_engine,
)
from tests.helpers.processes import examples
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines import factory, fused, selection
from twolayer.engines.base import Data
from twolayer.engines.factory import make_engine
from twolayer.engines.losses import Objective
from twolayer.engines.selection import choose_engine
from twolayer.errors import DataError
from twolayer.hardware.threads import set_up
from twolayer.training.setup import prepare


@given(configs())
@examples(300)
def test_manual_equals_autograd_bit_for_bit(config: Config) -> None:
    assume(config.N > 1 or config.H > 1)  # the one shape for which PyTorch takes another kernel: see below
    losses, weights = run(with_engine(config, "autograd"))
    manual_losses, manual_weights = run(with_engine(config, "manual"))
    assert list(map(repr, manual_losses)) == list(map(repr, losses))  # nan equals nan
    assert same(manual_weights, weights)


@given(configs())
@examples(50)
def test_at_one_row_and_one_hidden_unit_manual_equals_autograd_to_rounding(config: Config) -> None:
    config = config.model_copy(update={"N": 1, "H": 1})
    losses, weights = run(with_engine(config, "autograd"))
    manual_losses, manual_weights = run(with_engine(config, "manual"))
    assert manual_losses == pytest.approx(losses, rel=1e-6)
    # The gradients of the first layer are sums over the outputs, which may nearly cancel: each term is rounded.
    full, data, model = prepare(config)
    numerator, denominator = Objective.of(full).gradient_scale(1, full.D_out)
    with torch.no_grad():
        *_, w2, _ = model.parameters()
        sizes = float(((model(data.x) - data.y).abs() @ w2.abs()).max())
    terms = sizes * numerator / denominator * float(full.lr) * 5
    largest_terms = [terms * float(data.x.abs().max()), terms, 0.0, 0.0]
    for one, other, of_sum in zip(manual_weights, weights, largest_terms, strict=True):
        rounding = torch.finfo(other.dtype).eps * of_sum
        assert float((one - other).abs().max()) <= 1e-6 * float(other.abs().max()) + rounding


@given(configs())
@examples(100)
def test_autograd_equals_torch_optim_sgd_bit_for_bit(config: Config) -> None:
    config = with_engine(config, "autograd")
    losses, weights = run(config)
    full, data, model = prepare(config)
    with set_up(full):
        assert list(map(repr, sgd(model, data, full, 5))) == list(map(repr, losses))
    assert same([parameter.detach() for parameter in model.parameters()], weights)


@pytest.mark.parametrize("engine", ENGINES)
@given(config=configs())
@examples(50)
def test_in_float64_each_engine_agrees_with_numpy_to_1e_10(engine: str, config: Config) -> None:
    config = with_engine(config, engine).model_copy(update={"dtype": "float64"})
    losses, weights = run(config)
    _, data, model = prepare(config)
    numpy_losses, numpy_weights = numpy64(model, data, config, 5)
    assert losses == pytest.approx(numpy_losses, rel=1e-10)
    for one, other in zip(weights, numpy_weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=0, atol=1e-10 * np.abs(other).max())


@pytest.mark.parametrize("engine", ENGINES)
def test_in_float64_the_books_500_iterations_agree_with_numpy(engine: str) -> None:
    config = with_engine(load_config("default", dtype="float64"), engine)
    _, data, model = prepare(config)
    rel = 1e-10 if engine in ("autograd", "manual") else 1e-9
    assert run(config, 500)[0] == pytest.approx(numpy64(model, data, config, 500)[0], rel=rel)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_twice_is_bit_identical(engine: str, threads: int) -> None:
    config = with_engine(load_config("default", threads=threads), engine)
    first, second = run(config, 100), run(config, 100)
    assert first[0] == second[0]
    assert same(first[1], second[1])


SHAPES = {
    "wide": (64, 1000, 100, 10),
    "small": (100, 3, 32, 1),
    "many outputs": (20, 5, 4, 700),
    "one row": (1, 9, 3, 2),
    "one hidden unit": (93, 142, 1, 25),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", [*ENGINES, "fused plain"])
def test_neither_cuts_nor_syncs_change_a_bit(
    engine: str, threads: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "FOLD_EVERY", 13)
    monkeypatch.setattr(fused, "CHUNK", 2000)
    if engine == "fused plain":
        engine = "fused primal"
        monkeypatch.setattr(factory, "FOLD_BELOW", 0)
    N, D_in, H, D_out = shape
    config = load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, lr=1e-5, threads=threads)
    config, data, model = prepare(with_engine(config, engine))
    losses = []
    with set_up(config):
        machine = make_engine(model, data, config)
        for count in (1, 7, 30, 2):
            losses += machine.advance(count).tolist()
            machine.sync()
            machine.sync()
    whole, weights = run(config, 40)
    assert losses == whole
    assert same([parameter.detach() for parameter in model.parameters()], weights)


@pytest.mark.parametrize("engine", ENGINES)
def test_after_a_sync_the_model_gives_the_next_loss(engine: str) -> None:
    config, data, model = prepare(with_engine(load_config("default"), engine))
    machine = make_engine(model, data, config)
    for count in (1, 10, 100):
        machine.advance(count)
        machine.sync()
        loss = float(nn.MSELoss(reduction="sum")(model(data.x), data.y).detach())
        assert float(machine.advance(1)) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_callers_grad_mode_neither_matters_nor_changes(engine: str, context: Callable[[], Any]) -> None:
    config = with_engine(load_config("scratch"), engine)
    expected = run(config)[0]
    with context():
        before = torch.is_grad_enabled()
        assert run(config)[0] == expected
        assert torch.is_grad_enabled() == before


@pytest.mark.parametrize("name", ["manual", "fused primal", "fused dual", "fused plain"])
@pytest.mark.parametrize("config_name", ["default", "scratch"])
def test_nothing_is_allocated_inside_the_loop(name: str, config_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "fused plain":
        name = "fused primal"
        monkeypatch.setattr(factory, "FOLD_BELOW", 0)
    monkeypatch.setattr(selection, "FOLD_EVERY", 100)
    config, data, model = prepare(with_engine(load_config(config_name), name))
    engine = make_engine(model, data, config)
    engine.advance(3)

    assert allocations(lambda: engine.advance(50)) == [4 * 50]  # the block's losses are all there is to allocate
    assert allocations(lambda: engine.advance(500)) == [4 * 500]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_no_one_holds_leaves_its_buffers_at_once(engine: str) -> None:
    config, data, model = prepare(with_engine(load_config("default"), engine))
    machine = make_engine(model, data, config)
    machine.advance(30)
    gone = weakref.ref(machine)
    gc.disable()  # what refers to itself is left to the collector, and may stand for long
    try:
        del machine
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), "must be Linear -> ReLU -> Linear with biases"),
        (
            nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 1)),
            "Linear -> ReLU -> Linear with biases",
        ),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), r"y must be of shape \(100, 2\), not \(100, 1\)"),
        (nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)), r"x must be of shape \(100, 5\), not \(100, 3\)"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 1)),
            r"second layer's weights must be of shape \(1, 4\)",
        ),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double(), "of one dtype and on one device"),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_another_model_than_ours_is_refused(model: nn.Sequential, message: str, engine: str) -> None:
    config, data, _ = prepare(with_engine(load_config("scratch"), engine))
    with pytest.raises(DataError, match=message):
        make_engine(model, data, config)


def test_auto_is_fused_and_on_mps_autograd() -> None:
    config = load_config("default")
    assert choose_engine(config) == "fused"
    assert choose_engine(config.model_copy(update={"device": "mps"})) == "autograd"
    assert choose_engine(with_engine(config, "autograd")) == "autograd"


@pytest.mark.parametrize("numba", ["works", "is missing", "cannot be imported"])
def test_auto_is_compiled_for_long_trainings_on_a_cpu_with_numba(numba: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if numba == "is missing":
        monkeypatch.setattr(selection, "find_spec", lambda _name: None)
    elif numba == "cannot be imported":  # as with a NumPy that it does not know
        monkeypatch.setattr(selection, "find_spec", lambda _name: True)
        monkeypatch.setitem(sys.modules, "numba", None)

    def chosen(**values: Any) -> str:
        return choose_engine(load_config("default", **{"N": 100, "D_in": 3, "H": 32, "D_out": 1, **values}))

    long = "compiled" if numba == "works" else "fused"
    assert chosen(epochs=500) == "fused"
    assert chosen(epochs=100_000) == long
    assert chosen(epochs=2000, N=64 * 100, batch_size=64) == long
    assert chosen(epochs=20, N=64 * 100, batch_size=64) == "fused"
    assert chosen(epochs=200, N=64 * 300, D_in=26, H=150, batch_size=64) == long  # a table of 22,600 rows, by default
    assert chosen(epochs=200, N=64 * 20, D_in=26, H=150, batch_size=64) == "fused"
    assert chosen(epochs=3000, N=50_000, D_in=20) == long
    assert chosen(epochs=10, N=900_000, D_in=20, H=64, batch_size=256) == long
    assert chosen(epochs=8, N=900_000, D_in=20, H=64, batch_size=256) == "fused"  # less than a second is saved
    assert chosen(epochs=100_000, D_in=1000) == "fused"  # dual
    assert chosen(epochs=100_000, form="primal") == "fused"
    assert chosen(epochs=100_000, N=4096, D_in=1024, H=1024) == "fused"  # large products are PyTorch's
    config = load_config("default", N=100, D_in=3, H=32, D_out=1, epochs=100_000)
    assert choose_engine(config.model_copy(update={"device": "cuda"})) == "fused"


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("engine", ON_CUDA)
@given(config=configs())
@examples(50)
def test_on_cuda_each_engine_agrees_with_numpy(engine: str, config: Config) -> None:
    config = with_engine(config, engine)
    rel = 1e-10 if config.dtype == "float64" else 1e-4
    losses, _ = run(config.model_copy(update={"device": "cuda"}))
    _, data, model = prepare(config)
    assert losses == pytest.approx(numpy64(model, data, config, 5)[0], rel=rel)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_largest_step_diverges_and_is_no_other_error(engine: str) -> None:
    losses = run(with_engine(load_config("default", N=4, D_in=4, H=4, D_out=2, lr=3e38), engine))[0]
    assert not np.isfinite(losses[-1])


def test_data_of_another_length_than_the_configs_are_refused() -> None:
    config, data, model = prepare(load_config("scratch"))
    with pytest.raises(DataError, match="the config has N = 100, but the data have 50 rows"):
        make_engine(model, Data(data.x[:50], data.y[:50]), config)
