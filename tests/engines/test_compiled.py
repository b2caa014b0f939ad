"""The engine that is compiled for the CPU: how exact it is, the same bits at every number of threads, and its cache."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.helpers.forking import clean_environment
from tests.helpers.oracles import allocations, numpy64, run, same, score, sgd, with_classes, with_engine
from tests.helpers.processes import COMMAND, Run, examples
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines import compiled, kernels, selection
from twolayer.engines.base import Data, RowEngine
from twolayer.engines.compiled import CompiledEngine
from twolayer.engines.factory import make_engine
from twolayer.errors import DataError
from twolayer.hardware import memory, threads
from twolayer.hardware.threads import choose_threads, set_up
from twolayer.system import load
from twolayer.training.setup import prepare


@pytest.fixture(autouse=True)
def with_free_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where nothing else runs: beside others it takes fewer threads."""
    monkeypatch.setattr(load, "free_cpus", lambda: 8)


def config_of(N: int, D_in: int, H: int, D_out: int, **more: Any) -> Config:
    values: dict[str, Any] = {"lr": 1e-3, "reduction": "mean", "threads": 1} | more
    return load_config("default", N=N, D_in=D_in, H=H, D_out=D_out, engine="compiled", **values)


def trained(config: Config, loss: str, batches: list[Tensor], part: int) -> list[Tensor]:
    """What comes out of updates on batches, of iterations on all rows and of an evaluation; and the weights."""
    config, data, model = prepare(config)
    config = config.model_copy(update={"loss": loss})
    data = with_classes(data) if loss == "cross_entropy" else data
    with set_up(config):
        engine = cast(RowEngine, make_engine(model, data, config))
        losses = torch.empty(len(batches), *(() if loss == "mse" else (2,)), dtype=data.x.dtype)
        engine.updates(batches[:part], losses[:part])
        engine.updates(batches[part:], losses[part:])
        found = [losses, engine.advance(2), engine.evaluate(Data(data.x[::2], data.y[::2]))]
    return [*found, *(parameter.detach() for parameter in model.parameters())]


@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 12), st.integers(1, 40), st.integers(1, 4)),
    copies=st.sampled_from([1, 1, 1, 40]),
    loss=st.sampled_from(["mse", "cross_entropy"]),
    dtype=st.sampled_from(["float32", "float64"]),
    groups=st.sampled_from([(64, 8), (5, 8), (2, 256), (64, 256)]),
    size=st.integers(1, 90),
    part=st.integers(0, 3),
)
@examples(60)
def test_bits_depend_neither_on_the_threads_nor_on_where_calls_end(
    shape: tuple[int, ...], copies: int, loss: str, dtype: str, groups: tuple[int, int], size: int, part: int
) -> None:
    N = shape[0] * copies  # beyond 1024 rows a group has several parts
    config = config_of(N, *shape[1:], dtype=dtype)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(size))
    batches = list(torch.split(order, size * copies))[:3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "GROUPS", groups[0])
        patch.setattr(selection, "GROUP_ROWS", groups[1])
        expected = trained(config, loss, batches, 0)
        for number in (2, 3):
            assert same(trained(config.model_copy(update={"threads": number}), loss, batches, part), expected)
        patch.setattr(compiled, "CALL", 1)  # a call for every update
        assert same(trained(config, loss, batches, part), expected)
    assert all(tensor.isfinite().all() for tensor in expected)


