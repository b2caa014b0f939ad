"""`bench --ranks` and `doctor --ranks`: what several processes measure and prove."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.helpers import rank_commands
from tests.helpers.forking import HANGS, clean_environment

SMALL = "N=9 D_in=7 H=8 D_out=2 epochs=40 lr=0.01 checkpoint"
SETS = [word for key in SMALL.split()[:-1] for word in ("--set", key)]
SCHEMA = Path(__file__).parents[2] / "docs" / "doctor.schema.json"
LONG = ["--epochs", "1000000", "-q"]


def run_all(folder: Path, tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Run command lines in forked processes; see `rank_commands`."""
    done = subprocess.run(
        [sys.executable, rank_commands.__file__, str(folder), json.dumps(tasks)],
        cwd=Path(__file__).parents[2],
        env=clean_environment(
            PYTHONPATH=os.pathsep.join(["", *filter(None, [os.environ.get("PYTHONPATH")])]).strip(":")
        ),
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(tasks), done.stderr
    return results


def train(*words: str, out: str = "", **more: Any) -> dict[str, Any]:
    return {"arguments": ["train", *words, *(["--out", out] if out else ["--no-save"])], "out": out, **more}


BENCH = {
    "interrupted": [0, signal.SIGINT],
    "terminated": [1, signal.SIGTERM],
    "killed": [1, signal.SIGKILL],
    "first killed": [0, signal.SIGKILL],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A folder in which all these have run, and what came of each, by name."""
    folder = tmp_path_factory.mktemp("ranks")
    tasks: dict[str, dict[str, Any]] = {}
    bench = {"arguments": ["bench", *SETS[:-2], "--ranks", "1,2", "--rounds"]}
    tasks["bench"] = {"arguments": [*bench["arguments"], "2"]}
    tasks["bench, jsonl"] = {"arguments": [*bench["arguments"], "2", "--format", "jsonl"]}
    tasks["bench, wrong"] = tasks["bench"] | {"environment": {"WRONG_RANK": "1"}}
    for name, act in BENCH.items():
        tasks[f"bench, {name}"] = {"arguments": [*bench["arguments"], "1000000"], "act": act}
    tasks["doctor"] = {"arguments": ["doctor", "--ranks", "2"], "sections": ["ranks"]}
    wrong = {"arguments": ["doctor", "--ranks", "3"], "sections": ["ranks"], "environment": {"WRONG_RANK": "2"}}
    tasks["doctor, wrong"] = wrong
    tasks["doctor, jsonl"] = wrong | {"arguments": [*wrong["arguments"], "--format", "jsonl"]}
    return folder, dict(zip(tasks, run_all(folder, list(tasks.values())), strict=True))


def test_bench_shows_the_scaling_beside_one_process_without_parts(done: Any) -> None:
    _, results = done
    lines = results["bench"]["stdout"].splitlines()
    assert (results["bench"]["code"], results["bench"]["stderr"], results["bench"]["left"]) == (0, "", 0)
    assert lines[0] == "9 x 7 -> 8 -> 2, float32, on cpu, 12 parts of units"
    assert lines[2].split() == ["ranks", "update", "exchanging", "speed-up", "efficiency", "bits"]
    assert [line[:8].strip() for line in lines[3:6]] == ["1", "2", "no parts"]
    assert (lines[3].split()[-2:], lines[4].split()[-1]) == (["100", "%"], "same")
    assert lines[7] == "no parts: one process as without --ranks, fused (dual), 1 thread"
    assert lines[-1].startswith("fastest: ")
    assert max(map(len, lines)) <= 80


def test_programs_read_the_same_from_bench_as_figures(done: Any) -> None:
    _, results = done
    one, two, alone = map(json.loads, results["bench, jsonl"]["stdout"].splitlines())
    assert [row["ranks"] for row in (one, two, alone)] == [1, 2, 1]
    assert (one["parts"], one["split"], alone["parts"], alone["split"]) == (12, "units", None, None)
    assert (one["same_bits"], two["same_bits"], alone["same_bits"]) == (True, True, None)
    assert (one["exchanging_us"], alone["exchanging_us"]) == (0, 0)
    assert 0 < two["exchanging_us"] < two["max_us"]
    assert two["speed_up"] == pytest.approx(one["median_us"] / two["median_us"])
    assert two["efficiency"] == pytest.approx(two["speed_up"] / 2)


def test_bench_finds_other_bits(done: Any) -> None:
    _, results = done
    wrong = results["bench, wrong"]
    assert (wrong["code"], wrong["left"]) == (1, 0)
    assert wrong["stderr"] == "error: the losses are other bits than on one rank: on 2 ranks\n"
    assert wrong["stdout"].splitlines()[4].split()[-1] == "OTHER"


def test_bench_ends_as_a_training_does(done: Any) -> None:
    _, results = done
    ends = {name: (results[f"bench, {name}"]["code"], results[f"bench, {name}"]["left"]) for name in BENCH}
    killed = {"killed": (1, 0), "first killed": (-signal.SIGKILL, 0)}
    assert ends == {"interrupted": (130, 0), "terminated": (143, 0), **killed}
    assert "interrupted after" in results["bench, interrupted"]["stderr"]
    assert results["bench, killed"]["stderr"] == "error: rank 1 was killed by signal 9 (SIGKILL)\n"


def test_doctor_proves_equal_bits_and_tells_what_an_exchange_costs(done: Any) -> None:
    _, results = done
    assert (results["doctor"]["code"], results["doctor"]["left"]) == (0, 0), results["doctor"]
    *_, passed, cost, _, verdict = results["doctor"]["stdout"].splitlines()
    assert passed == "ranks        passed: same bits on 1 and 2 ranks by 4 splits"
    assert cost.startswith("             an exchange takes ")
    assert verdict.startswith("All 12 checks passed")


def test_doctor_names_the_rank_and_the_split_that_are_wrong(done: Any) -> None:
    _, results = done
    assert (results["doctor, wrong"]["code"], results["doctor, wrong"]["left"]) == (1, 0)
    text = results["doctor, wrong"]["stdout"]
    assert "ranks        FAILED: 4 of 20 checks" in text
    assert "  units (primal), rank 2 alone, iteration 2, not the same bits: expected " in text
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    rows = [json.loads(line) for line in results["doctor, jsonl"]["stdout"].splitlines()]
    for row in rows:
        validator.validate(row)
    checks = {(row["engine"], row["name"]): row["status"] for row in rows if row["section"] == "ranks"}
    wrong = {check for check, status in checks.items() if status == "wrong"}
    assert wrong == {(f"units ({form})", name) for form in ("primal", "dual") for name in ("rank 2 alone", "3 ranks")}
    assert checks["units (dual)", "2 ranks"] == checks["rows", "3 ranks"] == checks["inputs", "rank 2 alone"] == "right"
