"""What a run folder is worth when writing fails at any moment."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.handmade import change_info
from tests.helpers.trained import config_of
from tests.runs.test_folder import Failing
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.errors import DivergedError, RunError
from twolayer.files import Folder
from twolayer.runs import checkpoint
from twolayer.runs.checkpoint_interval import CheckpointInterval
from twolayer.runs.folder import open_for_resume
from twolayer.runs.run_files import read_info
from twolayer.training import loop
from twolayer.training.fingerprints import fingerprints
from twolayer.training.loop import Fit
from twolayer.training.recorder import Recording, start_recording
from twolayer.training.resuming import resume_recording
from twolayer.training.setup import prepare

EVERY = CheckpointInterval("4", iterations=4)


def record(folder: Path, config: Config) -> None:
    """A whole training in a run folder, as the command does it."""
    config, data, model = prepare(config)
    fit = Fit(model, data, config, cut_every=EVERY.iterations)
    with start_recording(fit, EVERY, out=folder, source="x", note="") as run:
        recorder = Recording(run, fit, EVERY)
        try:
            for block in fit:
                recorder.add(block)
            recorder.complete()
        except BaseException as error:
            recorder.fail(error)
            raise


def resume(folder: Path, **changed: Any) -> None:
    with open_for_resume(folder) as run:
        config, data, model = prepare(load_config(folder / "config.yaml", **changed))
        fit, _ = resume_recording(run, config, data, model, EVERY)
        recorder = Recording(run, fit, EVERY)
        for block in fit:
            recorder.add(block)
        recorder.complete()


@pytest.mark.sample(2)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("lastingly", [False, True])
def test_wherever_a_write_fails_the_newest_checkpoint_verifies_and_the_run_goes_on(
    code: int, lastingly: bool, tmp_path: Path
) -> None:
    config = load_config("scratch", epochs=12)
    record(tmp_path / "whole", config)
    failed, at = 0, 0
    while True:
        at += 1
        folder = tmp_path / f"run-{at}"
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, at, code, lastingly=lastingly)
            try:
                record(folder, config)
                if failing.calls < at:
                    break
            except RunError as error:
                failed += 1
                assert error.exit_code == 1
                assert str(error).startswith(str(folder))
                assert str(error).endswith(os.strerror(code))
        assert not list(tmp_path.rglob("*.part"))
        if not (folder / "run.json").exists():  # nothing was trained
            assert not list(folder.rglob("*.safetensors"))
            continue
        assert checkpoint.newest(Folder(folder / "checkpoints"))[1] == []
        info = read_info(folder)
        if info["status"] != "completed":
            resume(folder)
        for part in ("history.csv", "model.safetensors"):
            assert (folder / part).read_bytes() == (tmp_path / "whole" / part).read_bytes()
    assert failed > 50
    assert at - 3 <= failed <= at - 1  # the sweep of leftovers may fail, and nothing is lost


def test_checkpoints_come_at_the_very_iterations(tmp_path: Path) -> None:
    record(tmp_path / "run", load_config("scratch", epochs=10))
    assert sorted(file.name for file in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "10.safetensors",
        "8.safetensors",
    ]


ALWAYS = CheckpointInterval("0s", seconds=0.0)


def of_updates(monkeypatch: pytest.MonkeyPatch, **values: Any) -> Config:
    """Epochs of seven updates, each of which is a piece."""
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 0.0)
    return config_of(None, **({"batch_size": 64, "lr": 0.02, "average": None, "validation": 0.05} | values))


def recorded(folder: Path, config: Config, *, stop_after: int = 0) -> Path:
    """A training with a checkpoint after every update, interrupted after some of them."""
    config, data, model = prepare(config)
    fit = Fit(model, data, config)
    with start_recording(fit, ALWAYS, out=folder, source="x", note="") as run:
        follow(Recording(run, fit, ALWAYS), stop_after)
    return folder


def follow(recorder: Recording, stop_after: int = 0) -> None:
    try:
        for number, piece in enumerate(recorder.fit.pieces, 1):
            recorder.add(piece)
            if number == stop_after:
                recorder.interrupt(130)
                return
        recorder.complete()
    except DivergedError as error:
        recorder.fail(error)


def resumed(folder: Path, *, stop_after: int = 0, with_epochs: bool = False, **changed: Any) -> None:
    with open_for_resume(folder) as run:
        config, data, model = prepare(load_config(folder / "config.yaml", environment={}, **changed))
        fit, _ = resume_recording(run, config, data, model, ALWAYS, with_epochs=with_epochs)
        if stop_after >= 0:
            follow(Recording(run, fit, ALWAYS), stop_after)


def same(one: Path, other: Path) -> bool:
    parts = ("history.csv", "model.safetensors")
    return all((one / part).read_bytes() == (other / part).read_bytes() for part in parts)


def test_a_run_that_is_interrupted_within_epochs_ends_as_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = of_updates(monkeypatch, epochs=5, average=0.9, patience=3)
    whole = recorded(tmp_path / "whole", config)
    cut = recorded(tmp_path / "cut", config, stop_after=2)
    info = read_info(cut)
    assert (info["iterations"], info["updates"], info["updates_per_epoch"]) == (0, 2, 7)
    assert (cut / "checkpoints" / "0-2.safetensors").exists()
    resumed(cut, stop_after=10)
    info = read_info(cut)
    assert (info["iterations"], info["updates"], info["resumed"][0]["updates"]) == (1, 5, 2)
    resumed(cut, stop_after=2)
    assert "updates" not in read_info(cut)  # after an epoch
    with pytest.raises(RunError, match=r"has 2 epochs already"):
        resumed(cut, epochs=1)
    resumed(cut, stop_after=3)
    with pytest.raises(RunError, match=r"has 2 epochs and 3 updates already; for more, add --epochs 10$"):
        resumed(cut, epochs=2)
    resumed(cut)
    assert same(cut, whole)
    one, other = (checkpoint.newest(Folder(run / "checkpoints"))[0] for run in (cut, whole))
    assert one is not None
    assert other is not None
    assert (one.iteration, one.updates, one.history_sha256) == (5, 0, other.history_sha256)
    assert all(torch.equal(one.state[name], other.state[name]) for name in other.state)


def test_what_diverges_within_an_epoch_keeps_the_weights_of_the_last_but_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = of_updates(monkeypatch, epochs=30, batch_size=130, validation=None, lr=0.2, dtype="float64")
    run = recorded(tmp_path / "run", config)
    info = read_info(run)
    assert info["status"] == "diverged"
    assert info["diverged_at"] > 3  # in epochs of three updates
    assert (run / "checkpoints" / f"{info['diverged_at'] - 2}.safetensors").exists()  # although there are newer ones
    before = recorded(tmp_path / "before", config.model_copy(update={"epochs": info["diverged_at"] - 2}))
    assert (run / "model.safetensors").read_bytes() == (before / "model.safetensors").read_bytes()


def test_a_run_that_patience_ended_goes_on_from_its_last_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {"lr": 0.01, "patience": 2}
    run = recorded(tmp_path / "run", of_updates(monkeypatch, epochs=40, **values))
    info = read_info(run)
    ended = info["iterations"]
    assert (info["stopped_early"], ended < 20) == (True, True)
    with pytest.raises(RunError, match=rf"stopped after {ended} epochs: .* for 2 epochs; to go on, add --epochs"):
        resumed(run)
    # A kill before the first epoch loses nothing of the request, and neither does one within an epoch.
    resumed(run, stop_after=-1, with_epochs=True)
    assert read_info(run)["status"] == "running"
    resumed(run, stop_after=3)
    resumed(run)
    after = read_info(run)
    rest = recorded(tmp_path / "rest", of_updates(monkeypatch, epochs=40, **values | {"patience": 40}))
    rows, wanted = ((path / "history.csv").read_text().splitlines() for path in (run, rest))
    assert rows == wanted[: len(rows)]
    assert len(rows) - 1 == after["iterations"]
    losses = [float(row.split(",")[2]) for row in wanted[1:]]
    kept = after["kept"]
    assert losses[kept] == min(losses[: after["iterations"] + 1])
    assert after["iterations"] in (max(kept, ended) + 2, 40)


def test_other_data_than_the_runs_are_refused(tmp_path: Path) -> None:
    record(tmp_path / "run", load_config("scratch", epochs=8))
    config, data, model = prepare(load_config("scratch", epochs=16))
    with (
        open_for_resume(tmp_path / "run") as run,
        pytest.raises(RunError, match=r"the data drawn now differ from the run's; it was started with PyTorch 2\."),
    ):
        resume_recording(run, config, Data(data.x + 1, data.y), model, EVERY)


def test_other_weights_than_the_runs_are_refused(tmp_path: Path) -> None:
    record(tmp_path / "run", load_config("scratch", epochs=8))
    config, data, _ = prepare(load_config("scratch", epochs=16))
    _, _, other = prepare(load_config("scratch", epochs=16, seed=7))
    with (
        open_for_resume(tmp_path / "run") as run,
        pytest.raises(RunError, match="the initial weights drawn now"),
    ):
        resume_recording(run, config, data, other, EVERY)


def test_a_run_keeps_the_provenance_of_its_start(tmp_path: Path) -> None:
    record(tmp_path / "run", load_config("scratch", epochs=8))
    change_info(tmp_path / "run", torch="2.11.0", status="interrupted")
    resume(tmp_path / "run", epochs=12)
    after = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (after["torch"], after["epochs"]) == ("2.11.0", 12)
    assert [leg["torch"] for leg in after["resumed"]] == [torch.__version__]
    assert "python" not in after["resumed"][0]


def test_a_fingerprint_is_that_of_every_number() -> None:
    def differing(data: Data) -> list[str]:
        before, after = fingerprints(whole, model), fingerprints(data, other)
        return [key for key in before if before[key] != after[key]]

    rest = Data(torch.zeros(2, 2), torch.zeros(2, 1))
    whole = Data(torch.zeros(3, 2), torch.zeros(3, 1), rest)
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.load_state_dict(model.state_dict())
    assert differing(Data(torch.zeros(3, 2), torch.zeros(3, 1), rest)) == []
    assert differing(replace(whole, y=torch.tensor([[0.0], [0.0], [1e-30]]))) == ["data_sha256"]
    assert differing(replace(whole, validation=replace(rest, x=torch.ones(2, 2)))) == ["validation_sha256"]
    with torch.no_grad():
        other.bias[1] += 1e-3
    assert differing(whole) == ["initial_sha256"]


def test_a_history_that_is_not_the_checkpoints_is_refused_and_left_alone(tmp_path: Path) -> None:
    record(tmp_path / "run", load_config("scratch", epochs=8))
    history = tmp_path / "run" / "history.csv"
    changed = history.read_text().replace("\n3,", "\n3,1")
    history.write_text(changed)
    config, data, model = prepare(load_config("scratch", epochs=16))
    with open_for_resume(tmp_path / "run") as run, pytest.raises(RunError, match="does not have the checksum"):
        resume_recording(run, config, data, model, EVERY)
    assert history.read_text() == changed
