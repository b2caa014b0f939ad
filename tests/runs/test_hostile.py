"""Folders that somebody else has made: nothing outside a run is ever touched, and nothing damaged is ever believed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.helpers.forking import HANGS, Forked, clean_environment
from tests.helpers.forking import run as forked
from tests.helpers.handmade import change_info
from tests.helpers.processes import BASE, COMPUTE, Run
from tests.helpers.trained import train
from twolayer.config.schema import Config
from twolayer.errors import RunError
from twolayer.files import Folder
from twolayer.runs import checkpoint, saved_run
from twolayer.runs.checksum import digest
from twolayer.runs.folder import open_for_resume
from twolayer.runs.run_files import check_files, read_info

OLD = Path(__file__).parents[1] / "runs-0.1.0"
NAMES = ("run.json", "config.yaml", "history.csv", "model.safetensors", "checkpoints", "checkpoints/5.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of drawn data, one of a table, one that was interrupted, and one with event files."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "my.yaml").write_text(BASE)
    (folder / "my.csv").write_text("a,b\n" + "".join(f"{i},{i * 7 % 5}\n" for i in range(40)))
    train(folder, "my.yaml", "my.csv --target b --epochs 5", "my.yaml --tensorboard", "my.yaml --lr 1e9")
    (folder / "runs/my-1").rename(folder / "runs/drawn")
    (folder / "runs/my-2").rename(folder / "runs/table")
    (folder / "runs/my-3").rename(folder / "runs/events")
    (folder / "runs/my-4").rename(folder / "runs/diverged")
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, in which commands may do what they like."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def contents(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All that is in a folder, byte for byte, with its times, modes and names."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_ino, status.st_mode, status.st_nlink, status.st_mtime_ns, data)
    return found


def every_command(
    twolayer: Run, names: list[str], is_chosen: Callable[[int, int], bool] = lambda run, command: True
) -> Iterator[subprocess.CompletedProcess[str]]:
    """Run every command that takes runs; of those that compute, the chosen ones, by the numbers of run and command."""
    yield twolayer("runs")
    yield twolayer("compare", *names)
    yield twolayer("report", *names, "-o", "report.html")
    yield twolayer("plot", *names, "-o", "plot.svg")
    for run, name in enumerate(names):
        yield twolayer("show", name)
        yield twolayer("show", name, "--format", "csv")
        computing = [
            ("evaluate", name, "my.csv"),
            ("predict", name, "my.csv"),
            ("train", "--resume", name, "--epochs", "10", "-q"),
            ("train", "--resume", name, "--epochs", "12", "-q", "--tensorboard"),
        ]
        for number, command in enumerate(computing):
            if is_chosen(run, number):
                yield twolayer(*command)
    yield twolayer("train", "my.yaml", "-q")


# --- Links


def test_the_sweep_of_leftovers_follows_no_link(twolayer: Run, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a").write_text("precious")
    (victim / ".twolayer").write_text(".twolayer-aaaaaaaaaaaaaaaa.part")
    os.utime(victim, (0, 0))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/.twolayer-aaaaaaaaaaaaaaaa.part").symlink_to("../victim")
    inner = tmp_path / "runs/.twolayer-bbbbbbbbbbbbbbbb.part"
    inner.mkdir()
    (inner / ".twolayer").write_text(inner.name)
    os.link(victim / "a", inner / "history.csv")
    os.utime(inner, (0, 0))
    linked = tmp_path / "runs/.twolayer-cccccccccccccccc.part"
    linked.mkdir()
    (linked / ".twolayer").write_text(linked.name)
    (linked / "checkpoints").symlink_to(victim)
    os.utime(linked, (0, 0))
    (tmp_path / "my.yaml").write_text(BASE)
    before = contents(victim)[str(victim / "a")][4]
    assert twolayer("train", "my.yaml", "-q").returncode == 0
    assert (victim / "a").read_bytes() == before == b"precious"
    assert sorted(path.name for path in victim.iterdir()) == [".twolayer", "a"]
    assert not inner.exists()  # which was ours
    assert linked.exists()  # which no kill leaves


# Of runs of each kind a third of the links, each link in a run of one kind; or each link in runs of every kind.
@pytest.mark.parametrize("thirds", [range(1), pytest.param(range(3), marks=pytest.mark.deep)], ids=["third", "all"])
def test_a_link_anywhere_in_a_run_leads_nowhere(thirds: range, twolayer: Run, place: Path) -> None:
    kinds, linked = ("drawn", "table", "events"), []
    for kind in kinds:
        shutil.copytree(place / "runs" / kind, place / "outside" / kind)
    (place / "outside/secret").write_text("do not print this")
    for number, (word, name) in enumerate((word, name) for word in ("same", "other") for name in NAMES):
        for kind in (kinds[(number + number // len(NAMES) + third) % 3] for third in thirds):
            run, outside = place / f"runs/{word}-{kind}-{number}", place / "outside" / kind
            shutil.copytree(place / "runs" / kind, run)
            there = run / name
            target = outside / name if word == "same" else place / "outside/secret"
            if there.is_dir():
                shutil.rmtree(there)
                target = outside / "checkpoints"
            else:
                there.unlink()
            there.symlink_to(target)
            linked.append(run.name)
    outside = place / "outside"
    leftover = place / "runs/drawn/.twolayer-aaaaaaaaaaaaaaaa.part"
    leftover.symlink_to(outside / "drawn")
    (place / "runs/drawn/checkpoints/.twolayer-aaaaaaaaaaaaaaaa.part").symlink_to(outside / "secret")
    for kind in kinds:
        (place / f"runs/whole-{kind}").symlink_to(outside / kind)
    before = contents(outside)
    for done in every_command(twolayer, [*linked, "drawn", *(f"whole-{kind}" for kind in kinds)]):
        assert done.returncode in (0, 1, 2)
        assert "Traceback" not in done.stderr
        assert "do not print" not in done.stdout + done.stderr
    assert contents(outside) == before
    assert "do not print" not in (place / "report.html").read_text() if (place / "report.html").exists() else True


def test_runs_and_the_folder_that_is_given_may_be_links(twolayer: Run, place: Path) -> None:
    (place / "disk").mkdir()
    (place / "runs").rename(place / "disk/runs")
    (place / "runs").symlink_to("disk/runs")
    (place / "here").symlink_to("disk/runs/drawn")
    assert twolayer("show", "drawn").returncode == twolayer("show", "here").returncode == 0
    assert twolayer("train", "--resume", "here", "--epochs", "10", "-q").returncode == 0
    assert twolayer("train", "my.yaml", "-q").returncode == 0


def test_a_history_with_a_second_name_is_not_written_through(twolayer: Run, place: Path) -> None:
    (place / "elsewhere.csv").hardlink_to(place / "runs/drawn/history.csv")
    shutil.rmtree(place / "runs/drawn/checkpoints")  # it would begin again
    before = (place / "elsewhere.csv").read_bytes()
    done = twolayer("train", "--resume", "drawn", "--epochs", "10", "-q")
    assert (done.returncode, done.stdout) == (1, "")
    assert "history.csv: has another name elsewhere (a hard link)" in done.stderr
    assert (place / "elsewhere.csv").read_bytes() == before


def test_a_backup_of_hard_links_hinders_no_continuation_and_is_not_changed(twolayer: Run, place: Path) -> None:
    shutil.copytree(place / "runs/drawn", place / "backup", copy_function=os.link)
    done = twolayer("train", "--resume", "drawn", "--epochs", "10", "-q")
    assert done.returncode == 1
    assert "history.csv: has another name elsewhere (a hard link)" in done.stderr
    assert "; replace it with a copy of itself\n" in done.stderr
    history = place / "runs/drawn/history.csv"
    shutil.copy(history, place / "copy")
    (place / "copy").replace(history)
    before = {path: path.read_bytes() for path in (place / "backup").rglob("*") if path.is_file()}
    assert twolayer("train", "--resume", "drawn", "--epochs", "10", "-q").returncode == 0
    assert {path: path.read_bytes() for path in before} == before
    assert saved_run.read(place / "backup").problems == ()


def test_a_folder_in_the_place_of_a_checkpoint_is_found_at_the_start(twolayer: Run, place: Path) -> None:
    (place / "runs/drawn/checkpoints/10.safetensors").mkdir()
    done = twolayer("train", "--resume", "drawn", "--epochs", "10", "-q")
    assert (done.returncode, done.stderr) == (
        1,
        "error: runs/drawn/checkpoints/10.safetensors: is a folder; remove it\n",
    )
    (place / "runs/drawn/checkpoints/10.safetensors").rmdir()
    assert twolayer("train", "--resume", "drawn", "--epochs", "10", "-q").returncode == 0


# --- A folder that is moved while a training runs


def test_a_training_goes_on_in_its_folder_wherever_that_is_moved(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(BASE)
    first = ["train", "my.yaml", "--epochs", "5000", "--checkpoint-every", "100", "-q", "--tensorboard", "--out", "A"]
    with Forked(first, tmp_path) as process:
        while not list((tmp_path / "A" / "checkpoints").glob("[0-9]*.safetensors")):
            assert process.poll() is None
        (tmp_path / "A").rename(tmp_path / "A-moved")
        train(tmp_path, "my.yaml --seed 7 --out A -q")
        before = contents(tmp_path / "A")
        _, stderr = process.communicate()
    assert process.returncode == 0
    assert contents(tmp_path / "A") == before
    assert f"A: was moved while the training ran; the run is in {tmp_path / 'A-moved'}" in stderr
    for name, rows in (("A-moved", 5000), ("A", 5)):
        run = saved_run.read(tmp_path / name)
        assert (run.status, run.problems, len(run.history)) == ("completed", (), rows)
    assert forked(["train", "--resume", "A-moved", "--epochs", "5010", "-q"], tmp_path).returncode == 0


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_training_whose_folder_was_removed_says_so_and_names_no_other_run(is_replaced: bool, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(BASE)
    first = ["train", "my.yaml", "--epochs", "5000", "--checkpoint-every", "100", "-q", "--out", "B"]
    with Forked(first, tmp_path) as process:
        while not list((tmp_path / "B" / "checkpoints").glob("[0-9]*.safetensors")):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGSTOP)  # else it may see a folder that is half removed
        shutil.rmtree(tmp_path / "B")
        os.kill(process.pid, signal.SIGCONT)
        if is_replaced:
            train(tmp_path, "my.yaml --seed 7 --out B")
        _, stderr = process.communicate()
    assert process.returncode == 1
    assert stderr.startswith("B: was removed while the training ran\nerror: B/")
    assert "resume" not in stderr
    assert "keeps" not in stderr


@pytest.mark.parametrize("name", ["model.safetensors", "history.csv", "config.yaml", "run.json"])
def test_a_folder_whose_files_are_of_two_runs_is_not_believed(name: str, twolayer: Run, place: Path) -> None:
    train(place, "my.csv --target b --epochs 5 --seed 1 --out other")
    shutil.copy(place / "other" / name, place / "runs/table" / name)
    for command in ("evaluate", "predict"):
        done = twolayer(command, "table", "my.csv")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: runs/table/")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.sample(2)
@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "completed"])
def test_no_command_shows_the_weights_of_another_run(status: str, twolayer: Run, place: Path) -> None:
    run = place / "runs/table"
    train(place, "my.csv --target b --epochs 5 --seed 1 --out other")
    shutil.copy(place / "other/model.safetensors", run / "model.safetensors")
    change_info(run, status=status, model_sha256=None)
    assert twolayer("report", "table").returncode == 0
    text = (place / "report.html").read_text()
    assert "data:image" not in text
    assert ("The weights cannot be shown" if status == "completed" else "There are no weights yet") in text
    for command in ("evaluate", "predict"):
        done = twolayer(command, "table", "my.csv")
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


@pytest.mark.parametrize("kind", ["missing", "dangling"])
@pytest.mark.parametrize("name", ["history.csv", "config.yaml"])
def test_a_run_without_its_config_or_history_is_not_scored(name: str, kind: str, twolayer: Run, place: Path) -> None:
    path = place / "runs/table" / name
    path.unlink()
    if kind == "dangling":
        path.symlink_to("nowhere")
    for command in ("evaluate", "predict"):
        done = twolayer(command, "table", "my.csv")
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
        assert done.stderr.startswith(f"error: runs/table/{name}: ")


# --- Damage


def flips(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """The data with one bit that is another, at some places."""
    chosen = random.Random(seed)
    for place in chosen.sample(range(len(data)), min(count, len(data))):
        yield data[:place] + bytes([data[place] ^ 1 << chosen.randrange(8)]) + data[place + 1 :]


@pytest.mark.parametrize("name", ["history.csv", "run.json", "config.yaml"])
def test_no_flipped_bit_is_believed(name: str, place: Path) -> None:
    path = place / "runs/drawn" / name
    assert saved_run.read(path.parent).problems == ()
    for damaged in flips(path.read_bytes(), 60):
        path.write_bytes(damaged)
        found = saved_run.read(path.parent)
        assert found.problems != ()
        assert found.status == ("broken" if name == "run.json" else "completed")
        with pytest.raises(RunError):
            check_files(path.parent)


def test_a_flipped_digit_is_said_by_whatever_reads_the_history(twolayer: Run, place: Path) -> None:
    path = place / "runs/drawn/history.csv"
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace(lines[2][4], str((int(lines[2][4]) + 1) % 10) if lines[2][4].isdigit() else "5", 1)
    path.write_text("".join(lines))
    message = "runs/drawn/history.csv: is damaged: its checksum is not the one in run.json"
    for command in (
        ("show", "drawn"),
        ("show", "drawn", "--format", "csv"),
        ("compare", "drawn", "table"),
        ("report", "drawn"),
        ("plot", "drawn", "-o", "x.svg"),
    ):
        assert message in twolayer(*command).stderr
    assert message in (place / "report.html").read_text()
    assert twolayer("show", "drawn", "--format", "csv").returncode == 1
    assert twolayer("compare", "drawn", "drawn", "--expect-equal").returncode == 1


def test_of_a_killed_run_the_rows_up_to_the_newest_checkpoint_are_checked(twolayer: Run, place: Path) -> None:
    run = place / "runs/drawn"
    change_info(run, status="running")
    with (run / "history.csv").open("a") as file:
        file.write("6,1.0\n7,1.0\n")
    found = saved_run.read(run)
    assert (found.status, found.problems, found.unsealed) == ("killed", (), 2)
    assert "7 of 5 iterations" in (shown := twolayer("show", "drawn")).stdout
    assert "unsealed after 5" in shown.stdout
    assert twolayer("report", "drawn").returncode == 0
    assert "the history is unsealed from row 6 on" in (place / "report.html").read_text()
    (run / "history.csv").write_text((run / "history.csv").read_text().replace("\n2,", "\n2,1"))
    problem = "history.csv: is damaged in its first 5 rows: their checksum is not the checkpoint's"
    assert problem in saved_run.read(run).problems[0]
    assert problem in twolayer("runs").stderr
    # A damaged checkpoint is no reason to doubt the history.
    newest = run / "checkpoints/5.safetensors"
    data = newest.read_bytes().replace(b'"history_sha256\\": \\"', b'"history_sha256\\": \\"', 1)
    at = data.index(b"history_sha256") + 20
    newest.write_bytes(data[:at] + (b"0" if data[at : at + 1] != b"0" else b"1") + data[at + 1 :])
    assert saved_run.read(run).problems == ()


@pytest.mark.parametrize("key", ["iterations", "first_loss", "best_loss", "last_loss"])
def test_figures_in_run_json_that_are_not_the_historys_are_said(key: str, place: Path) -> None:
    change_info(place / "runs/drawn", **{key: 3})
    assert any(key in problem or "rows" in problem for problem in saved_run.read(place / "runs/drawn").problems)


# --- What never ends


def limited(command: Sequence[str], place: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with 4 GiB of memory; without a limit what draws, whose JavaScript engine reserves a terabyte."""
    memory = 0 if command[0] in ("plot", "report") else 4 * 2**30
    return forked(command, place, bare=not COMPUTE.intersection(command), memory=memory)


