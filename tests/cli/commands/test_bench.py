from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.forking import clean_environment
from tests.helpers.processes import Run, in_terminal, screen

ALL = ["autograd", "manual", "fused (primal)", "fused (dual)", "compiled"]


def test_the_command_prints_a_row_for_each_engine_and_what_auto_takes(twolayer: Run) -> None:
    done = twolayer("bench", "scratch", "--rounds", "2")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == "100 x 3 -> 32 -> 1, float32, on cpu; microseconds per iteration"
    head = ["engine", "threads", "min", "median", "max", "set-up", "GFLOP/s", "agrees"]
    assert lines[2].split() == head
    assert [line[: line.index("  ")] for line in lines[3:8]] == ALL
    assert lines[3].endswith("  reference")
    assert lines[4].endswith("  yes")
    assert lines[-3] == "GFLOP/s: the operations of the book's loop, for every engine, by the median time"
    assert re.fullmatch(r"this machine: \S+ GFLOP/s in products of \d+ x \d+, \d+ threads?, best round", lines[-2])
    assert lines[-1] == "auto chooses fused (primal)"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_figures_can_be_read_by_programs(form: str, twolayer: Run) -> None:
    output = twolayer(
        "bench", "scratch", "--rounds", "2", "--set", "N=10000", "--set", "lr=1e-7", "--format", form
    ).stdout
    rows = list(csv.DictReader(io.StringIO(output))) if form == "csv" else list(map(json.loads, output.splitlines()))
    assert [(row["engine"], row["form"]) for row in rows] == [
        ("autograd", ""),
        ("manual", ""),
        ("fused", "primal"),
        ("compiled", ""),
    ]
    assert [str(row["auto"]).lower() for row in rows] == ["false", "false", "true", "false"]
    assert all(float(row["min_us"]) <= float(row["median_us"]) <= float(row["max_us"]) for row in rows)


def test_a_disagreement_is_shown_and_exits_with_1(tmp_path: Path) -> None:
    program = (
        "import sys; from twolayer.engines import fused; from twolayer.__main__ import main\n"
        "right = fused.FusedEngine.__init__\n"
        "def wrong(self, *given, lr, **more): right(self, *given, lr=1.1 * lr, **more)\n"
        "fused.FusedEngine.__init__ = wrong; sys.exit(main())"
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
