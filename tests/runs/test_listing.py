from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.handmade import change_info
from tests.helpers.processes import in_terminal, screen, without_torch
from tests.helpers.trained import train
from twolayer.errors import RunError
from twolayer.runs import listing
from twolayer.runs.folder import Run
from twolayer.runs.names import RUNS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a completed run, a diverged one, a killed one and four that are broken."""
    path = tmp_path_factory.mktemp("listing")
    train(path, "scratch --note fine", "scratch --lr 10", "scratch")
    killed = path / "runs" / "scratch-3"
    info = json.loads((killed / "run.json").read_text())
    change_info(killed, status="running", **{key: None for key in info if "loss" in key})
    with (killed / "history.csv").open("a") as file:
        file.write("201,12")
    for name in ("no-json", "damaged", "no-history", "garbled"):
        (path / "runs" / name).mkdir()
    (path / "runs" / "damaged" / "run.json").write_text('{"format": 1')
    for name in ("no-history", "garbled"):
        (path / "runs" / name / "run.json").write_text('{"format": 1, "status": "running"}')
    (path / "runs" / "garbled" / "history.csv").write_text("iteration,loss\n1\n")
    return path


def test_the_runs_are_listed_newest_first_and_the_broken_ones_are_named(folder: Path) -> None:
    done = without_torch("runs", "--format", "csv", cwd=folder)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert done.returncode == 0
    assert {row["run"]: row["status"] for row in rows} == {
        "scratch-3": "killed",
        "scratch-2": "diverged",
        "scratch-1": "completed",
    }
    by_name = {row["run"]: row for row in rows}
    assert by_name["scratch-1"]["note"] == "fine"
    for key in ("shape", "iterations", "first loss", "best loss", "last loss", "device"):
        assert by_name["scratch-3"][key] == by_name["scratch-1"][key]  # read from the history, the cut row left out
    assert by_name["scratch-2"]["lr"] == "10.0"
    assert done.stderr.splitlines() == [
        "runs/damaged/run.json: is damaged: it is not JSON",
        "runs/garbled/config.yaml: is missing",
        "runs/garbled/history.csv: is damaged after row 0",
        "runs/no-history/config.yaml: is missing",
        "runs/no-history/history.csv: cannot be read: No such file or directory",
        "runs/no-json: is not a run folder: it has no run.json",
    ]


def test_newest_comes_first(tmp_path: Path) -> None:
    for name, started in (("a", "2026-01-02"), ("b", "2026-01-03"), ("c", "2026-01-01")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"format": 1, "status": "completed", "started": started}))
    assert [row.run for row in listing.list_runs(tmp_path)[0]] == ["b", "a", "c"]


def test_of_one_moment_the_higher_number_comes_first(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10, 11):
        (tmp_path / f"a-{number}").mkdir()
        (tmp_path / f"a-{number}" / "run.json").write_text('{"format": 1, "status": "completed", "started": "2026"}')
    assert [row.run for row in listing.list_runs(tmp_path)[0]] == ["a-11", "a-10", "a-9", "a-2", "a-1"]


def test_a_run_itself_is_listed_and_what_is_gone_from_it_is_named(folder: Path, tmp_path: Path) -> None:
    assert [row.run for row in listing.list_runs(folder / "runs" / "scratch-1")[0]] == ["scratch-1"]
    copy = tmp_path / "scratch-1"
    shutil.copytree(folder / "runs" / "scratch-1", copy)
    (copy / "model.safetensors").unlink()
    assert listing.list_runs(copy)[1] == [f"{copy}/model.safetensors: is missing"]


def test_a_run_that_is_held_is_running(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs" / "scratch-3", tmp_path / "copy")
    with Run(tmp_path / "copy"):
        assert listing.list_runs(tmp_path)[0][0].status == "running"
    assert listing.list_runs(tmp_path)[0][0].status == "killed"


def test_no_runs_yet_is_no_error_and_no_folder_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert listing.list_runs(RUNS) == ([], ["no runs here: there is no folder runs"])
    with pytest.raises(RunError, match="nowhere: no such folder"):
        listing.list_runs(Path("nowhere"))


def test_the_table_fits_the_screen_and_says_what_is_left_out(folder: Path) -> None:
    lines = without_torch("runs", cwd=folder, COLUMNS="80").stdout.splitlines()
    left_out = lines[-1].removeprefix("columns not shown: ").removesuffix(" (COLUMNS=80 is too narrow)").split(", ")
    shown = lines[0].split()
    assert shown[:4] == ["run", "status", "loss", "lr"]
    assert "shape" in left_out  # which is equal in all runs
    assert sorted(shown + left_out) == sorted(
        ["run", "status", "loss", "shape", "lr", "seed", "done", "first", "best", "last", "time", "device", "note"]
    )
    assert max(map(len, lines[:-1])) <= 80
    assert without_torch("runs", cwd=folder).stdout.split("\n")[0].split() == [
        *("run", "status", "loss", "shape", "lr", "seed", "done", "first", "best", "last", "time", "device", "note")
    ]
    code, written = in_terminal(["runs"], folder, {"COLUMNS": "40"})
    assert code == 0
    assert max(map(len, screen(written))) <= 40


def test_a_run_of_a_table_is_listed_with_its_target_and_its_validation_loss(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("a,b,c\n" + "".join(f"{i},{i * 7 % 5},{'xy'[i % 2]}\n" for i in range(40)))
    train(tmp_path, "my.csv --target b --epochs 3", "my.csv --target c --epochs 3")
    classes, numbers = listing.list_runs(tmp_path / "runs")[0]
    assert (numbers.target, numbers.loss, classes.target, classes.loss) == (
        "b",
        "mse, mean",
        "c",
        "cross_entropy, mean",
    )
    info = json.loads((tmp_path / "runs/my-1/run.json").read_text())
    assert numbers.val_loss == info["final_val_loss"]
    lines = without_torch("runs", cwd=tmp_path).stdout.splitlines()
    assert {"target", "loss", "val_loss"} <= set(lines[0].split())
    change_info(tmp_path / "runs/my-1", status="running")
    last = (tmp_path / "runs/my-1/history.csv").read_text().splitlines()[-1]
    assert listing.list_runs(tmp_path / "runs")[0][1].val_loss == float(last.split(",")[2])