# What computes meets each name as one of the three, and each of the three under some name; or all of them.
@pytest.mark.parametrize("thirds", [1, pytest.param(3, marks=pytest.mark.deep)])
def test_nothing_waits_at_a_pipe_or_reads_a_device_without_end(thirds: int, place: Path) -> None:
    names = []
    for number, name in enumerate(NAMES):
        for kind in ("pipe", "zero", "sparse"):
            run = place / "runs" / f"{kind}-{number}"
            shutil.copytree(place / "runs/table", run)
            path = run / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "zero":
                path.symlink_to("/dev/zero")
            else:
                with path.open("wb") as file:
                    file.truncate(3 * 2**30)
            names.append(run.name)

    def is_chosen(run: int, command: int) -> bool:
        return (run + run // 3 + command) % 3 < thirds

    for done in every_command(lambda *command: limited(command, place), names, is_chosen):
        assert done.returncode in (0, 1, 2)
        assert "Traceback" not in done.stderr
        assert "memory" not in done.stderr


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [1, 2])
def test_a_sparse_file_of_gigabytes_is_not_read_into_memory(name: str, form: int, place: Path) -> None:
    if form == 1:
        shutil.rmtree(place / "runs/table")
        shutil.copytree(OLD / "table", place / "runs/table")
        (place / "my.csv").write_text("size,floor,price\n20,low,70\n100,high,360\n")
    path = place / "runs/table" / name
    if path.is_dir():
        path = path / "9.safetensors"
    with path.open("r+b" if name == "history.csv" else "wb") as file:
        file.truncate(2**36)
    for command in (
        ["runs"],
        ["show", "table"],
        ["compare", "table", "drawn"],
        ["report", "table"],
        ["evaluate", "table", "my.csv"],
        ["predict", "table", "my.csv"],
        ["train", "--resume", "table", "--epochs", "10", "-q"],
    ):
        done = limited(command, place)
        assert done.returncode in (0, 1)
        assert "Traceback" not in done.stderr
        assert "memory" not in done.stderr, command