@pytest.mark.parametrize("N", [8 * 1024, 8 * 1024 + 1, 5000])
@pytest.mark.parametrize("most", [1, 3, 64])
def test_many_rows_in_groups_and_parts_are_all_rows_at_once(N: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "GROUPS", most)
    config = config_of(N, 4, 9, 2, dtype="float64", lr=0.1, threads=2)
    losses, weights = run(config)
    _, data, model = prepare(config)
    expected, others = numpy64(model, data, config, 5)
    assert losses == pytest.approx(expected, rel=1e-12)
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=0, atol=1e-12 * np.abs(other).max())


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("config", "iterations"),
    [
        (load_config("default"), 300),
        (load_config("scratch"), 200),
        (load_config("modules"), 200),
        (config_of(20_000, 20, 64, 1, lr=0.05), 40),
        (config_of(20_000, 5, 150, 3, lr=1e-6, reduction="sum"), 40),
    ],
    ids=lambda value: value.shape if isinstance(value, Config) else None,
)
def test_float32_is_no_further_from_float64_than_twice_sgd(config: Config, iterations: int) -> None:
    config = with_engine(config, "compiled")
    losses, _ = run(config, iterations)
    full, data, model = prepare(config)
    exact = np.array(numpy64(model, data, config, iterations)[0])
    with set_up(full):
        by_sgd = np.array(sgd(model, data, config, iterations))
    own, its = (np.abs(each / exact - 1).max() for each in (np.array(losses), by_sgd))
    assert own <= 2 * its


def test_classes_of_huge_and_equal_logits_are_scored_as_by_torch() -> None:
    config, data, model = prepare(config_of(40, 3, 5, 3, dtype="float64"))
    config, data = config.model_copy(update={"loss": "cross_entropy"}), with_classes(data)
    for factor in (0.0, 1e3):  # all logits equal: the first is the largest
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        found = cast(RowEngine, make_engine(model, data, config)).evaluate(data)
        torch.testing.assert_close(found, score(model, data, config).detach(), rtol=1e-12, atol=0)
        _, _, model = prepare(config_of(40, 3, 5, 3, dtype="float64"))


def test_rows_that_are_not_there_are_refused() -> None:
    config, data, model = prepare(config_of(20, 3, 5, 1))
    engine = cast(RowEngine, make_engine(model, data, config))
    for row in (-1, 20):
        with pytest.raises(IndexError, match="the rows of a batch must be from 0 to 19"):
            engine.update(torch.tensor([0, row]))


@pytest.mark.parametrize("number", [1, 2])
def test_a_long_update_may_be_abandoned_between_its_groups(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "CALL", 1)
    config, data, model = prepare(config_of(2000, 3, 8, 1, threads=number))
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with set_up(config):
        machine = make_engine(model, data, config)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        whole = machine.advance(1)
        monkeypatch.setattr(compiled, "CALL", 2**32)
        assert same(list(whole), list(make_engine(prepare(config)[2], data, config).advance(1)))
        monkeypatch.setattr(compiled, "CALL", 1)
        for parameter, start in zip(model.parameters(), before, strict=True):
            parameter.data.copy_(start)
        machine.check = check
        with pytest.raises(KeyboardInterrupt):
            machine.advance(3)
    assert same(list(model.parameters()), before)


def test_an_iteration_allocates_nothing() -> None:
    config, data, model = prepare(config_of(100, 3, 32, 1))
    engine = make_engine(model, data, config)
    engine.advance(2)
    assert allocations(lambda: engine.advance(50)) == [4 * 50]
    assert allocations(lambda: engine.advance(5000)) == [4 * 5000]


def test_data_with_gaps_in_memory_are_read_as_what_they_are() -> None:
    config, data, model = prepare(config_of(50, 4, 6, 2, dtype="float64"))
    expected = make_engine(model, data, config).advance(1)
    spread = Data(data.x.t().contiguous().t(), torch.stack([data.y, data.y], 1)[:, 1])
    _, _, model = prepare(config)
    assert not spread.x.is_contiguous()
    assert same([make_engine(model, spread, config).advance(1)], [expected])


def test_its_threads_are_those_that_its_updates_are_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(threads, "_quota", lambda: float("inf"))

    def chosen(*shape: int, **more: Any) -> int:
        return choose_threads(config_of(*shape, threads="auto", **more))

    assert [chosen(100, 3, 32, 1), chosen(1000, 20, 64, 1), chosen(50_000, 20, 64, 1)] == [1, 1, 6]
    assert chosen(50_000, 300, 300, 1, batch_size=64) == 1  # one group
    assert choose_threads(config_of(100, 3, 32, 1, threads=3)) == 3


