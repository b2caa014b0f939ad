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
from tests.runs.test_folder import Failing
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.errors import RunError
from twolayer.files import Folder
from twolayer.runs import checkpoint
from twolayer.runs.checkpoint_interval import CheckpointInterval
from twolayer.runs.folder import open_for_resume
from twolayer.runs.run_files import read_info
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
