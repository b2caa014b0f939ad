from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from twolayer import files
from twolayer.errors import RunError
from twolayer.runs.folder import Run, create, open_for_resume
from twolayer.runs.lock import is_held


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str = "x", out: Path | None = None) -> Run:
    with create(out, name) as run:
        run.write("config.yaml", b"H: 1\n")
        run.update_info(status="running", config_sha256=[hashlib.sha256(b"H: 1\n").hexdigest()])
    return run


def test_runs_are_numbered_and_no_number_is_taken_twice() -> None:
    assert [made("a").path, made("a").path, made("b").path] == [Path("runs/a-1"), Path("runs/a-2"), Path("runs/b-1")]
    Path("runs/a-9").mkdir()
    assert made("a").path == Path("runs/a-10")


def test_a_folder_that_is_there_is_refused() -> None:
    Path("mine").mkdir()
    with pytest.raises(RunError, match="mine: already exists; choose another folder") as caught:
        made(out=Path("mine"))
    assert caught.value.exit_code == 2
    Path("link").symlink_to("/nowhere")
    with pytest.raises(RunError, match="already exists"):
        made(out=Path("link"))


def test_a_folder_comes_to_its_place_whole_or_leaves_nothing(tmp_path: Path) -> None:
    def fail(run: Run) -> None:
        run.write("config.yaml", b"H: 1\n")
        assert not Path("a/b/c").exists()
        raise KeyError

    with pytest.raises(KeyError), create(Path("a/b/c"), "x") as run:
        fail(run)
    assert list(tmp_path.iterdir()) == []
    assert made(out=Path("a/b/c")).path == Path("a/b/c")
    assert [path.name for path in Path("a/b").iterdir()] == ["c"]


def test_of_two_that_make_one_folder_the_first_has_it() -> None:
    with pytest.raises(RunError, match="mine: already exists"), create(Path("mine"), "x"):
        made(out=Path("mine")).close()
    assert [path.name for path in Path().iterdir()] == ["mine"]
    with create(None, "x") as second:
        first = made()
    assert (first.path, second.path) == (Path("runs/x-1"), Path("runs/x-2"))


def test_what_a_kill_has_left_in_the_making_is_swept_away() -> None:
    old, new, empty, unmarked = (Path(f".twolayer-{digit * 16}.part") for digit in "abcd")
    for path in (old, new):
        (path / "checkpoints").mkdir(parents=True)
        for name in ("history.csv", "run.json", files.temporary_name()):
            (path / name).touch()
        (path / ".twolayer").write_text(path.name)
    empty.mkdir()
    unmarked.mkdir()
    (unmarked / ".twolayer").touch()
    for path in (old, empty, unmarked):
        os.utime(path, (0, 0))
    made(out=Path("mine"))
    assert not any(path.exists() for path in (old, empty, unmarked))
    assert new.exists()


