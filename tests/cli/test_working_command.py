"""The command that is offered where a table cannot be trained on: it is what was typed and more, and it works."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.helpers.processes import Run, without_torch

FORM = "Name,{odd},age,sex,y\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = "".join(f"N{i}k,C{i}x,{'' if i % 9 == 0 else i % 8},{'mf'[i % 2]},{i % 5}.5\n" for i in range(60))
    (tmp_path / "t.csv").write_text(FORM.format(odd="Cabin") + rows)
    (tmp_path / "odd.csv").write_text(FORM.format(odd='"-a, b"') + rows)
    (tmp_path / "c.yaml").write_text("data: {path: t.csv, target: y, missing: refuse, strict: true, exclude: Cabin}\n")
    (tmp_path / "classes.csv").write_text("a,y\n" + "".join(f"{i},{'uvw'[i % 3]}\n" for i in range(30)))
    return tmp_path


def offered(folder: Path, line: str) -> str:
    """The command that is offered, after a look at the lines above it."""
    done = without_torch(*shlex.split(line), cwd=folder)
    assert done.returncode == 1
    *problems, command = done.stderr.splitlines()
    assert problems[0].startswith("error: ")
    return command.removeprefix("this works: twolayer ")


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("check t.csv --target y --missing refuse --set data.strict=true", "--exclude Name,Cabin --missing mean"),
        (
            "check t.csv --target y --exclude Name --missing refuse --set=data.strict=true",
            "--exclude Cabin --missing mean",
        ),
        ("check c.yaml", "--exclude Cabin,Name --missing mean"),
        ("check c.yaml --exclude Cabin", "--exclude Name --missing mean"),
        ("check odd.csv --target y --set data.strict=true", "--exclude Name '--exclude=-a, b'"),
        ("check classes.csv --target y --set loss=mse", "--classes"),
    ],
)
def test_the_command_adds_what_was_lacking_to_what_was_typed_and_works(folder: Path, line: str, more: str) -> None:
    command = offered(folder, line)
    assert command == f"{line} {more}"
    assert without_torch(*shlex.split(command), cwd=folder).returncode == 0


def test_the_command_of_data_is_that_of_a_training(folder: Path, twolayer: Run) -> None:
    done = twolayer("data", "t.csv", "--target", "y", "--missing", "refuse", "--set", "data.strict=true")
    command = done.stderr.splitlines()[-1].removeprefix("this works: twolayer ")
    fix = "--exclude Name,Cabin --missing mean"
    assert command == f"train t.csv --target y --missing refuse --set data.strict=true {fix}"
    assert twolayer(*shlex.split(command), "--epochs", "2", "--no-save").returncode == 0


@pytest.mark.parametrize("line", ["check t.csv --target q", "check t.csv --target Name --set loss=mse"])
def test_no_command_is_offered_where_none_works(folder: Path, line: str) -> None:
    done = without_torch(*shlex.split(line), cwd=folder)
    assert done.returncode == 1
    assert "this works" not in done.stderr


def test_the_command_stays_one_line_where_the_screen_is_narrow(folder: Path) -> None:
    line = ["check", "t.csv", "--target", "y", "--missing=refuse", "--set", "data.strict=true"]
    done = without_torch(*line, cwd=folder, COLUMNS="40")
    assert done.stderr.splitlines()[-1].endswith("--exclude Name,Cabin --missing mean")
