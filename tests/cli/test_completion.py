"""Completion, by the protocol of the shells' scripts: real processes, as bash calls them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.forking import clean_environment
from tests.helpers.processes import COMMAND, without_torch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("runs/default-1", "runs/my-1", "kept/old"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "runs" / "no-run").mkdir()
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name in (
        "my.yaml",
        "my.csv",
        "my.py",
        "two words.csv",
        ".hidden.csv",
        "data/deep/x.parquet",
        "data/deep/y.csv",
    ):
        (tmp_path / name).write_text("")
    return tmp_path


def completed(folder: Path, line: str, *, failing: bool = False) -> list[str]:
    """The candidates for a line whose last word is to be completed, split at `=` as bash does."""
    words = line.replace("=", " = ").split(" ")
    while "" in words[:-1]:
        words.remove("")
    variables = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = without_torch(cwd=folder, _TWOLAYER_COMPLETE="complete_bash", **variables)
    assert (done.returncode, done.stderr) == (int(failing), "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("sh", ["show"]),
        ("show ", ["default-1", "my-1"]),
        ("show m", ["my-1"]),
        ("show kept/", ["kept/old"]),
        ("show nothing/", []),
        ("evaluate my-1 m", ["my.csv"]),
        ("evaluate my-1 data/", ["data/deep/x.parquet", "data/deep/y.csv"]),
        ("compare default-1 m", ["my-1"]),
        ("train --resume d", ["default-1"]),
        ("train sc", ["scratch"]),
        ("train m", ["modules", "my.csv", "my.yaml"]),
        ("train dat", ["data/deep/x.parquet", "data/deep/y.csv"]),
        ("train tw", []),  # its name needs quotes
        ("data m", ["my.csv", "my.yaml"]),
        ("init --from d", ["default", "diabetes"]),
        ("train --device c", ["cpu", "cuda"]),
        ("train --engine ", ["auto", "autograd", "manual", "fused", "compiled"]),
        ("train --engine=f", ["fused"]),
        ("train --lr a", ["auto"]),
        ("train --format ", ["table", "csv", "jsonl"]),
        ("train --set D", ["D_in=", "D_out="]),
        ("train --set eng", [f"engine={name}" for name in ("", "auto", "autograd", "manual", "fused", "compiled")]),
        ("train --set H", ["H=", "H=..."]),
        ("train --set dtype=", ["float32", "float64"]),
        ("train --set dtype=float6", ["float64"]),
        ("train --set=dtype=float6", ["float64"]),
        ("train --set cuda_graph=t", ["true"]),
        ("train --set data.source=", ["random", "linear", "file"]),
        ("train --set data.sc", ["data.scale=", "data.scale=numbers", "data.scale=true", "data.scale=false"]),
        ("train --set lr=1 --set H=7 --engine m", ["manual"]),
        ("train --set wrong=", []),
        ("trian x", []),
    ],
)
def test_what_bash_asks_for_is_completed(line: str, candidates: list[str], folder: Path) -> None:
    assert completed(folder, f"twolayer {line}") == candidates


def test_a_shell_that_splits_nothing_gets_keys_and_values_together(folder: Path) -> None:
    variables = {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": "twolayer train --set dtype=f"}
    done = without_torch(cwd=folder, _TWOLAYER_COMPLETE="complete_fish", **variables)
    assert done.stdout.split() == ["dtype=float32", "dtype=float64"]


def test_a_broken_request_prints_nothing(tmp_path: Path) -> None:
    for words in ({}, {"COMP_WORDS": "twolayer\ntrain", "COMP_CWORD": "x"}):
        done = without_torch(cwd=tmp_path, _TWOLAYER_COMPLETE="complete_bash", **words)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_the_columns_of_the_named_table_are_completed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('age,"two words",agent,y\n1,2,3,4\n')
    (tmp_path / "c.yaml").write_text("data: {path: t.csv, target: y}\n")
    for line, candidates in (
        ("train t.csv --target ag", ["age", "agent"]),
        ("train t.csv --target=y", ["y"]),
        ("check c.yaml --exclude ", ["age", "agent", "y"]),
        ("data t.csv --inputs age,", ["age,agent", "age,y"]),
        ("train --target ", []),
        ("train none.csv --target ", []),
    ):
        found = completed(tmp_path, f"twolayer {line}", failing="none" in line)
        assert found == candidates, line


# --- The scripts of the shells

# In each shell: load the script, ask it for `twolayer train --engine f`, and print what it offers.
SHELLS = {
    "bash": 'eval "$(_TWOLAYER_COMPLETE=source_bash twolayer)"\n'
    "COMP_WORDS=(twolayer train --engine f) COMP_CWORD=3\n"
    '_twolayer_completion twolayer\nprintf "%s\\n" "${COMPREPLY[@]}"\n',
    "zsh": 'compdef() { }; _arguments() { print -r -- "$@" }; _describe() { print -r -- "$@" }\n'
    'eval "$(_TWOLAYER_COMPLETE=source_zsh twolayer)"\n'
    "words=(twolayer train --engine f) CURRENT=4\n_twolayer_completion\n",
    "fish": "_TWOLAYER_COMPLETE=source_fish twolayer | source\ncomplete -C 'twolayer train --engine f'\n",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_each_shell(shell: str, tmp_path: Path) -> None:
    done = without_torch(cwd=tmp_path, _TWOLAYER_COMPLETE=f"source_{shell}")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_TWOLAYER_COMPLETE=complete_{shell}" in done.stdout
    assert re.search(r"^(complete|compdef) .*twolayer", done.stdout, re.M)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_completes_in_the_shell_itself(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    environment = clean_environment(PATH=f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}", HOME=str(tmp_path))
    start = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [program, *start, "-c", SHELLS[shell]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fused" in done.stdout
    assert "manual" not in done.stdout
