"""Training in several processes: the same bits, one voice, and an end to all when one ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from tests.helpers.forking import clean_environment
from tests.helpers.ranks import Ended, Training, sets, train, wait
from twolayer.cli import main
from twolayer.cli.ranks import Others
from twolayer.hardware.launchers import UNANSWERED, Place
from twolayer.runs.run_files import INFO

SETS = sets("N=9", "D_in=7", "H=8", "D_out=2", "epochs=40", "lr=0.01")
LONG = ["--epochs", "1000000", "-q"]


def contents(run: Path) -> tuple[bytes, bytes]:
    return (run / "history.csv").read_bytes(), (run / "model.safetensors").read_bytes()


SPLITS = {
    "units": sets("split=units", "form=primal"),
    "dual": sets("split=units", "form=dual"),
    "rows": sets("split=rows"),
    "inputs": sets("split=inputs"),
}


@pytest.mark.parametrize("split", SPLITS)
def test_losses_and_weights_are_the_same_bits_on_one_two_and_three_ranks_and_resumed(
    split: str, tmp_path: Path
) -> None:
    words = [*SETS, *SPLITS[split], "-q"]
    runs = {"one": ["--set", "parts=12"], "two": ["--ranks", "2"]}
    if split in ("units", "rows"):
        runs["three"] = ["--ranks", "3"]
    for out, more in runs.items():
        done = train(tmp_path, *words, *more, "--out", out)
        assert (done.code, done.left) == (0, []), done.stderr
    assert train(tmp_path, *words, "--set", "parts=12", "--epochs", "19", "--out", "rest").code == 0
    assert train(tmp_path, "--resume", "rest", "--epochs", "40", "--ranks", "2", "-q").code == 0
    assert len({contents(tmp_path / out) for out in (*runs, "rest")}) == 1
    assert len((tmp_path / "one" / "history.csv").read_text().splitlines()) == 41
    info = json.loads((tmp_path / "two" / INFO).read_text())
    assert (info["ranks"], info["back_end"], info["parts"]) == (2, "gloo", 12)
    assert "ranks" not in json.loads((tmp_path / "one" / INFO).read_text())


@pytest.mark.parametrize("engine", ["fused", pytest.param("compiled", marks=pytest.mark.deep)])
def test_a_table_in_batches_with_validation_is_trained_with_the_same_bits(tmp_path: Path, engine: str) -> None:
    rows = "".join(f"{i},{i * 37 % 53},{3 * i + i * i % 7}\n" for i in range(60))
    (tmp_path / "my.csv").write_text("a,b,price\n" + rows)
    table = ["my.csv", "--target", "price", "--epochs", "4", "--engine", engine, "-q"]
    for out, more in (("one", ["--set", "parts=12"]), ("two", ["--ranks", "2"])):
        done = train(tmp_path, *table, *more, "--out", out)
        assert (done.code, done.left) == (0, []), done.stderr
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.deep)])
def test_a_table_of_which_each_rank_reads_its_own_rows_is_trained_with_the_same_bits(
    tmp_path: Path, ranks: int
) -> None:
    columns = {
        "a": range(97),
        "b": [i * 37 % 53 / 7 for i in range(97)],
        "price": [3 * i + i * i % 7 for i in range(97)],
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "my.parquet")
    table = ["my.parquet", "--target", "price", "--epochs", "40", "--set", "batch_size=null", "-q"]
    for out, more in (("one", ["--set", "parts=12"]), ("two", ["--ranks", str(ranks)])):
        done = train(tmp_path, *table, *more, "--out", out)
        assert (done.code, done.left) == (0, []), done.stderr
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert (tmp_path / "one" / "config.yaml").read_bytes() == (tmp_path / "two" / "config.yaml").read_bytes()
    infos = [json.loads((tmp_path / out / INFO).read_text()) for out in ("one", "two")]
    same = ("data_sha256", "validation_sha256", "row_sums", "final_loss", "final_val_loss")
    assert all(infos[0][key] == infos[1][key] for key in same)


def test_the_first_alone_prints_and_each_row_once(tmp_path: Path) -> None:
    done = train(tmp_path, *SETS, "--ranks", "2", "--format", "csv", "--no-save")
    lines = done.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["iteration", *map(str, range(1, 41))]
    assert "2 ranks, 12 parts of units" in done.stderr
    assert "an update computes for" in done.stderr  # whether more is said is up to the clock (test_pace)


def stopped(folder: Path, ranks: int, *signals: tuple[int, int], options: Any = ()) -> Ended:
    """A long training, whose ranks get these signals, one after the other, once it has losses."""
    words = [*SETS, *LONG, "--ranks", str(ranks), "--checkpoint-every", "7", "--out", "run", *options]
    with Training(folder, *words) as training:
        training.has_losses()
        for rank, number in signals:
            assert training.signal(rank, number)
        return training.end()


def test_a_rank_that_is_killed_ends_all_and_the_run_goes_on_with_any_number(tmp_path: Path) -> None:
    done = stopped(tmp_path, 3, (1, signal.SIGKILL))
    assert (done.code, done.left) == (1, [])
    first, second = done.stderr.splitlines()
    assert first == "error: rank 1 was killed by signal 9 (SIGKILL)"
    assert second == "run run keeps its last checkpoint; resume with: twolayer train --resume run"
    rows = (tmp_path / "run" / "history.csv").read_text().count("\n")
    end = ["--epochs", str(rows + 50), "-q"]
    shutil.copytree(tmp_path / "run", tmp_path / "two")
    for words in (
        ["--resume", "run"],
        ["--resume", "two", "--ranks", "2"],
        [*SETS, "--set", "parts=12", "--out", "whole"],
    ):
        assert train(tmp_path, *words, *end).code == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "two") == contents(tmp_path / "whole")


def incomplete(run: Path) -> set[str]:
    """The checkpoints of which there are parts, and no more."""
    names = {path.name for path in (run / "checkpoints").iterdir() if not path.name.endswith(".part")}
    return {name.partition(".")[0] for name in names} - {name.removesuffix(".safetensors") for name in names}


@pytest.mark.parametrize("split", ["units", pytest.param("inputs", marks=pytest.mark.deep)])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_kill_between_the_parts_and_what_makes_them_a_checkpoint_loses_that_one_alone(
    rank: int, split: str, tmp_path: Path
) -> None:
    sizes = sets("N=9", "D_in=3000", "H=48", "D_out=2", "lr=1e-5", "parts=12", f"split={split}")
    for number in range(30):
        run = tmp_path / f"run-{number}"
        words = [*sizes, *LONG, "--ranks", "3", "--checkpoint-every", "1", "--out", run.name]
        with Training(tmp_path, *words) as training:
            training.has_losses(run.name)
            wait(partial(incomplete, run), training.process)
            assert training.signal(rank, signal.SIGKILL)
            done = training.end()
        assert done.left == []
        if incomplete(run):
            break
    assert incomplete(run)
    newest = max(int(path.stem) for path in (run / "checkpoints").glob("*.safetensors") if path.stem.isdecimal())
    assert newest + 1 >= max(map(int, incomplete(run)))
    more = ["--epochs", str(newest + 9), "-q"]
    done = train(tmp_path, "--resume", run.name, *more, "--ranks", "2")
    assert (done.code, incomplete(run)) == (0, set()), done.stderr
    assert json.loads((run / INFO).read_text())["resumed"][0]["iteration"] == newest
    assert train(tmp_path, *sizes, *more, "--out", "whole").code == 0
    assert contents(run) == contents(tmp_path / "whole")


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.sample(1)
def test_sigterm_to_any_rank_ends_the_training_in_order(rank: int, tmp_path: Path) -> None:
    done = stopped(tmp_path, 3, (2 - rank, signal.SIGTERM))
    assert (done.code, done.left) == (143, [])
    assert "resume with: twolayer train --resume run" in done.stderr
    assert "error" not in done.stderr


def test_ctrl_c_ends_the_training_in_order(tmp_path: Path) -> None:
    done = stopped(tmp_path, 2, (0, signal.SIGINT))
    assert (done.code, done.left) == (130, [])
    assert "resume with: twolayer train --resume run" in done.stderr
    assert "error" not in done.stderr


def test_ctrl_c_twice_ends_at_once_what_does_not_end(tmp_path: Path) -> None:
    once = (0, signal.SIGINT)  # rank 1 is stopped: in order nothing ends before the timeout of five minutes
    done = stopped(tmp_path, 2, (1, signal.SIGSTOP), once, once, (1, signal.SIGCONT))
    assert (done.code, done.left, done.stderr) == (130, [], "")


def test_a_rank_that_does_not_answer_ends_the_training(tmp_path: Path) -> None:
    done = stopped(tmp_path, 2, (1, signal.SIGSTOP), options=["--exchange-timeout", "1"])
    assert (done.code, done.left) == (1, [])
    assert "error: another rank has not answered within 1 s" in done.stderr


def test_nothing_is_left_when_the_first_is_killed(tmp_path: Path) -> None:
    done = stopped(tmp_path, 3, (0, signal.SIGKILL))
    assert (done.code, done.left) == (-signal.SIGKILL, [])


def test_a_divergence_is_told_once_and_keeps_the_last_weights(tmp_path: Path) -> None:
    done = train(tmp_path, *SETS, "--lr", "1e6", "--ranks", "2", "-q", "--out", "run")
    assert (done.code, done.left) == (3, [])
    assert done.stderr.count("error: ") == 1
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_the_rank_that_failed_is_named_and_not_those_that_ended_because_of_it() -> None:
    codes = [UNANSWERED, -signal.SIGKILL, None]
    processes: list[Any] = [SimpleNamespace(poll=lambda code=code: code) for code in codes]
    others = Others(Place(0, 4, 0, 4, "folder/meeting"), 1, 1, processes)
    assert others.gone() == ["rank 2 was killed by signal 9 (SIGKILL)"]
    del processes[1:]
    assert others.gone() == ["rank 1 has ended: another rank has not answered"]


@pytest.mark.deep
def test_processes_that_are_not_forked_train_with_the_same_bits(tmp_path: Path) -> None:
    for out, more in (("one", ["--set", "parts=12"]), ("two", ["--ranks", "2"])):
        command = [sys.executable, "-m", "twolayer", "train", *SETS, *more, "-q", "--out", str(tmp_path / out)]
        subprocess.run(command, env=clean_environment(), check=True, cwd=Path(__file__).parents[2])
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


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
        (["--ranks", "13"], "--ranks: 13 ranks are more than 12 parts; use at most 12, or --set parts=13"),
        (["--ranks", "3", "--set", "parts=2"], "--ranks: 3 ranks are more than 2 parts; use at most 2, or"),
        (
            ["--ranks", "2", "--engine", "manual"],
            "--ranks: parts: requires the fused or the compiled engine, but the engine is manual",
        ),
        (["--ranks", "2", "--threads", "2"], "--ranks: threads: must be 1 or auto with parts"),
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
        (["bench", "--ranks", "1,13"], "--ranks: 13 ranks are more than 12 parts; use at most 12, or --set parts=13"),
        (["bench", "--ranks", "2", "--set", "engine=manual"], "parts: requires the fused or the compiled engine, but"),
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
