from __future__ import annotations

import math
import statistics

import pytest
import torch

from twolayer.config.loading import load_config
from twolayer.engines import selection
from twolayer.engines.manual import ManualEngine
from twolayer.errors import DivergedError
from twolayer.formatting import size
from twolayer.hardware import memory
from twolayer.system import available_memory
from twolayer.training import benchmark
from twolayer.training.benchmark import Benchmark, Timing

ALL = ["autograd", "manual", "fused (primal)", "fused (dual)", "compiled"]


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "ROUND_SECONDS", 0.005)


def measured(*rounds: float, losses: list[float]) -> Timing:
    return Timing(load_config("default", engine="manual"), 1, list(rounds), [0.0], losses)


def test_every_engine_is_measured_in_every_round_and_all_agree() -> None:
    engines = Benchmark(load_config("default"))
    assert list(engines.rounds(3)) == [1, 2, 3]
    assert [engine.name for engine in engines.engines] == ALL
    assert engines.auto == "fused (dual)"
    assert not engines.left_out
    book = selection.operations(load_config("default"))  # every engine is counted by the same operations
    for engine, row in zip(engines.engines, engines.rows(), strict=True):
        assert len(engine.seconds) == len(engine.set_up) == 3
        assert 0 < row["min_us"] <= row["median_us"] <= row["max_us"]
        assert row["median_us"] == 1e6 * statistics.median(engine.seconds)
        assert row["gflops"] == pytest.approx(book / row["median_us"] / 1e3)
        assert row["matmul_gflops"] == engines.matmul.rate / 1e9 == max(engines.matmul.rates) / 1e9
        assert row["agrees"]
        assert row["auto"] == (engine.name == "fused (dual)")
    assert engines.difference(engines.engines[1]) == 0  # manual is autograd bit for bit
    assert engines.difference(engines.engines[3]) < 1e-4  # of as many iterations as there was time for


def test_the_rate_of_products_is_their_operations_by_the_time_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, right = [0.0], torch.mm

    def counted(*matrices: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        seconds.append(seconds[-1] + benchmark.PRODUCT_SECONDS)
        assert torch.get_num_threads() == 1
        return right(*matrices, out=out)

    monkeypatch.setattr(torch, "mm", counted)
    monkeypatch.setattr(benchmark, "clock", lambda device: seconds[-1])  # a second is a second of products
    matmul = Benchmark(load_config("default", threads=1)).matmul
    matmul.measure()
    assert matmul.rate == pytest.approx(2 * matmul.size**3 / benchmark.PRODUCT_SECONDS)


def test_the_configs_own_engine_does_not_count() -> None:
    engines = Benchmark(load_config("scratch", engine="manual"))
    assert engines.auto == "fused (primal)"
    assert [engine.name for engine in engines.engines] == ALL


def test_a_form_that_no_one_would_wait_for_is_left_out() -> None:
    engines = Benchmark(load_config("scratch", N=10_000, lr=1e-8))
    assert [engine.name for engine in engines.engines] == [*ALL[:3], "compiled"]
    assert engines.left_out == {"fused (dual)": "needs 1111 times the operations of primal"}


def test_a_form_that_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("default", N=1000)
    dual = memory.needed(config.model_copy(update={"form": "dual"}))
    monkeypatch.setattr(available_memory, "available", lambda: dual - 1)
    engines = Benchmark(config)
    assert engines.left_out == {"fused (dual)": f"needs {size(dual)} of memory"}
    assert engines.auto == "fused (primal)"
    monkeypatch.setattr(available_memory, "available", lambda: dual)
    assert Benchmark(config).auto == "fused (dual)"


def test_a_loss_that_is_not_finite_is_a_divergence() -> None:
    with pytest.raises(DivergedError, match="lr 1 is too large here"):
        list(Benchmark(load_config("default", lr=1)).rounds(1))


def test_an_engine_that_computes_something_else_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ManualEngine.advance

    def wrong(self: ManualEngine, iterations: int) -> torch.Tensor:
        self.lr *= 1.01
        return right(self, iterations)

    monkeypatch.setattr(ManualEngine, "advance", wrong)
    engines = Benchmark(load_config("scratch", epochs=1))
    list(engines.rounds(1))
    assert [engines.agrees(engine) for engine in engines.engines] == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("losses", "distance"),
    [
        ([4.0, 2.0, 1.0], 0.0),
        ([4.0, 2.0], 0.0),
        ([4.0, 2.2, 1.0], 0.1),
        ([4.0, math.nan, 1.0], math.inf),
        ([math.inf, 2.0, 1.0], math.inf),
    ],
)
def test_the_distance_is_the_largest_relative_one(losses: list[float], distance: float) -> None:
    engines = Benchmark(load_config("scratch"))
    engines.engines[0].losses = [4.0, 2.0, 1.0]
    assert engines.difference(measured(1.0, losses=losses)) == pytest.approx(distance)


def test_what_is_left_of_a_loss_by_rounding_does_not_count() -> None:
    engines = Benchmark(load_config("scratch"))
    engines.engines[0].losses = [1.0, 1e-12]
    assert engines.difference(measured(1.0, losses=[1.0, 3e-12])) == pytest.approx(2e-6)
    engines.engines[0].losses = [0.0, 0.0]
    assert engines.difference(measured(1.0, losses=[0.0, 0.0])) == 0
    assert engines.difference(measured(1.0, losses=[0.0, 1e-30])) == math.inf
