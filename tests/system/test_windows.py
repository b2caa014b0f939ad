"""Whole commands where what only POSIX has is missing, and open files cannot be moved (tests/helpers/windows.py)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.forking import Forked, run
from tests.helpers.windows import BREAK, as_on_windows
from twolayer.runs.names import safe_name
from twolayer.system import console, folders, names

SMALL = ["--set", "N=200", "--quiet"]
LONG = ["train", *SMALL, "--epochs", "1000000", "--checkpoint-every", "100"]


def windows(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[Any]:
    return run(arguments, cwd, windows=True)


def started(cwd: Path) -> Forked:
    """A training that has written its first checkpoint."""
    process = Forked(LONG, cwd, windows=True)
    while not list(cwd.glob("runs/default-1/checkpoints/[0-9]*")):
        assert process.poll() is None, process.stderr.read()
    return process


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run."""
    place = tmp_path_factory.mktemp("windows")
    done = windows("train", *SMALL, "--epochs", "30", cwd=place)
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
    return place


def test_a_training_leaves_the_files_that_it_leaves_on_posix(trained: Path, tmp_path: Path) -> None:
    assert run(["train", *SMALL, "--epochs", "30"], tmp_path).returncode == 0
    here, there = (place / "runs" / "default-1" for place in (tmp_path, trained))
    assert {path.name for path in here.iterdir()} == {path.name for path in there.iterdir()}
    for name in ("config.yaml", "history.csv", "model.safetensors"):
        assert (here / name).read_bytes() == (there / name).read_bytes()
    assert [path.name for path in (trained / "runs").iterdir()] == ["default-1"]


@pytest.mark.sample(2)
@pytest.mark.parametrize("command", ["show", "runs", "plot -o loss.svg", "inspect", "report -o report.html"])
def test_what_looks_at_a_run_works(command: str, trained: Path, tmp_path: Path) -> None:
    name, *more = command.split()
    shutil.copytree(trained / "runs", tmp_path / "runs")
    done = windows(name, *(() if name == "runs" else ("default-1",)), *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "default-1" in done.stdout + done.stderr + name or list(tmp_path.glob("*.*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (BREAK, 143)])
def test_ctrl_c_and_ctrl_break_end_a_training_that_is_resumed_on_posix(number: int, code: int, tmp_path: Path) -> None:
    with started(tmp_path) as process:
        process.send_signal(number)
        _, error = process.communicate()
    assert (process.returncode, "Traceback" in error) == (code, False)
    assert "twolayer train --resume default-1" in error
    rows = (tmp_path / "runs" / "default-1" / "history.csv").read_text().count("\n") - 1
    done = run(["train", "--resume", "default-1", "--epochs", str(rows + 50), "--quiet"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert run(["train", *SMALL, "--epochs", str(rows + 50)], tmp_path).returncode == 0
    resumed, whole = (tmp_path / "runs" / name / "history.csv" for name in ("default-1", "default-2"))
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_run_that_is_trained_is_locked_and_a_kill_leaves_no_lock(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        second = windows("train", "--resume", "default-1", cwd=tmp_path)
        assert (second.returncode, "another process is training this run" in second.stderr) == (2, True)
        assert "running" in windows("runs", cwd=tmp_path).stdout
        process.kill()
    assert (tmp_path / "runs" / "default-1" / ".lock").exists()
    assert "running" not in windows("runs", cwd=tmp_path).stdout
    rows = (tmp_path / "runs" / "default-1" / "history.csv").read_text().count("\n") + 10
    done = windows("train", "--resume", "default-1", "--epochs", str(rows), "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "runs" / "default-1" / ".lock").exists()


@pytest.mark.parametrize("name", ["con", "NUL.x", "a.", "b ", "c?", "d:e"])
def test_a_name_that_windows_cannot_have_is_refused(name: str, tmp_path: Path) -> None:
    done = windows("train", *SMALL, "--out", name, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Windows" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_path_longer_than_windows_takes_is_refused_before_the_training(tmp_path: Path) -> None:
    done = windows("train", *SMALL, "--out", "x" * (220 - len(str(tmp_path))), cwd=tmp_path)
    assert (done.returncode, "Windows takes 259" in done.stderr) == (2, True), done.stderr


def test_a_config_of_a_device_s_name_gives_a_run_of_another() -> None:
    assert [safe_name(name) for name in ("con.yaml", "aux.x.yml", "LPT1", "console.yaml")] == [
        *("run-con", "run-aux.x", "run-LPT1", "console"),
    ]
    assert names.is_reserved("nul.txt")
    assert not names.is_reserved("null.txt")


def test_words_for_the_shell_of_windows_have_double_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert console.shell_words(["train", "my run"]) == "train 'my run'"
    monkeypatch.setattr(console, "WINDOWS", True)
    assert console.shell_words(["train", r"runs\my run", r"runs\x-1"]) == r'train "runs\my run" runs\x-1'


def test_a_file_that_is_open_elsewhere_for_a_moment_is_replaced_after_it(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "new").write_text("new")
    holder = (tmp_path / "old").open()
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            holder.close()

    with as_on_windows(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", wait)
        folder = folders._ByPath(tmp_path)
        folder.replace("new", "old")
    assert (len(waits), (tmp_path / "old").read_text()) == (3, "new")


def test_nothing_is_written_into_what_is_at_the_path_of_a_folder_that_was_moved(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    folder = folders._ByPath(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "away")
    (tmp_path / "run").mkdir()
    calls: list[Callable[[], object]] = [
        folder.names,
        folder.status,
        lambda: folder.open("x", os.O_WRONLY | os.O_CREAT),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError, match="moved or removed"):
            call()
    assert not list((tmp_path / "run").iterdir())


def test_a_link_is_not_followed_where_there_is_no_flag_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_NOFOLLOW")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.close(folders.open_file(tmp_path / "file", os.O_RDONLY))
    folder = folders._ByPath(tmp_path)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        folders.open_file(tmp_path / "link", os.O_RDONLY)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        folder.open("link", os.O_RDONLY)
