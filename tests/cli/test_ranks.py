"""Training in several processes: the same bits, one voice, and an end to all when one ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from jsonschema import Draft202012Validator

from tests.helpers import rank_commands
from tests.helpers.forking import HANGS, clean_environment
from twolayer.cli import main
from twolayer.runs.run_files import INFO

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


def contents(run: Path) -> tuple[bytes, bytes]:
    return (run / "history.csv").read_bytes(), (run / "model.safetensors").read_bytes()


SPLITS = {
    "units": ["--set", "split=units", "--set", "form=primal"],
    "dual": ["--set", "split=units", "--set", "form=dual"],
    "rows": ["--set", "split=rows"],
    "inputs": ["--set", "split=inputs"],
}


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
    for split, words in SPLITS.items():
        tasks[f"{split} 1"] = train(*SETS, *words, "--set", "parts=12", "-q", out=f"{split}-1")
        for ranks in ("2", "3") if split in ("units", "rows") else ("2",):
            tasks[f"{split} {ranks}"] = train(*SETS, *words, "--ranks", ranks, "-q", out=f"{split}-{ranks}")
    for split in ("rows", "inputs"):
        words = [*SETS, *SPLITS[split], "--epochs", "15", "--ranks", "2", "-q"]
        tasks[f"{split} begun"] = train(*words, out=f"again-{split}")
        again = ["train", "--resume", f"again-{split}", "--epochs", "40", "--ranks", "3", "-q"]
        tasks[f"{split} again"] = {"arguments": again}
    tasks["csv"] = train(*SETS, "--ranks", "2", "--format", "csv")
    tasks["killed"] = train(*SETS, *LONG, "--ranks", "3", "--checkpoint-every", "7", out="k", act=[1, signal.SIGKILL])
    tasks["terminated"] = train(*SETS, *LONG, "--ranks", "2", out="t", act=[1, signal.SIGTERM])
    tasks["interrupted"] = train(*SETS, *LONG, "--ranks", "2", out="i", act=[0, signal.SIGINT])
    stopped = train(*SETS, *LONG, "--ranks", "2", "--exchange-timeout", "1", out="s", act=[1, signal.SIGSTOP])
    tasks["stopped"] = stopped
    tasks["first killed"] = train(*SETS, *LONG, "--ranks", "3", out="f", act=[0, signal.SIGKILL])
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
    tasks["diverged"] = train(*SETS, "--lr", "1e6", "--ranks", "2", "-q", out="d")
    return folder, dict(zip(tasks, run_all(folder, list(tasks.values())), strict=True))


def test_losses_and_weights_are_the_same_bits_on_one_two_and_three_ranks(done: Any) -> None:
    folder, results = done
    for what in SPLITS:
        assert [results[f"{what} {n}"]["code"] for n in (1, 2)] == [0, 0], results[f"{what} 2"]["stderr"]
        runs = sorted(folder.glob(f"{what}-*"))
        assert len(runs) == (3 if what in ("units", "rows") else 2)
        assert len({contents(run) for run in runs}) == 1, what
    assert len((folder / "units-1" / "history.csv").read_text().splitlines()) == 41


@pytest.mark.parametrize("split", ["rows", "inputs"])
def test_a_run_goes_on_with_more_ranks_and_the_same_bits(done: Any, split: str) -> None:
    folder, results = done
    assert results[f"{split} again"]["code"] == 0, results[f"{split} again"]["stderr"]
    assert contents(folder / f"again-{split}") == contents(folder / f"{split}-1")


@pytest.mark.deep
def test_a_table_in_batches_with_validation_is_trained_with_the_same_bits(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i * 37 % 53},{3 * i + i * i % 7}\n" for i in range(60))
    (tmp_path / "my.csv").write_text("a,b,price\n" + rows)
    table = ["my.csv", "--target", "price", "--epochs", "4", "-q"]
    one = train(*table, "--set", "parts=12", out="table-1")
    tasks = [one, *(train(*table, "--ranks", n, out=f"table-{n}", real=True) for n in ("2", "3"))]
    results = run_all(tmp_path, tasks)
    assert [result["code"] for result in results] == [0, 0, 0], results
    assert len({contents(tmp_path / f"table-{n}") for n in (1, 2, 3)}) == 1


@pytest.mark.deep
def test_a_table_of_which_each_rank_reads_its_own_rows_is_trained_with_the_same_bits(tmp_path: Path) -> None:
    columns = {
        "a": range(97),
        "b": [i * 37 % 53 / 7 for i in range(97)],
        "price": [3 * i + i * i % 7 for i in range(97)],
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "my.parquet")
    table = ["my.parquet", "--target", "price", "--epochs", "40", "--set", "batch_size=null", "-q"]
    tasks = [train(*table, "--set", "parts=12", out="table-1")]
    tasks += [train(*table, "--ranks", n, out=f"table-{n}", real=True) for n in ("2", "3")]
    results = run_all(tmp_path, tasks)
    assert [result["code"] for result in results] == [0, 0, 0], results
    assert len({contents(tmp_path / f"table-{n}") for n in (1, 2, 3)}) == 1
    assert len({(tmp_path / f"table-{n}" / "config.yaml").read_bytes() for n in (1, 2, 3)}) == 1
    infos = [json.loads((tmp_path / f"table-{n}" / INFO).read_text()) for n in (1, 2, 3)]
    same = ("data_sha256", "validation_sha256", "row_sums", "final_loss", "final_val_loss")
    assert all(infos[0][key] == info[key] for info in infos for key in same)


def test_the_first_alone_prints_and_each_row_once(done: Any) -> None:
    _, results = done
    lines = results["csv"]["stdout"].splitlines()
    assert [line.split(",")[0] for line in lines] == ["iteration", *map(str, range(1, 41))]
    assert "2 ranks, 12 parts of units" in results["csv"]["stderr"]
    assert "an update computes for" in results["csv"]["stderr"]
    assert "2 ranks make this slower: one process without parts, 1 thread, needs" in results["csv"]["stderr"]


def test_a_run_keeps_on_how_many_ranks_it_was_trained(done: Any) -> None:
    folder, _ = done
    info = json.loads((folder / "units-3" / INFO).read_text())
    assert (info["ranks"], info["back_end"], info["parts"], info["split"]) == (3, "gloo", 12, "units")
    assert "ranks" not in json.loads((folder / "units-1" / INFO).read_text())


def test_a_rank_that_is_killed_ends_all_with_one_message(done: Any) -> None:
    _, results = done
    killed = results["killed"]
    assert (killed["code"], killed["left"]) == (1, 0)
    first, second = killed["stderr"].splitlines()
    assert first == "error: rank 1 was killed by signal 9 (SIGKILL)"
    assert second == "run k keeps its last checkpoint; resume with: twolayer train --resume k"


@pytest.mark.parametrize(("what", "code"), [("terminated", 143), ("interrupted", 130)])
def test_a_signal_to_any_rank_ends_the_training_in_order(done: Any, what: str, code: int) -> None:
    _, results = done
    assert (results[what]["code"], results[what]["left"]) == (code, 0)
    assert "resume with: twolayer train --resume" in results[what]["stderr"]
    assert "error" not in results[what]["stderr"]


def test_a_rank_that_does_not_answer_ends_the_training(done: Any) -> None:
    _, results = done
    assert (results["stopped"]["code"], results["stopped"]["left"]) == (1, 0)
    assert "error: another rank has not answered within 1 s" in results["stopped"]["stderr"]


def test_nothing_is_left_when_the_first_is_killed(done: Any) -> None:
    _, results = done
    assert (results["first killed"]["code"], results["first killed"]["left"]) == (-signal.SIGKILL, 0)


def test_a_divergence_is_told_once_and_keeps_the_last_weights(done: Any) -> None:
    folder, results = done
    assert (results["diverged"]["code"], results["diverged"]["left"]) == (3, 0)
    assert (folder / "d" / "model.safetensors").exists()


def test_a_killed_run_goes_on_with_another_number_of_ranks_and_ends_with_the_same_bits(done: Any) -> None:
    folder, _ = done
    rows = (folder / "k" / "history.csv").read_text().count("\n")
    end = ["--epochs", str(rows + 50), "-q"]
    for copy in ("one", "two"):
        subprocess.run(["cp", "-r", folder / "k", folder / copy], check=True)
    tasks = [
        {"arguments": ["train", "--resume", "one", *end]},
        {"arguments": ["train", "--resume", "two", *end, "--ranks", "2"]},
        train(*SETS, *end, "--set", "parts=12", out="whole"),
    ]
    assert [result["code"] for result in run_all(folder, tasks)] == [0, 0, 0]
    assert contents(folder / "one") == contents(folder / "two") == contents(folder / "whole")


# --- bench and doctor


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


# --- Wrong command lines, in this process


def command(*words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **variables: str) -> Any:
    """The exit code and stderr of a command line that ends before anything is trained."""
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    code = main.run(words)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ranks", "0"], "error: --ranks must be 1 or more, not 0"),
        (["--ranks", "13"], "--ranks  13 ranks are more than 12 parts; use at most 12, or --set parts=13"),
        (["--ranks", "3", "--set", "parts=2"], "--ranks  3 ranks are more than 2 parts; use at most 2, or"),
        (["--ranks", "2", "--engine", "manual"], "--ranks  parts: requires the fused engine, but the engine is manual"),
        (["--ranks", "2", "--threads", "2"], "--ranks  threads: must be 1 or auto with parts"),
    ],
)
def test_wrong_ranks_are_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = command("train", "--no-save", *words, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, message in said) == (2, True), said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "--ranks", "1,13"], "--ranks  13 ranks are more than 12 parts; use at most 12, or --set parts=13"),
        (["bench", "--ranks", "2", "--set", "engine=manual"], "parts: requires the fused engine, but the engine is"),
        (["bench", "--ranks", "2,0"], "--ranks must be numbers from 1 on, such as 1,2,4, not '2,0'"),
        (["bench", "--ranks", "two"], "--ranks must be numbers from 1 on, such as 1,2,4, not 'two'"),
        (["doctor", "--ranks", "1"], "--ranks"),
        (["doctor", "--ranks", "2", "--published"], "leave out --ranks"),
    ],
)
def test_wrong_ranks_of_bench_and_doctor_are_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = command(*words, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, message in said) == (2, True), said


LAUNCHED = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


def test_under_a_launcher_another_command_refuses_and_rank_0_alone_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = command("check", monkeypatch=monkeypatch, capsys=capsys, **LAUNCHED)
    assert (code, said) == (2, "error: check is one process, and the launcher has started 2; run it without it\n")
    with pytest.raises(SystemExit) as ended:
        command("check", monkeypatch=monkeypatch, capsys=capsys, RANK="1")
    assert (ended.value.code, capsys.readouterr().err) == (2, "")


def test_under_a_launcher_ranks_are_the_launchers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = command("train", "--ranks", "2", monkeypatch=monkeypatch, capsys=capsys, **LAUNCHED)
    assert (code, "the launcher has started 2; remove --ranks" in said) == (2, True)


def test_one_process_loads_no_distributed_module(tmp_path: Path) -> None:
    program = (
        "import sys; import twolayer.cli.main, twolayer.cli.training_session; "
        "sys.exit('twolayer.hardware.distributed' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], env=clean_environment(), check=False).returncode == 0
