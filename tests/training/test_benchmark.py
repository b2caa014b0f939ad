from __future__ import annotations

import csv
import io
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.forking import clean_environment
from tests.helpers.processes import Run, in_terminal, screen
from twolayer import available_memory
from twolayer.config.loading import load_config
from twolayer.engines import selection
from twolayer.engines.manual import ManualEngine
from twolayer.errors import DivergedError
from twolayer.formatting import size
from twolayer.hardware import memory
from twolayer.training import benchmark
from twolayer.training.benchmark import Bench, Measured

ALL = ["autograd", "manual", "fused (primal)", "fused (dual)"]


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "ROUND_SECONDS", 0.005)


def measured(*rounds: float, losses: list[float]) -> Measured:
    return Measured(load_config("default", engine="manual"), 1, list(rounds), [0.0], losses)


def test_every_engine_is_measured_in_every_round_and_all_agree() -> None:
    engines = Bench(load_config("default"))
    assert list(engines.rounds(3)) == [1, 2, 3]
    assert [engine.name for engine in engines.engines] == ALL
    assert engines.auto == "fused (dual)"
    assert not engines.left_out
    for engine, row in zip(engines.engines, engines.rows(), strict=True):
        assert len(engine.seconds) == len(engine.set_up) == 3
        assert 0 < row["least"] <= row["microseconds"] <= row["most"]
        assert row["microseconds"] == 1e6 * statistics.median(engine.seconds)
        assert row["gflops"] == pytest.approx(selection.operations(engine.config) / row["microseconds"] / 1e3)
        assert row["share"] == pytest.approx(row["gflops"] * 1e9 / engines.products.rate)
        assert row["agrees"]
        assert row["auto"] == (engine.name == "fused (dual)")
    assert engines.distance(engines.engines[1]) == 0  # manual is autograd bit for bit
    assert engines.distance(engines.engines[3]) < 1e-4  # of as many iterations as there was time for


def test_the_rate_of_products_is_their_operations_by_the_time_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, right = [0.0], torch.mm

    def counted(*matrices: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        seconds.append(seconds[-1] + benchmark.PRODUCT_SECONDS)
        assert torch.get_num_threads() == 1
        return right(*matrices, out=out)

    monkeypatch.setattr(torch, "mm", counted)
    monkeypatch.setattr(benchmark, "clock", lambda device: seconds[-1])  # a second is a second of products
    products = Bench(load_config("default", threads=1)).products
    products.measure()
    assert products.rate == pytest.approx(2 * products.size**3 / benchmark.PRODUCT_SECONDS)


def test_the_configs_own_engine_does_not_count() -> None:
    engines = Bench(load_config("scratch", engine="manual"))
    assert engines.auto == "fused (primal)"
    assert [engine.name for engine in engines.engines] == ALL


def test_a_form_that_no_one_would_wait_for_is_left_out() -> None:
    engines = Bench(load_config("scratch", N=10_000, lr=1e-8))
    assert [engine.name for engine in engines.engines] == ALL[:3]
    assert engines.left_out == {"fused (dual)": "1111 times the operations of primal"}


def test_a_form_that_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("default", N=1000)
    dual = memory.needed(config.model_copy(update={"form": "dual"}))
    monkeypatch.setattr(available_memory, "available", lambda: dual - 1)
    engines = Bench(config)
    assert engines.left_out == {"fused (dual)": f"it needs {size(dual)} of memory"}
    assert engines.auto == "fused (primal)"
    monkeypatch.setattr(available_memory, "available", lambda: dual)
    assert Bench(config).auto == "fused (dual)"


def test_a_loss_that_is_not_finite_is_a_divergence() -> None:
    with pytest.raises(DivergedError, match="lr 1 is too large here"):
        list(Bench(load_config("default", lr=1)).rounds(1))


def test_an_engine_that_computes_something_else_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ManualEngine.advance

    def wrong(self: ManualEngine, iterations: int) -> torch.Tensor:
        self.lr *= 1.01
        return right(self, iterations)

    monkeypatch.setattr(ManualEngine, "advance", wrong)
    engines = Bench(load_config("scratch", epochs=1))
    list(engines.rounds(1))
    assert [engines.agrees(engine) for engine in engines.engines] == [True, False, True, True]


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
    engines = Bench(load_config("scratch"))
    engines.engines[0].losses = [4.0, 2.0, 1.0]
    assert engines.distance(measured(1.0, losses=losses)) == pytest.approx(distance)


def test_what_is_left_of_a_loss_by_rounding_does_not_count() -> None:
    engines = Bench(load_config("scratch"))
    engines.engines[0].losses = [1.0, 1e-12]
    assert engines.distance(measured(1.0, losses=[1.0, 3e-12])) == pytest.approx(2e-6)
    engines.engines[0].losses = [0.0, 0.0]
    assert engines.distance(measured(1.0, losses=[0.0, 0.0])) == 0
    assert engines.distance(measured(1.0, losses=[0.0, 1e-30])) == math.inf


def test_the_command_prints_a_row_for_each_engine_and_what_auto_takes(twolayer: Run) -> None:
    done = twolayer("bench", "scratch", "--rounds", "2")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == "100 x 3 -> 32 -> 1, float32, on cpu; microseconds an iteration"
    head = ["engine", "threads", "median", "least", "most", "set-up", "GFLOP/s", "share", "agrees"]
    assert lines[2].split() == head
    assert [line[: line.index("  ")] for line in lines[3:7]] == ALL
    assert lines[3].endswith("  itself")
    assert lines[4].endswith("  yes")
    assert lines[-2].startswith("share: of ")
    assert lines[-1] == "auto takes fused (primal)"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_figures_can_be_read_by_programs(form: str, twolayer: Run) -> None:
    output = twolayer(
        "bench", "scratch", "--rounds", "2", "--set", "N=10000", "--set", "lr=1e-7", "--format", form
    ).stdout
    rows = list(csv.DictReader(io.StringIO(output))) if form == "csv" else list(map(json.loads, output.splitlines()))
    assert [(row["engine"], row["form"]) for row in rows] == [("autograd", ""), ("manual", ""), ("fused", "primal")]
    assert [str(row["auto"]).lower() for row in rows] == ["false", "false", "true"]
    assert all(float(row["least"]) <= float(row["microseconds"]) <= float(row["most"]) for row in rows)


def test_a_disagreement_is_shown_and_exits_with_1(tmp_path: Path) -> None:
    program = (
        "import sys; from twolayer.engines import fused; from twolayer.__main__ import main\n"
        "right = fused.Fused.__init__\n"
        "def wrong(self, model, data, *, lr, **more): right(self, model, data, lr=1.1 * lr, **more)\n"
        "fused.Fused.__init__ = wrong; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "bench", "--rounds", "1"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: the losses differ from those of autograd: fused (primal), fused (dual)\n"
    assert sum(line.endswith("  NO") for line in done.stdout.splitlines()) == 2


def test_ctrl_c_shows_the_rounds_that_are_done(tmp_path: Path) -> None:
    code, written = in_terminal(["bench", "scratch", "--rounds", "1000"], tmp_path, kill_at="2/1000")
    lines = screen(written)
    assert code == 130
    assert any(line.startswith("interrupted after ") for line in lines)
    assert any(line.startswith("fused (primal)") for line in lines)


@pytest.mark.parametrize("rounds", ["0", "-1", "many"])
def test_rounds_that_are_no_number_are_refused(rounds: str, twolayer: Run) -> None:
    done = twolayer("bench", "--rounds", rounds)
    assert done.returncode == 2
    assert "--rounds" in done.stderr