# --- Tracebacks


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_a_run_that_was_killed_before_its_first_row_is_shown(form: str, twolayer: Run, place: Path) -> None:
    run = place / "runs/drawn"
    (run / "history.csv").write_text("iteration,loss\n")
    shutil.rmtree(run / "checkpoints")
    change_info(run, status="running")
    done = twolayer("show", "drawn", "--format", form)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ({"csv": "iteration,loss\n", "jsonl": ""}[form] if form != "table" else done.stdout)


@pytest.mark.parametrize("value", [7, {"a": 1}, [1], [None], "x", True, 10**400, -(10**400), math.nan, math.inf])
@pytest.mark.parametrize(
    "key", ["config_sha256", "seconds", "epochs", "resumed", "checkpoint_every", "tensorboard", "note", "lr"]
)
def test_run_json_may_hold_anything_and_a_continuation_says_so(key: str, value: Any, place: Path) -> None:
    change_info(place / "runs/drawn", **{key: value})
    try:
        open_for_resume(place / "runs/drawn").close()
    except RunError as error:
        assert key in str(error) or "changed" in str(error) or "run.json: is damaged: it holds" in str(error)
    else:
        assert value != math.inf
        assert value == value
        assert key not in ("config_sha256", "seconds", "epochs") or (key, value) in (("seconds", 7), ("epochs", 7))


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", "9" * 400, "[" * 100_000 + "]" * 100_000])
@pytest.mark.parametrize("key", ["note", "lr", "seconds"])
def test_a_value_that_cannot_be_written_again_is_found_before_the_history_is_cut(
    key: str, text: str, twolayer: Run, old: Path
) -> None:
    run = old / "runs/drawn"
    info = json.loads((run / "run.json").read_text())
    info = {name: value for name, value in info.items() if name != key}
    (run / "run.json").write_text(json.dumps(info)[:-1] + f', "{key}": {text}}}')
    shutil.rmtree(run / "checkpoints")  # it would begin again
    (run / "checkpoints").mkdir()
    before = contents(run)
    done = twolayer("train", "--resume", "drawn", "--epochs", "30", "-q")
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        assert text.isdecimal()
        assert key in ("note", "lr")
    else:
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert done.stderr.startswith("error: runs/drawn/run.json: is damaged: ")
        assert contents(run) == before


