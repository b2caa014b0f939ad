from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.handmade import change_info
from tests.helpers.processes import BASE
from tests.helpers.trained import train
from twolayer.errors import RunError
from twolayer.formatting import shown
from twolayer.reporting import comparison
from twolayer.reporting.summary import summary_lines
from twolayer.runs import saved_run
from twolayer.runs.folder import Run
from twolayer.runs.history import csv_row


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    (folder / "my.yaml").write_text(BASE)
    (folder / "my.csv").write_text("a,b\n" + "".join(f"{i},{i * 7 % 5}\n" for i in range(40)))
    train(
        folder,
        "my.yaml --note fine",
        "my.yaml --seed 1 --lr 2e-3",
        "my.yaml --lr 1e9",
        "my.csv --target b --epochs 5",
    )
    return folder / "runs"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A completed run of five iterations."""
    shutil.copytree(trained / "my-1", tmp_path / "my-1")
    return tmp_path / "my-1"


def test_a_completed_run_is_all_there(run: Path) -> None:
    found = saved_run.read(run)
    assert (found.name, found.status, found.problems, len(found.history)) == ("my-1", "completed", (), 5)
    assert found.config is not None
    assert (found.config.lr, found.values["data.source"], found.text("note")) == (1e-3, "random", "fine")
    assert "".join(csv_row(found.history.row(i)) for i in range(5)) == (run / "history.csv").read_text()[15:]
    seconds = json.loads((run / "run.json").read_text())["seconds"]
    assert found.each == seconds / 5


def test_what_a_continuation_had_otherwise_is_told(run: Path) -> None:
    change_info(run, device="cpu", resumed=[{"device": "H100"}, {"device": "H100"}, {}, 1, {"device": 2}])
    assert saved_run.read(run).texts("device") == "cpu, then H100"
    change_info(run, device=7, resumed=None)
    assert saved_run.read(run).texts("device") == ""


def test_it_is_running_while_somebody_holds_it_and_killed_when_nobody_does(run: Path) -> None:
    change_info(run, status="running", iterations=None)
    with Run(run):
        assert saved_run.read(run).status == "running"
    found = saved_run.read(run)
    assert (found.status, found.problems) == ("killed", ())
    assert found.each is found.seconds is None  # run.json's seconds are those of a checkpoint before


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((120, 900), (120, 900)),
        *(((900, 900), None), ((0, 900), None), ((-1, 0), None), ((1e300, 2e300), None), ((True, 2), None)),
        *((("1", "2"), None), ((1, 10**400), None), ((None, None), None)),
    ],
)
def test_how_far_an_epoch_was_is_read_where_it_can_be_true(
    values: tuple[Any, Any], wanted: tuple[int, int] | None, run: Path
) -> None:
    change_info(run, status="interrupted", updates=values[0], updates_per_epoch=values[1])
    found = saved_run.read(run)
    assert found.updates == wanted
    assert found.seconds is not None
    assert found.each == pytest.approx(found.seconds / (len(found.history) + (120 / 900 if wanted else 0)))
    line = next(line for name, line in summary_lines(found) if name == "run")
    assert (", in epoch 6 after 120 of 900 updates" in line) == (wanted is not None)


def pipe(path: Path) -> None:
    """What whoever opens it waits at for ever."""
    path.unlink()
    os.mkfifo(path)


BROKEN: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no run.json": (lambda run: (run / "run.json").unlink(), "broken", "run.json: is missing"),
    "no JSON": (lambda run: (run / "run.json").write_text("{"), "broken", "run.json: is damaged: it is not JSON"),
    "a list": (lambda run: (run / "run.json").write_text("[1]"), "broken", "it has no format number"),
    "newer": (lambda run: change_info(run, format=3), "broken", "has format 3"),
    "no status": (lambda run: change_info(run, status=None), "broken", "it has no valid status"),
    "other status": (lambda run: change_info(run, status=["completed"]), "broken", "it has no valid status"),
    "no history": (lambda run: (run / "history.csv").unlink(), "completed", "history.csv: is missing"),
    "history": (
        lambda run: (run / "history.csv").write_text("iteration,loss\n1,2.0\n3,4.0\n"),
        "completed",
        "history.csv: is damaged after row 1",
    ),
    "rows gone": (
        lambda run: (run / "history.csv").write_text("iteration,loss\n1,2.0\n"),
        "completed",
        "history.csv: has 1 row, but run.json says 5",
    ),
    "no config": (lambda run: (run / "config.yaml").unlink(), "completed", "config.yaml: is missing"),
    "config": (lambda run: (run / "config.yaml").write_text("N: many"), "completed", "config.yaml: is not valid: "),
    "other config": (
        lambda run: (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("lr: 0.001", "lr: 0.1")),
        "completed",
        "config.yaml: was changed after the training started",
    ),
    "a pipe for run.json": (
        lambda run: pipe(run / "run.json"),
        "broken",
        "run.json: cannot be read: not a regular file",
    ),
    "a pipe for the history": (
        lambda run: pipe(run / "history.csv"),
        "completed",
        "cannot be read: not a regular file",
    ),
    "a pipe for config": (lambda run: pipe(run / "config.yaml"), "completed", "cannot be read: not a regular file"),
    "no model": (lambda run: (run / "model.safetensors").unlink(), "completed", "model.safetensors: is missing"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_what_is_wrong_with_a_run_is_said_and_the_rest_is_there(damage: str, run: Path) -> None:
    breaks, status, problem = BROKEN[damage]
    breaks(run)
    found = saved_run.read(run)
    assert found.status == status
    assert len(found.problems) == 1
    assert problem in found.problems[0]
    assert found.problems[0].startswith(str(run))
    assert (found.config is None) == ("config" in damage)
    assert len(found.history) == {"no history": 0, "a pipe for the history": 0, "history": 1, "rows gone": 1}.get(
        damage, 5
    )
    if status == "completed":
        assert found.each == pytest.approx(json.loads((run / "run.json").read_text())["seconds"] / 5)


def test_a_folder_without_a_file_of_a_run_is_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: it has no run\.json"):
        saved_run.read(tmp_path)


def test_run_json_may_hold_anything(run: Path) -> None:
    for value in ("x\x1b[31m\n", 1e400, True, None, [1, {}], {"a": 1}, -5, "\u202e"):
        keys = ("config", "note", "seconds", "started", "ended", "iterations", "resumed", "config_sha256", "final_loss")
        (run / "run.json").write_text(json.dumps({"format": 1, "status": "completed", **dict.fromkeys(keys, value)}))
        found = saved_run.read(run)
        assert found.status == "completed"
        assert found.text("note").isprintable()
        assert found.number("seconds") in (None, -5.0)


def test_reading_again_takes_what_has_come_since(run: Path) -> None:
    whole = (run / "history.csv").read_text()
    (run / "history.csv").write_text(whole[:40])
    change_info(run, status="running", iterations=None)
    with Run(run):
        before = saved_run.read(run)
        assert (before.status, len(before.history)) == ("running", 1)
        (run / "history.csv").write_text(whole)
        after = saved_run.read(run, before)
        assert (after.status, len(after.history), after.config is before.config) == ("running", 5, True)
    change_info(run, status="completed", iterations=5)
    assert saved_run.read(run, after).status == "completed"


def test_only_what_is_set_otherwise_differs(trained: Path) -> None:
    a, b, c, table = (saved_run.read(trained / name) for name in ("my-1", "my-2", "my-3", "my-4"))
    assert comparison.differences([a, a]) == {}
    assert comparison.differences([a, b]) == {"lr": [0.001, 0.002], "seed": [0, 1]}
    assert comparison.differences([a, b, c]) == {"lr": [0.001, 0.002, 1e9], "seed": [0, 1, 0]}
    assert comparison.differences([a, table])["data.path"] == [None, str(trained.parent / "my.csv")]


def test_a_config_that_cannot_be_read_differs_from_none(trained: Path, run: Path) -> None:
    (run / "config.yaml").unlink()
    a, b, broken = saved_run.read(trained / "my-1"), saved_run.read(trained / "my-2"), saved_run.read(run)
    assert comparison.differences([a, broken]) == {}
    assert comparison.differences([broken, a, b]) == {"lr": [None, 0.001, 0.002], "seed": [None, 0, 1]}


def test_runs_of_one_name_are_called_by_their_paths(trained: Path, run: Path) -> None:
    a, b, other = saved_run.read(trained / "my-1"), saved_run.read(trained / "my-2"), saved_run.read(run)
    assert comparison.names([a, b]) == ["my-1", "my-2"]
    assert comparison.names([a, other]) == [str(trained / "my-1"), str(run)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.1 + 0.2, "0.30000000000000004"),
        (2**64 - 1, str(2**64 - 1)),
        (["a", "b c"], "[a, b c]"),
        (["a, b"], '["a, b"]'),
        ([[1.0, 2.5], None], "[[1.0, 2.5], null]"),
        ("a\x1b[0m\u202e", "a\\x1b[0m\\u202e"),
    ],
)
def test_values_are_shown_whole_and_harmless(value: Any, text: str) -> None:
    assert shown(value) == text
