"""Paths as people type them: the home folder, names in other scripts, names that are no UTF-8."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.processes import Run, without_torch

TABLE = "a,y\n" + "".join(f"{i % 7},{i}.5\n" for i in range(40))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "home" / "t.csv").write_text(TABLE)
    (tmp_path / "work" / "c.yaml").write_text("data: {path: ~/t.csv, target: y}\nvalidation: ~/t.csv\n")
    return tmp_path / "home"


def test_a_leading_tilde_is_the_home_folder_in_configs_options_and_variables(home: Path) -> None:
    work, table = home.with_name("work"), str(home / "t.csv")

    def value(key: str, *arguments: str, **variables: str) -> str:
        done = without_torch("check", *arguments, "--format", "jsonl", cwd=work, HOME=str(home), **variables)
        assert done.returncode == 0, done.stderr
        return next(line for line in done.stdout.splitlines() if f'"{key}"' in line)

    assert table in value("data.path", "c.yaml")
    assert table in value("validation", "c.yaml")
    assert table in value("data.path", "~/t.csv", "--target=y")
    assert table in value("validation", "~/t.csv", "--target=y", "--set", "validation=~/t.csv")
    assert table in value("data.path", "c.yaml", "--set=data.path=~/t.csv")
    assert table in value("validation", "~/t.csv", "--target=y", TWOLAYER_VALIDATION="~/t.csv")
    (work / "~user").mkdir()
    (work / "~user" / "$x.csv").write_text(TABLE)
    assert "~user/$x.csv" in value("data.path", "~user/$x.csv", "--target=y")


def test_every_path_of_a_command_line_may_start_with_the_home_folder(home: Path, twolayer: Run) -> None:
    for command in (
        ["train", "~/t.csv", "--target=y", "--epochs=3", "--out=~/runs/x"],
        ["train", "--resume=~/runs/x", "--epochs=4"],
        ["show", "~/runs/x"],
        ["compare", "~/runs/x", "~/runs/x"],
        ["evaluate", "~/runs/x", "~/t.csv"],
        ["predict", "~/runs/x", "~/t.csv", "--out=~/p.csv"],
        ["report", "~/runs/x", "--out=~/r.html"],
        ["plot", "~/runs/x", "--out=~/p.svg"],
        ["runs", "~/runs"],
        ["data", "~/t.csv"],
        ["init", "~/new.yaml"],
    ):
        done = twolayer(*command, HOME=str(home))
        assert done.returncode == 0, (command, done.stderr)
    assert sorted(path.name for path in home.parent.iterdir()) == ["home", "work"]
    assert {"runs", "p.csv", "r.html", "p.svg", "new.yaml"} < {path.name for path in home.iterdir()}


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("größe 東京", "größe-東京-1"),
        ("cafe\u0301", "cafe\u0301-1"),
        ("नमस्ते", "नमस्ते-1"),
        ("😀", "run-1"),
        ("caf\udcff", "caf-1"),
    ],
)
def test_names_of_any_letters_and_bytes_work_from_training_to_prediction(
    tmp_path: Path, twolayer: Run, name: str, run: str
) -> None:
    try:
        (tmp_path / f"{name}.csv").write_text(TABLE)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    for command in (
        ["train", f"{name}.csv", "--target=y", "--epochs=3", "-q"],
        ["train", "--resume", run, "--epochs=5", "-q"],
        ["show", run],
        ["evaluate", run, f"{name}.csv"],
        ["predict", run, f"{name}.csv", "-o", f"{name}.parquet"],
        ["data", f"{name}.csv"],
        ["check", f"{name}.csv", "--target=y", "--set", f"validation={name}.csv"],
        ["report", run, "-o", f"{name}.html"],
        ["train", f"{name}.csv", "--target=y", "--epochs=2", "-q", "--out", f"runs/{name}"],
        ["show", f"runs/{name}"],
    ):
        done = twolayer(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert f"{name}.parquet" in [path.name for path in tmp_path.iterdir()]


def test_a_mistyped_run_gets_the_one_that_is_meant(tmp_path: Path) -> None:
    for name in ("default-1", "my-3"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    done = without_torch("show", "defualt-1", cwd=tmp_path)
    assert done.stderr == "error: defualt-1: no such run folder; did you mean default-1?\n"
    done = without_torch("show", "other", cwd=tmp_path)
    assert done.stderr == "error: other: no such run folder; `twolayer runs` lists all runs\n"