def test_a_disk_that_fills_up_at_the_start_of_a_continuation_takes_no_rows(place: Path) -> None:
    run = place / "runs/drawn"
    (run / "checkpoints/5.safetensors").unlink()  # it would begin again
    before = (run / "history.csv").read_bytes()
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16)); "
    program += "from twolayer.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "--resume", "drawn", "--epochs", "10", "-q"],
        cwd=place, env=clean_environment(), capture_output=True, encoding="utf-8", timeout=HANGS, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert (run / "history.csv").read_bytes() == before
    found = saved_run.read(run)
    assert (found.status, found.problems) == ("completed", ())


def test_an_interval_of_checkpoints_that_is_none_is_said_of_run_json(twolayer: Run, place: Path) -> None:
    change_info(place / "runs/drawn", checkpoint_every="x")
    done = twolayer("train", "--resume", "drawn", "--epochs", "10", "-q")
    message = (
        "error: runs/drawn/run.json: is damaged: checkpoint_every: not a valid value; add --checkpoint-every 30s\n"
    )
    assert (done.returncode, done.stderr) == (1, message)
    again = ("train", "--resume", "drawn", "--epochs", "10", "-q", "--checkpoint-every", "30s")
    assert twolayer(*again).returncode == 0


def test_no_cell_of_a_csv_that_is_printed_is_a_formula(twolayer: Run, place: Path) -> None:
    change_info(place / "runs/drawn", note="=cmd|' /C calc'!A0")
    assert ",'=cmd|' /C calc'!A0," in twolayer("runs", "--format", "csv").stdout
    (place / "odd.csv").write_text("=1+2,@x\n-1,2\n3,4\n")
    lines = twolayer("data", "odd.csv", "--format", "csv").stdout.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["column", "'=1+2", "'@x"]
    assert ",-1.0," in lines[1]


