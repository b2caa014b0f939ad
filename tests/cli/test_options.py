"""The options of the commands on a table: what they set, how they add up, and that what was typed is taken as typed."""

from __future__ import annotations

import csv
import io
import shlex
from pathlib import Path

import pytest

from tests.helpers.processes import Run, without_torch

ROWS = "".join(f"{2 * i},{i % 7},{'uv'[i % 2]},{i % 3}\n" for i in range(40))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text("a,b,c,y\n" + ROWS)
    (tmp_path / "odd.csv").write_text('a,"b,c",c,y\n' + ROWS)
    (tmp_path / "c.yaml").write_text("data: {source: file, path: t.csv, target: y, exclude: [a]}\n")
    return tmp_path


def values(folder: Path, line: str) -> dict[str, str]:
    """What `check` shows for a command line."""
    done = without_torch("check", *shlex.split(line), "--format", "csv", cwd=folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return {row["key"]: row["value"] for row in csv.DictReader(io.StringIO(done.stdout))}


@pytest.mark.sample(8)
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("t.csv --target y --exclude a", {"data.exclude": "['a']", "D_in": "3"}),
        ("t.csv --target y --exclude a,b", {"data.exclude": "['a', 'b']", "D_in": "2"}),
        ("t.csv --target y --exclude 'a, b'", {"data.exclude": "['a', 'b']"}),
        ("t.csv --target y --exclude a --exclude b", {"data.exclude": "['a', 'b']"}),
        ("t.csv --target y --set data.exclude=a --set data.exclude=b", {"data.exclude": "['a', 'b']"}),
        ("t.csv --target y --set data.exclude=a,b", {"data.exclude": "['a', 'b']"}),
        ("t.csv --target y --set 'data.exclude=[a]' --exclude c", {"data.exclude": "['a', 'c']"}),
        ("t.csv --set data.target=b --target y --exclude a", {"data.target": "['b', 'y']", "D_out": "2"}),
        ("t.csv --target b,y", {"data.target": "['b', 'y']"}),
        ("t.csv --target y --inputs a,b", {"data.inputs": "['a', 'b']", "D_in": "2"}),
        ("t.csv --target y --inputs a --set data.inputs=null", {"data.inputs": "", "D_in": "4"}),
        ("odd.csv --target y --exclude b,c", {"data.exclude": "['b,c']", "D_in": "3"}),
        ("odd.csv --target y --exclude 'b,c' --exclude c", {"data.exclude": "['b,c', 'c']"}),
        ("odd.csv --target y --exclude a,c", {"data.exclude": "['a', 'c']"}),
        ("c.yaml", {"data.exclude": "['a']"}),
        ("c.yaml --exclude b", {"data.exclude": "['b']"}),
        ("t.csv --target y --missing mean", {"data.missing": "mean"}),
        ("t.csv --target y --classes", {"loss": "cross_entropy", "D_out": "3"}),
        ("t.csv --target y --set loss=mse --classes", {"loss": "cross_entropy"}),
        ("t.csv --target y --classes --set loss=mse", {"loss": "mse"}),
        ("--lr 1e-3 --set lr=1e-5", {"lr": "1e-05"}),
        ("--set lr=1e-5 --lr 1e-3", {"lr": "0.001"}),
        ("--set=lr=1e-5 --lr=1e-3 --set=lr=1e-4", {"lr": "0.0001"}),
    ],
)
def test_lists_of_columns_add_up_and_of_other_keys_the_later_wins(
    folder: Path, line: str, expected: dict[str, str]
) -> None:
    found = values(folder, line)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("separator", "typed"), [(";", ";"), ("|", "|"), ("\t", "\\t"), ("\t", "\t"), (",", ","), ("|", '"|"')]
)
def test_a_separator_and_a_decimal_comma_are_set_as_typed(tmp_path: Path, separator: str, typed: str) -> None:
    decimal = "." if separator == "," else ","
    rows = (f"{i}{decimal}5{separator}{i * i}\n" for i in range(30))
    (tmp_path / "t.csv").write_text(f"a{separator}y\n" + "".join(rows))
    found = values(
        tmp_path,
        shlex.join(["t.csv", "--target=y", "--set", f"data.separator={typed}", "--set", f"data.decimal={decimal}"]),
    )
    assert (found["data.separator"], found["D_in"]) == (separator.replace("\t", "\\t"), "1")
    assert found["data.decimal"] == decimal


def test_a_table_without_source_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c,y\n" + ROWS)
    (tmp_path / "c.yaml").write_text("data: {path: t.csv, target: y}\n")
    assert values(tmp_path, "c.yaml")["data.source"] == "file"
    (tmp_path / "c.yaml").write_text("data: {target: y}\n")
    done = without_torch("check", "c.yaml", cwd=tmp_path)
    assert done.stderr == "error: c.yaml:1:7: data.path: is missing; it must be the path of a file\n"


def test_every_command_on_a_table_takes_the_options_of_one(folder: Path, twolayer: Run) -> None:
    for command in ("train", "check", "lr", "bench", "data"):
        more = {"train": ["--no-save", "--epochs=2"], "bench": ["--rounds=1"]}.get(command, [])
        options = ["--target", "y", "--exclude", "a", "--inputs", "b,c", "--missing", "mean", "--classes"]
        done = twolayer(command, "t.csv", *options, *more)
        assert done.returncode == 0, done.stderr


def test_data_shows_what_a_training_of_classes_would_do(folder: Path) -> None:
    def use(*options: str) -> str:
        done = without_torch("data", "t.csv", "--target=y", "--format=csv", *options, cwd=folder)
        assert done.returncode == 0, done.stderr
        return next(row["used as"] for row in csv.DictReader(io.StringIO(done.stdout)) if row["column"] == "y")

    assert use() == "target"
    assert use("--set", "loss=cross_entropy") == use("--classes") == "target, 3 classes"
