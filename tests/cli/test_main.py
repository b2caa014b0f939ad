"""The command itself: its help, its version and its imports, in real processes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_group

from tests.helpers.forking import clean_environment
from tests.helpers.processes import without_torch
from twolayer import __version__
from twolayer.cli import main


def test_python_m_twolayer_is_the_same_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "twolayer", "train", "scratch", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("loss after the last update  ")


# --- help, version: all without torch


@pytest.mark.parametrize("command", [[], ["train"], ["check"], ["init"], ["schema"]])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_everywhere_with_an_example_and_without_torch(command: list[str], option: str, tmp_path: Path) -> None:
    done = without_torch(*command, option, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(["Usage: twolayer", *command]))
    assert "Example:  twolayer " in done.stdout


def test_no_command_shows_the_help(tmp_path: Path) -> None:
    assert without_torch(cwd=tmp_path).stdout == without_torch("--help", cwd=tmp_path).stdout


def test_a_torch_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcublas.so.12: cannot open shared object file')")
    done = without_torch("train", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: PyTorch cannot be imported: libcublas.so.12: cannot open shared object file\n"


def test_version_and_completion_need_no_torch(tmp_path: Path) -> None:
    for more in ([], ["train"]):
        assert without_torch("--version", *more, cwd=tmp_path).stdout == f"twolayer {__version__}\n"
    words = {"COMP_WORDS": "twolayer train sc", "COMP_CWORD": "2", "_TWOLAYER_COMPLETE": "complete_bash"}
    assert without_torch(cwd=tmp_path, **words).stdout.split() == ["scratch"]


def test_the_help_lists_every_command_in_a_group_with_its_whole_first_sentence(tmp_path: Path) -> None:
    lines = without_torch("--help", cwd=tmp_path, COLUMNS="80").stdout.splitlines()
    assert [line for line in lines if line.endswith(":") and not line.startswith(" ")] == [
        *("Options:", "Train:", "Your own table:", "Saved runs:", "Take apart:", "Measure:")
    ]
    listed = [re.fullmatch(r"  ([a-z]+) +([A-Z].+)", line) for line in lines[lines.index("Train:") :]]
    sentences = {found[1]: found[2] for found in listed if found}
    assert [*sentences] == [*get_group(main.app).commands]
    for name, sentence in sentences.items():
        assert sentence.endswith(".")
        assert sentence in without_torch(name, "--help", cwd=tmp_path).stdout
    assert "..." not in "".join(sentences.values())