OTHERS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "a name more": lambda state: state | {"more": torch.zeros(1)},
    "a name less": lambda state: dict(list(state.items())[1:]),
    "another shape": lambda state: {name: torch.zeros(3, 3, 3) for name in state},
    "another dtype": lambda state: {name: tensor.double() for name, tensor in state.items()},
    "nothing": lambda state: {},
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("of", ["drawn", "table"])
def test_a_checkpoint_with_other_tensors_is_passed_over(of: str, kind: str, twolayer: Run, place: Path) -> None:
    run = place / "runs" / of
    good = run / "checkpoints/5.safetensors"
    _, metadata = checkpoint.unpack(good.read_bytes())
    state = safetensors.torch.load(good.read_bytes())
    (run / "checkpoints/5.safetensors").write_bytes(b"".join(checkpoint.pack(OTHERS[kind](state), metadata)))
    done = twolayer("train", "--resume", of, "--epochs", "8", "-q")
    assert done.returncode == 0
    assert "5.safetensors: is a state of another training: its" in done.stderr
    assert "no checkpoint to resume from; it starts at iteration 1" in done.stderr
    assert saved_run.read(run).problems == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"iteration": []},
        {"iteration": "x"},
        {"seconds": "nan"},
        {"seconds": None},
        {"history_bytes": "-1"},
        {"history_bytes": {}},
        {"history_sha256": 7},
    ],
)
def test_a_checkpoint_with_other_metadata_is_passed_over(fields: dict[str, Any], place: Path) -> None:
    path = place / "runs/drawn/checkpoints/5.safetensors"
    state, metadata = checkpoint.unpack(path.read_bytes())
    path.write_bytes(b"".join(checkpoint.pack(state, metadata | fields)))
    with Folder(path.parent) as folder:
        found, wrong = checkpoint.newest(folder)
    if "history_sha256" in fields:
        assert found is not None
        assert not found.history_sha256.startswith("a")
    else:
        assert found is None
        assert len(wrong) == 1
    assert saved_run.read(place / "runs/drawn").status == "completed"


