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

from tests.helpers import rank_commands
from tests.helpers.forking import HANGS, clean_environment
from twolayer.cli import main
from twolayer.runs.run_files import INFO

SMALL = "N=9 D_in=7 H=8 D_out=2 epochs=40 lr=0.01 checkpoint"
SETS = [word for key in SMALL.split()[:-1] for word in ("--set", key)]
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
