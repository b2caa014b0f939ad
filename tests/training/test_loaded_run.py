"""`twolayer.load`: a run, or a model file alone, as an object that predicts and shows itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import FrozenInstanceError
from pathlib import Path

import polars as pl
import pytest
import torch

from tests.helpers.forking import run as forked
from tests.helpers.trained import train as train_runs
from twolayer.errors import DataError, RunError
from twolayer.training.loaded_run import load
from twolayer.training.loop import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of drawn data and of a table with numbers and classes."""
    folder = tmp_path_factory.mktemp("runs")
    numbers = [i * 37 % 61 for i in range(60)]
    rows = "".join(f"{a},{'xyz'[a % 3]},{2 * a + a % 3},{'no' if a < 30 else 'yes'}\n" for a in numbers)
    (folder / "t.csv").write_text("a,kind,y,late\n" + rows)
    common = "t.csv --exclude y --target late --out late -q"
    train_runs(folder, "default --epochs 30 -q", "t.csv --target y --exclude late --out y -q", common)
    return folder


def test_a_run_gives_its_model_config_and_history(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found, again = load("default-1"), train("default", epochs=30)
    assert found.config is not None
    assert (found.config.epochs, found.status) == (30, "completed")
    assert list(found.history) == ["iteration", "loss"]
    assert found.history["loss"] == again.losses
    x = torch.ones(2, 1000)
    assert torch.equal(found.model(x), again.model(x))
    assert str(found.model) == str(again.model)
    with pytest.raises(FrozenInstanceError):
        found.status = "other"  # type: ignore[misc]


def test_the_history_is_the_file(folder: Path) -> None:
    found = load(folder / "y")
    assert pl.DataFrame(found.history).equals(pl.read_csv(folder / "y" / "history.csv"))


@pytest.mark.parametrize("target", ["y", "late"])
def test_it_predicts_what_the_command_does(target: str, folder: Path) -> None:
    new = pl.DataFrame({"more": [0, 0, 0], "kind": ["z", "x", "y"], "a": [3.5, 40.0, 58.0]})
    new.write_csv(folder / "new.csv")
    done = forked(["predict", target, "new.csv", "--format", "ndjson"], folder)
    wanted = [json.loads(line) for line in done.stdout.splitlines()]
    found = load(folder / target).predict(new)
    assert found.columns == [name for name in wanted[0] if name not in new.columns]
    for row, line in zip(found.to_dicts(), wanted, strict=True):
        assert {name: line[name] for name in row} == pytest.approx(row)


def test_a_model_file_alone_predicts_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "handed-on.safetensors"
    shutil.copy(folder / "y" / "model.safetensors", path)
    found, new = load(path), pl.DataFrame({"a": [1, 2], "kind": ["x", "y"]})
    assert (found.config, found.history["loss"]) == (None, ())
    assert found.predict(new).equals(load(folder / "y").predict(new))
    assert repr(found) == "<LoadedRun handed-on.safetensors 4 -> 150 -> 1: model file>"
    assert "<polyline" not in found._repr_html_()


def test_it_is_one_line_of_text_and_in_a_notebook_a_curve_for_each_loss(folder: Path) -> None:
    found = load(folder / "y")
    losses = found.history["loss"]
    assert repr(found).startswith("<LoadedRun y 51 x 4 -> 150 -> 1: ")
    assert repr(found).endswith(f" epochs, loss {losses[0]:.4g} to {losses[-1]:.4g}, completed>")
    html = found._repr_html_()
    assert html.count("<polyline") == 2
    assert html.count("<tr>") == 5


def test_what_cannot_be_loaded_is_told_in_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name, message in (
        ("defualt-1", "defualt-1: no such run folder; did you mean default-1"),
        ("t.csv", "t.csv: is not a safetensors file, or is damaged"),
        ("runs", "is not a run folder"),
    ):
        with pytest.raises(RunError, match=message):
            load(name)
    with pytest.raises(DataError, match="was not trained on a table"):
        load("default-1").predict(pl.DataFrame({"a": [1]}))


def test_a_run_with_a_damaged_file_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("history.csv", "config.yaml", "model.safetensors"):
        run = tmp_path / name
        shutil.copytree(folder / "y", run)
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
        with pytest.raises(RunError, match=name.replace(".", r"\.") + ": "):
            load(run)