def test_where_an_earlier_checkpoint_agrees_with_the_history_the_newer_one_is_damaged(
    twolayer: Run, place: Path
) -> None:
    train(place, "my.yaml --checkpoint-every 3 --out run", "my.yaml --checkpoint-every 3 --seed 1 --out other")
    run, name = place / "run", "checkpoints/5.safetensors"
    before = {part: (run / part).read_bytes() for part in ("history.csv", "model.safetensors")}
    shutil.copy(place / "other" / name, run / name)
    change_info(run, status="running")
    message = "does not agree with checkpoints/5.safetensors after row 3: one of the two is damaged"
    shown = twolayer("show", "run")
    assert f"run/history.csv: {message}" in shown.stderr
    assert "unsealed after 3" in " ".join(shown.stdout.split())
    assert twolayer("show", "run", "--format", "csv").returncode == 1
    done = twolayer("train", "--resume", "run", "-q")
    assert done.returncode == 0
    assert "run/checkpoints/5.safetensors: does not agree with history.csv\n" in done.stderr
    assert {part: (run / part).read_bytes() for part in before} == before
    # Where no checkpoint agrees, the history is damaged.
    history = before["history.csv"].replace(b"\n2,", b"\n2,1")
    (run / "history.csv").write_bytes(history)
    change_info(run, status="running")
    assert "history.csv: is damaged in its first 5 rows" in twolayer("show", "run").stderr
    done = twolayer("train", "--resume", "run", "-q")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "history.csv: does not have the checksum that the checkpoint has for it" in done.stderr
    assert (run / "history.csv").read_bytes() == history


