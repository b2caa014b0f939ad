"""The fused engine's own: its forms, its accuracy, and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given

from tests.helpers.oracles import configs, needs_cuda, run, same, with_engine
from tests.helpers.processes import examples
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines import factory, selection
from twolayer.engines.cuda_graph import Graph
from twolayer.engines.dual import gram
from twolayer.engines.factory import fused_engine, make_engine
from twolayer.engines.losses import Objective
from twolayer.engines.selection import choose_form
from twolayer.errors import ConfigError
from twolayer.hardware import memory
from twolayer.hardware.threads import set_up
from twolayer.system import available_memory
from twolayer.training.loop import fit, train
from twolayer.training.metrics import final_loss
from twolayer.training.setup import prepare


@pytest.mark.sample(2)
@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("threads", [1, 2])
def test_in_float32_fused_is_as_near_the_truth_as_autograd(form: str, threads: int) -> None:
    truth = np.array(run(load_config("default", dtype="float64", engine="autograd"), 500)[0])

    def distance(engine: str) -> float:
        losses = run(with_engine(load_config("default", threads=threads), engine), 500)[0]
        return float(np.max(np.abs(np.array(losses) - truth) / truth))

    assert distance(f"fused {form}") <= 2 * distance("autograd")


@pytest.mark.parametrize("iterations", [10_000, pytest.param(100_000, marks=pytest.mark.deep)])
def test_over_many_iterations_the_dual_form_stays_with_the_truth(iterations: int) -> None:
    truth = np.array(run(with_engine(load_config("default", dtype="float64"), "fused dual"), iterations)[0])
    losses = np.array(run(with_engine(load_config("default"), "fused dual"), iterations)[0])
    assert float(np.max(np.abs(losses - truth))) / truth[0] < 1e-6


def test_the_dual_form_comes_down_to_what_float32_can_hold_and_its_weights_with_it() -> None:
    config, data, model = prepare(load_config("default", epochs=3000))
    losses = [loss for block in fit(model, data, config) for loss in block.losses]
    assert config.form == "dual"
    assert final_loss(model, data, config) < 1e-10  # autograd comes down to 5e-12
    assert max(losses[1999:]) < 1e-10  # also right after a fold, where Z is of the weights alone


@given(configs())
@examples(100)
def test_the_plain_primal_form_for_large_x_is_the_same_descent(config: Config) -> None:
    config = with_engine(config, "fused primal").model_copy(update={"dtype": "float64"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "FOLD_BELOW", 0)
        losses, weights = run(config)
    folded_losses, folded_weights = run(config)
    assert losses == pytest.approx(folded_losses, rel=1e-10)
    for one, other in zip(weights, folded_weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=1e-10 * float(other.abs().max()))


def test_where_the_dual_form_does_not_fit_auto_takes_the_primal(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("default", N=1500)
    dual = memory.needed(config.model_copy(update={"form": "dual"}))
    monkeypatch.setattr(available_memory, "available", lambda: dual)
    assert prepare(config)[0].form == "dual"
    monkeypatch.setattr(available_memory, "available", lambda: dual - 1)
    assert prepare(config)[0].form == "primal"
    with pytest.raises(ConfigError, match="needs at least"):
        prepare(load_config("default", N=1500, engine="fused", form="dual"))


def test_the_form_is_the_one_with_fewer_operations_over_the_whole_training() -> None:
    shapes = {(64, 1000, 100, 10): "dual", (100, 3, 32, 1): "primal", (64, 20000, 256, 10): "dual"}
    shapes |= {(4096, 1024, 1024, 64): "primal", (50000, 20, 64, 1): "primal"}
    for (N, D_in, H, D_out), form in shapes.items():
        assert choose_form(load_config("default", N=N, D_in=D_in, H=H, D_out=D_out)) == form
    assert choose_form(load_config("default", epochs=1)) == "primal"  # K is not worth its while
    assert choose_form(load_config("default", form="primal")) == "primal"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k_is_that_of_float64_whatever_its_parts(dtype: torch.dtype) -> None:
    x = torch.randn(1030, 4100, generator=torch.Generator().manual_seed(0)).to(dtype)
    truth = x.double().numpy() @ x.double().numpy().T + 1
    k = gram(x)
    assert k.dtype == dtype
    np.testing.assert_allclose(k.numpy(), truth, rtol=1.2e-7 if dtype == torch.float32 else 1e-12, atol=1e-9)


@pytest.mark.parametrize("engine", ["fused primal", "fused dual"])
def test_whole_chunks_go_through_what_a_graph_may_replay(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "FOLD_EVERY", 30)
    config, data, model = prepare(with_engine(load_config("default"), engine))
    with set_up(config):  # also what is computed at the start depends on the threads
        exact = int(config.threads) > 1
        kind = fused_engine(data, config)
        machine = kind(model, data, Objective.of(config), lr=float(config.lr), exact_updates=exact)
    assert len(machine.slots) == 12  # iterations a chunk
    calls: list[object] = []

    class Counter:
        def __call__(self, function: Callable[[], object]) -> None:
            calls.append(function())

        def reset(self) -> None:
            calls.clear()

    machine.replay = Counter()
    with set_up(config):
        losses = machine.advance(70).tolist()
    # 12 + 12 + 6 up to each fold of the dual form, and then 10
    assert len(calls) == (4 if engine == "fused dual" else 5)
    assert losses == run(config, 70)[0]


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(64, 1000, 100, 10), (100, 3, 32, 1), (300, 2000, 700, 40)])
@pytest.mark.parametrize("engine", ["fused primal", "fused dual", "fused plain"])
def test_a_graph_changes_no_bit_wherever_the_cuts_are(
    engine: str, shape: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "FOLD_EVERY", 130)
    if engine == "fused plain":
        engine = "fused primal"
        monkeypatch.setattr(factory, "FOLD_BELOW", 0)
    N, D_in, H, D_out = shape
    config = load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, lr=1e-6, device="cuda", dtype=dtype)
    config, data, model = prepare(with_engine(config, engine))
    machine = make_engine(model, data, config)
    assert isinstance(machine.replay, Graph)  # type: ignore[attr-defined]
    losses = []
    with set_up(config):
        for count in (1, 7, 300, 2, 190):
            losses += machine.advance(count).tolist()
            machine.sync()
    without, weights = run(config.model_copy(update={"cuda_graph": False}), 500)
    assert losses == without
    assert same([parameter.detach() for parameter in model.parameters()], weights)


@pytest.mark.cuda
@needs_cuda
def test_a_function_is_called_twice_and_replayed_from_then_on() -> None:
    total, calls = torch.zeros(1, device="cuda"), []

    def add() -> None:
        calls.append(total.add_(1))

    graph = Graph(total.device)
    for _ in range(5):
        graph(add)
    assert float(total) == 5
    assert len(calls) == 2


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("form", ["primal", "dual"])
def test_products_are_full_float32_whatever_the_process_allows_and_tf32_only_if_asked(form: str) -> None:
    config = load_config("default", device="cuda", engine="fused", form=form)
    truth = np.array(train(load_config("default", dtype="float64")).losses)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        losses = np.array(train(config).losses)
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert losses.tolist() == list(train(config).losses)
    short = np.array(train(config.model_copy(update={"precision": "tf32"})).losses)
    assert float(np.max(np.abs(losses - truth) / truth)) < 1e-3
    assert 1e-5 < float(np.max(np.abs(short[:100] - truth[:100]) / truth[:100])) < 0.1