@pytest.mark.parametrize(("free", "taken"), [(8, 3), (3, 3), (2, 2), (1, 1), (0, 1)])
def test_it_takes_no_more_threads_than_there_are_cpus_that_others_leave(
    free: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "free_cpus", lambda: free)
    config = config_of(2000, 3, 8, 1, threads=3)
    full, data, model = prepare(config)
    with set_up(full):
        engine = cast(CompiledEngine, make_engine(model, data, full))
        engine.advance(2)
    assert len(engine.buffers) == taken
    assert run(config, 2)[0] == run(config.model_copy(update={"threads": 1}), 2)[0]


def test_its_memory_is_that_of_the_data_and_of_a_gradient_for_each_group() -> None:
    weights = 64 * 21 + 65
    assert memory.needed(config_of(10**6, 20, 64, 1)) == 4 * (10**6 * 21 + weights + (3 + 64) * weights + 2 * 8 * 65)


def test_without_numba_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(DataError, match=r"the compiled engine needs numba: pip install 'twolayer\[fast\]'"):
        prepare(config_of(100, 3, 32, 1))


@pytest.mark.parametrize("error", [OSError("no space left"), RuntimeError("no locator"), pickle.UnpicklingError("bad")])
def test_a_cache_that_fails_costs_time_and_nothing_else(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    right: Callable[[str, bool], Any] = kernels.compiled
    config, data, model = prepare(config_of(100, 3, 32, 1))
    asked = []

    def failing(name: str, cached: bool) -> Any:
        asked.append(cached)
        if cached:
            raise error
        return right(name, True)

    monkeypatch.setattr(kernels, "compiled", failing)
    engine = make_engine(model, data, config)
    assert isinstance(engine, CompiledEngine)
    assert asked == [True, False]
    losses = engine.advance(3).tolist()
    monkeypatch.undo()
    assert losses == run(config, 3)[0]


def test_numba_is_imported_only_where_its_engine_is_chosen(tmp_path: Path) -> None:
    program = (
        "import sys, twolayer; from twolayer.engines import factory\n"
        "twolayer.train(twolayer.load_config('scratch', epochs=3)); assert 'numba' not in sys.modules\n"
        "twolayer.train(twolayer.load_config('scratch', epochs=3, engine='compiled')); assert 'numba' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=clean_environment(), check=True)


def test_a_run_says_what_computed_it(twolayer: Run, tmp_path: Path) -> None:
    done = twolayer("train", "scratch", "--engine", "compiled", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "engine compiled" in done.stdout
    assert json.loads((tmp_path / "run" / "run.json").read_text())["engine"] == "compiled"
    diverged = twolayer("train", "scratch", "--engine", "compiled", "--lr", "1", "--no-save")
    assert diverged.returncode == 3
    assert "the loss" in diverged.stderr


@pytest.mark.deep
def test_processes_share_a_cache_also_at_once_and_when_it_is_damaged(tmp_path: Path) -> None:
    environment = clean_environment() | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [str(COMMAND), "train", "scratch", "--engine", "compiled", "--no-save", "--format", "csv"]

    def start(*more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, *more], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)

    at_once = [start(), start(), start("--set", "dtype=float64")]
    outputs = [process.communicate()[0] for process in at_once]
    assert [process.returncode for process in at_once] == [0, 0, 0]
    files = [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".nbi", ".nbc")]
    assert len(files) >= 4
    for suffix in (".nbc", ".nbi"):
        for path in files:
            if path.suffix == suffix:
                os.truncate(path, path.stat().st_size // 2)
        again = start()
        assert again.communicate()[0] == outputs[0] == outputs[1]
        assert again.returncode == 0