def contents(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_a_folder_that_no_kill_leaves_is_not_swept_away() -> None:
    names = [f".twolayer-{digit * 16}.part" for digit in "abcdefg"]
    markers = ["another", "", names[2][:-1], "", *names[4:]]
    for name, marker in zip(names, markers, strict=True):
        Path(name, "checkpoints").mkdir(parents=True)
        Path(name, "history.csv").write_text("precious")
        Path(name, ".twolayer").write_text(marker)
    Path(names[3], "history.csv").unlink()
    Path(names[4], "thesis.txt").touch()
    Path(names[5], "checkpoints/8.safetensors").touch()
    Path(names[6], "config.yaml/deep/deeper").mkdir(parents=True)
    for name in names:
        os.utime(name, (0, 0))
    before = contents(Path())
    made(out=Path("mine")).close()
    assert contents(Path()) == sorted([*before, *contents(Path("mine")), "mine"])


@pytest.mark.parametrize(
    ("out", "message"), [("file/x", "file: is not a folder"), ("x" * 300, "File name too long"), ("a\0b", "null byte")]
)
def test_a_place_that_cannot_be_is_named(out: str, message: str, tmp_path: Path) -> None:
    Path("file").touch()
    with pytest.raises(RunError, match=message):
        made(out=Path(out))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("part", ["checkpoints", "history.csv", "run.json", "config.yaml"])
def test_nothing_is_written_through_a_link(part: str, tmp_path: Path) -> None:
    run = made()
    run.start_history(("iteration", "loss"))
    run.close()
    outside = tmp_path / "outside"
    outside.mkdir()
    target = run.path / part
    if target.is_dir():
        target.rmdir()
    elif target.exists():
        target.rename(outside / part)
    target.symlink_to(outside if part == "checkpoints" else outside / part)
    with pytest.raises(RunError, match="is a link"):
        open_for_resume(run.path)


def test_a_run_that_another_process_holds_is_refused_and_a_killed_ones_is_not() -> None:
    run = made()
    run.close()
    program = (
        f"from twolayer.runs import folder, names; "
        f"run = folder.open_for_resume(names.find({str(run.path)!r})); print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        assert is_held(run.path)
        with pytest.raises(RunError, match="another process is training this run") as caught:
            open_for_resume(run.path)
        assert caught.value.exit_code == 2
        other.kill()
    assert not is_held(run.path)
    open_for_resume(run.path).close()


def test_the_history_goes_on_where_it_was_cut() -> None:
    run = made()
    run.start_history(("iteration", "loss"))
    run.append("1,2.0\n")
    mark = run.position()
    run.append("2,1.0\n3,0.")
    run.close()
    run = open_for_resume(run.path)
    run.open_history(*mark)
    assert (run.path / "history.csv").read_text() == "iteration,loss\n1,2.0\n2,1.0\n3,0."
    run.start_history(("iteration", "loss"))
    run.append("2,1.5\n")
    assert (run.path / "history.csv").read_text() == "iteration,loss\n1,2.0\n2,1.5\n"
    assert run.position()[0] == len("iteration,loss\n1,2.0\n2,1.5\n")


@pytest.mark.parametrize("damage", ["iteration,loss\n1,3.0\n2,1.0\n", "iteration,loss\n1", ""])
def test_a_history_that_was_changed_is_refused(damage: str) -> None:
    run = made()
    run.start_history(("iteration", "loss"))
    run.append("1,2.0\n")
    mark = run.position()
    run.close()
    (run.path / "history.csv").write_text(damage)
    with open_for_resume(run.path) as run, pytest.raises(RunError, match="does not have the checksum"):
        run.open_history(*mark)
    assert (run.path / "history.csv").read_text() == damage
    (run.path / "history.csv").unlink()
    with open_for_resume(run.path) as run, pytest.raises(RunError, match=r"history\.csv: is missing; restore it"):
        run.open_history(*mark)
    assert not (run.path / "history.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged: it is not JSON"),
        ("[]", "it has no format number"),
        ('{"format": 99}', "has format 99, and this version of twolayer reads 2 at most; install a newer version"),
    ],
)
def test_a_run_json_that_is_not_understood_is_named(text: str, message: str) -> None:
    run = made()
    run.close()
    (run.path / "run.json").write_text(text)
    with pytest.raises(RunError, match=message):
        open_for_resume(run.path)


class Failing:
    """The N-th call of a function of `os` fails, and all later ones where it fails lastingly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, code: int, *, lastingly: bool) -> None:
        self.at, self.code, self.lastingly, self.calls = at, code, lastingly, 0
        for name in ("open", "write", "fsync", "replace", "mkdir", "rename"):
            monkeypatch.setattr(os, name, self.wrap(getattr(os, name)))

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls == self.at or (self.lastingly and self.calls > self.at):
                raise OSError(self.code, os.strerror(self.code))
            return function(*arguments, **more)

        return call


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("lastingly", [False, True])
def test_a_write_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it(
    code: int, lastingly: bool, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    for at in range(1, 20):
        path.write_text("before")
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, at, code, lastingly=lastingly)
            try:
                with files.replacing(path) as file:
                    file.write(b"after")
                break
            except RunError as error:
                assert str(error) == f"{path}: cannot be written: {os.strerror(code)}"
        assert path.read_text() in ("before", "after")
        assert list(tmp_path.iterdir()) == [path]
    assert failing.calls < failing.at == 6  # the folder's open, the file's, fsync, replace, and the folder's fsync
    assert path.read_text() == "after"


def test_what_a_kill_left_is_swept_away() -> None:
    run = made()
    run.close()
    left = [folder / files.temporary_name() for folder in (run.path, run.path / "checkpoints")]
    for file in left:
        file.write_text("half")
    open_for_resume(run.path)
    assert not any(file.exists() for file in left)


def test_files_follow_the_umask() -> None:
    before = os.umask(0o027)
    try:
        run = made()
    finally:
        os.umask(before)
    assert (run.path / "run.json").stat().st_mode & 0o777 == 0o640
    assert json.loads((run.path / "run.json").read_text())["status"] == "running"


def test_a_config_that_was_changed_is_refused() -> None:
    run = made()
    run.close()
    (run.path / "config.yaml").write_text("H: 2\n")
    with pytest.raises(RunError, match=r"config\.yaml: was changed; a run can only be resumed"):
        open_for_resume(run.path)
    (run.path / "config.yaml").unlink()
    with pytest.raises(RunError, match=r"config\.yaml: is missing"):
        open_for_resume(run.path)


def test_who_looks_is_in_nobodys_way() -> None:
    run = made()
    run.close()
    with files.Folder(run.path) as folder:
        assert folder.lock(shared=True)
        assert not is_held(run.path)
    open_for_resume(run.path).close()
