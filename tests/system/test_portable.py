"""What one system has is used in `twolayer.system` alone, and a run of one system goes on on another."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest

import twolayer
from tests.helpers.forking import run
from tests.helpers.handmade import change_info
from tests.helpers.windows import FLAGS, MODULES, OS, SIGNALS
from twolayer.runs.checksum import digest
from twolayer.runs.names import free_place

PACKAGE = Path(twolayer.__file__).parent
ONLY_POSIX = {*OS.split(), *FLAGS.split(), *SIGNALS.split(), *MODULES, "wait", "waitpid", "kill", "getpgid"}
KEYWORDS = {"dir_fd", "src_dir_fd", "dst_dir_fd", "pass_fds", "start_new_session", "preexec_fn"}
# A program of its own, which imports nothing of twolayer; it goes on without a limit where there is none.
EXCEPT = {"tables/excel_child.py": {"resource"}}


def posix(source: str) -> set[str]:
    """The names in a source that not every system has, as attributes, imports, text or keywords."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("os", "signal"):
            found.add(node.attr)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
        elif isinstance(node, ast.Constant):
            found.add(str(node.value))
        elif isinstance(node, ast.keyword) and node.arg in KEYWORDS:
            found.add(node.arg)
    return found & (ONLY_POSIX | KEYWORDS)


def test_names_that_not_every_system_has_are_found() -> None:
    assert posix("import os, fcntl\nos.open('x', os.O_NOFOLLOW, dir_fd=3)") == {"fcntl", "O_NOFOLLOW", "dir_fd"}
    assert posix("from os import fork\ngetattr(signal, 'SIGHUP')") == {"fork", "SIGHUP"}


def test_only_one_package_uses_what_not_every_system_has() -> None:
    modules = {str(path.relative_to(PACKAGE)): posix(path.read_text()) for path in PACKAGE.rglob("*.py")}
    users = {name: found for name, found in modules.items() if found}
    assert {name: found for name, found in users.items() if not name.startswith("system/")} == EXCEPT
    assert any(name.startswith("system/") for name in users)


def test_a_number_that_is_taken_in_other_letters_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Default-1", "ba\u0308r-4", "default-x"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert free_place(None, "default") == Path("runs/default-2")
    assert free_place(None, "b\u00e4r") == Path("runs/b\u00e4r-5")


def test_a_run_on_a_table_of_windows_is_shown_evaluated_and_resumed_here(tmp_path: Path) -> None:
    rows = "".join(f"{i % 7},{i % 5},{3 * (i % 7) - 2 * (i % 5)}\n" for i in range(60))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t.csv").write_text(f"a,b,y\n{rows}")
    options = ["--target", "y", "--set", "validation=0.2", "--quiet", "--epochs"]
    for name, epochs in (("moved", "20"), ("whole", "40")):
        done = run(["train", "data/t.csv", *options, epochs, "--out", name], tmp_path)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "moved" / "run.json").read_text())["tables_beside"] == {"data.path": "../data/t.csv"}

    # As it would be there: the path as it is typed there, and a table with that system's line ends.
    config = (tmp_path / "moved" / "config.yaml").read_text()
    assert config.count("data/t.csv") == 1
    there = config.replace("data/t.csv", r"data\t.csv").encode()
    (tmp_path / "moved" / "config.yaml").write_bytes(there)
    change_info(tmp_path / "moved", config_sha256=[digest(there)])
    place = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "moved", place / "moved")
    (place / "data").mkdir()
    (place / "data" / "t.csv").write_bytes(f"a,b,y\n{rows}".replace("\n", "\r\n").encode())

    for command in (["show", "moved"], ["evaluate", "moved", "data/t.csv"]):
        done = run(command, place)
        assert done.returncode == 0, done.stderr
    done = run(["train", "--resume", "moved", "--epochs", "40", "--quiet"], place)
    assert done.returncode == 0, done.stderr
    resumed, whole = ((folder / "history.csv").read_bytes() for folder in (place / "moved", tmp_path / "whole"))
    assert resumed == whole


def test_a_file_whose_line_ends_were_translated_is_named(tmp_path: Path) -> None:
    assert run(["train", "scratch", "--quiet", "--epochs", "3"], tmp_path).returncode == 0
    history = tmp_path / "runs" / "scratch-1" / "history.csv"
    history.write_bytes(history.read_bytes().replace(b"\n", b"\r\n"))
    done = run(["train", "--resume", "scratch-1", "--epochs", "5"], tmp_path)
    assert (done.returncode, "history.csv" in done.stderr, "Traceback" in done.stderr) == (1, True, False)