# --- Runs of version 0.1.0, which kept no checksums in run.json


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "runs")
    return tmp_path


def test_runs_of_version_0_1_0_are_read_as_before_and_only_report_calls_them_unsealed(twolayer: Run, old: Path) -> None:
    for name, rows in (("drawn", 20), ("table", 8)):
        run = saved_run.read(old / "runs" / name)
        assert (run.status, run.problems, len(run.history)) == ("completed", (), rows)
    table = "size,floor,price\n20,low,70\n100,high,360\n"
    (old / "new.csv").write_text(table)
    commands = [
        ("runs",),
        ("show", "drawn"),
        ("compare", "drawn", "table"),
        ("plot", "drawn", "-o", "x.svg"),
        ("evaluate", "table", "new.csv"),
        ("predict", "table", "new.csv"),
    ]
    for command in commands:
        done = twolayer(*command)
        assert done.returncode == 0
        assert "sealed" not in done.stdout + done.stderr
    assert twolayer("report", "drawn").returncode == 0
    assert "unsealed: this version of twolayer kept no checksums" in (old / "report.html").read_text()


def test_a_run_of_version_0_1_0_goes_on_and_is_sealed_then(twolayer: Run, place: Path) -> None:
    run = place / "runs/table"
    info = json.loads((run / "run.json").read_text()) | {"format": 1, "status": "interrupted"}
    ours = ("sha256", "history_bytes", "history_sha256", "model_sha256")
    (run / "run.json").write_text(json.dumps({key: info[key] for key in info if key not in ours}, indent=2) + "\n")
    assert twolayer("evaluate", "table", "my.csv").returncode == 0
    assert twolayer("train", "--resume", "table", "--epochs", "9", "-q").returncode == 0
    info = read_info(run)
    assert info["format"] == 2
    assert info["history_sha256"] == hashlib.sha256((run / "history.csv").read_bytes()).hexdigest()
    assert info["model_sha256"] == digest((run / "model.safetensors").read_bytes())
    assert saved_run.read(run).problems == ()


def test_a_run_from_before_a_key_has_that_key_as_it_was_then(twolayer: Run, place: Path) -> None:
    """`average`, which files have by default since then: a run without it in its config goes on without it."""
    assert loaded(saved_run.read(OLD / "table")).average is None
    options = ("my.csv", "--target", "b", "--set", "average=null", "--set", "patience=null")
    assert twolayer("train", *options, "--epochs", "5", "--out", "run", "-q").returncode == 0
    assert twolayer("train", *options, "--epochs", "9", "--out", "whole", "-q").returncode == 0
    run, whole = place / "run", place / "whole"
    config = (run / "config.yaml").read_text()
    assert "average: null\n" in config
    (run / "config.yaml").write_text(config := config.replace("average: null\n", ""))
    change_info(run, config_sha256=[digest(config.encode())])
    done = twolayer("train", "--resume", "run", "--epochs", "9", "-q")
    assert done.returncode == 0, done.stderr
    assert "average: null\n" in (run / "config.yaml").read_text()
    for name in ("history.csv", "model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def loaded(run: saved_run.SavedRun) -> Config:
    assert run.config is not None
    return run.config
