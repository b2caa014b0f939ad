"""Event files against TensorBoard's own reader, and against the history of the same run."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.forking import HANGS, Forked, clean_environment
from tests.helpers.processes import COMMAND, Run, Write
from tests.helpers.trained import train
from tests.runs.test_folder import Failing
from twolayer.config.loading import load_config
from twolayer.errors import RunError
from twolayer.runs import tensorboard
from twolayer.runs.checkpoint_interval import CheckpointInterval
from twolayer.runs.folder import open_for_resume
from twolayer.runs.history import Reader
from twolayer.runs.run_files import read_info
from twolayer.training.loop import Fit
from twolayer.training.recorder import Recording, start_recording
from twolayer.training.resuming import resume_recording
from twolayer.training.setup import prepare

TAGS = {
    "loss": "loss/train",
    "accuracy": "accuracy/train",
    "val_loss": "loss/validation",
    "val_accuracy": "accuracy/validation",
    "lr": "training/learning_rate",
}
EVERY = CheckpointInterval("4", iterations=4)
Scalars = dict[str, list[tuple[int, float]]]


def scalars(run: Path) -> Scalars:
    """What TensorBoard reads of the folder: the steps and values of each tag."""
    found = EventAccumulator(str(run), size_guidance={"scalars": 0})
    found.Reload()
    for tag in found.Tags()["scalars"]:
        times = [event.wall_time for event in found.Scalars(tag)]
        assert times == sorted(times)
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def single(values: array[float]) -> list[float]:
    """The numbers in single precision, as TensorBoard has them."""
    return list(array("f", values))


def assert_all_there(run: Path, *, untimed: int | None = 0) -> Scalars:
    """Every number of the history is there once, and the time of all but so many of the first rows (None: of some)."""
    found, history = scalars(run), Reader(run / "history.csv")
    history.read()
    assert len(history) > 0
    steps = list(range(1, len(history) + 1))
    for name, values in history.columns.items():
        assert found[TAGS[name]] == list(zip(steps, single(values), strict=True)), name
    time_tag = f"training/seconds_per_{history.unit}"
    timed = [step for step, _ in found[time_tag]]
    assert timed == (steps[untimed:] if untimed is not None else sorted(set(timed)))
    (total,) = array("f", [read_info(run)["seconds"]])  # event files have float32
    assert all(0 < seconds <= total for _, seconds in found[time_tag])
    known = {TAGS[name] for name in history.columns} | {time_tag, TAGS["lr"]}
    assert set(found) == known
    assert [step for step, _ in found[TAGS["lr"]]] == steps
    return found


def test_every_scalar_is_there(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[2] / "configs" / "diabetes.csv", tmp_path / "my.csv")
    train(
        tmp_path,
        "--out plain --tensorboard --epochs 300",
        "--out auto --tensorboard --lr auto --epochs 40",
        "my.csv --target progression --out table --tensorboard --epochs 7",
        "my.csv --target sex --out classes --tensorboard --epochs 5 --set loss=cross_entropy --lr 0.1",
    )
    assert assert_all_there(tmp_path / "plain")[TAGS["lr"]][7] == (8, array("f", [1e-4])[0])
    assert {value for _, value in assert_all_there(tmp_path / "auto")[TAGS["lr"]]} != {0.0}
    assert "training/seconds_per_epoch" in assert_all_there(tmp_path / "table")
    assert {"accuracy/train", "accuracy/validation"} <= set(assert_all_there(tmp_path / "classes"))


def test_a_run_that_went_on_has_every_scalar_once(tmp_path: Path) -> None:
    train(
        tmp_path,
        "--out on --tensorboard --epochs 100",
        "--resume on --epochs 250",  # goes on to write without being asked
        "--out late --epochs 100",
        "--resume late --epochs 250 --tensorboard",
        "--out whole --epochs 250",
    )
    whole = (tmp_path / "whole/history.csv").read_bytes()
    assert (tmp_path / "on/history.csv").read_bytes() == (tmp_path / "late/history.csv").read_bytes() == whole
    assert_all_there(tmp_path / "on")
    assert_all_there(tmp_path / "late", untimed=100)


def test_rows_that_are_taken_back_are_told_once_with_their_last_values(tmp_path: Path) -> None:
    train(tmp_path, "--out run --tensorboard --epochs 60 --checkpoint-every 20")
    for checkpoint in (tmp_path / "run/checkpoints").iterdir():
        if int(checkpoint.stem) > 40:
            checkpoint.unlink()
    train(tmp_path, "--resume run --epochs 80")
    assert_all_there(tmp_path / "run")
    for checkpoint in (tmp_path / "run/checkpoints").iterdir():
        checkpoint.unlink()
    train(tmp_path, "--resume run --epochs 90")  # from the beginning
    assert_all_there(tmp_path / "run")


def stopped(folder: Path, number: int) -> int:
    """Begin a long training and send it a signal after some hundred iterations; its exit code."""
    arguments = ["train", "--out", "run", "--tensorboard", "--quiet", "--checkpoint-every", "100"]
    command = [*arguments, "--epochs", "1000000", "--lr", "1e-5"]
    history = folder / "run/history.csv"
    with Forked(command, folder, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + HANGS
        while not (history.exists() and history.stat().st_size > 20_000) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        return process.wait()


def test_a_kill_at_any_moment_leaves_files_that_can_be_read_and_gone_on_with(tmp_path: Path) -> None:
    assert stopped(tmp_path, signal.SIGKILL) == -signal.SIGKILL
    killed = scalars(tmp_path / "run")[TAGS["loss"]]
    assert [step for step, _ in killed] == list(range(1, len(killed) + 1))
    assert len(killed) > 100
    (file,) = (tmp_path / "run").glob("events*")
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:20])  # as a kill within a write leaves it: the file's first record has more
    assert scalars(tmp_path / "run")[TAGS["loss"]] == killed
    train(tmp_path, f"--resume run --epochs {len(killed) + 500}")
    assert len(assert_all_there(tmp_path / "run")[TAGS["loss"]]) == len(killed) + 500


def test_a_divergence_is_told_to_its_end(tmp_path: Path) -> None:
    train(tmp_path, "--out run --tensorboard --lr 1")
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "diverged"
    told = scalars(tmp_path / "run")[TAGS["loss"]]
    history = Reader(tmp_path / "run/history.csv")
    history.read()
    assert [step for step, _ in told] == list(range(1, len(history) + 1))
    assert repr([value for _, value in told]) == repr(single(history.columns["loss"]))


def test_an_interrupted_run_has_told_all_it_has_done(tmp_path: Path) -> None:
    assert stopped(tmp_path, signal.SIGINT) == 130
    assert_all_there(tmp_path / "run")


def test_events_that_cannot_be_written_end_the_training_with_a_run_that_goes_on(
    tmp_path: Path, config_file: Write
) -> None:
    small = config_file("N: 8\nD_in: 3\nH: 4\nD_out: 2\nlr: 1e-3\nepochs: 10000\n")
    failed = subprocess.run(
        [COMMAND, "train", small, "--out", "run", "--tensorboard", "--quiet", "--checkpoint-every", "500"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)),  # bytes of a file
    )
    assert failed.returncode == 1
    assert "error: run/events.out.tfevents.000001: cannot be written: File too large" in failed.stderr
    assert "resume with: twolayer train --resume run" in failed.stderr
    train(tmp_path, "--resume run")
    assert len(assert_all_there(tmp_path / "run")[TAGS["loss"]]) == 10_000


def record(folder: Path) -> None:
    """A whole training in a run folder, as the command does it."""
    config, data, model = prepare(load_config("scratch", epochs=12))
    fit = Fit(model, data, config, cut_every=EVERY.iterations)
    with start_recording(fit, EVERY, out=folder, source="x", note="", tensorboard=True) as run:
        follow(Recording(run, fit, EVERY, tensorboard.Writer(run, config, 0)))


def resume(folder: Path, *, epochs: int = 12) -> None:
    with open_for_resume(folder) as run:
        config, data, model = prepare(load_config(folder / "config.yaml", epochs=epochs))
        fit, _ = resume_recording(run, config, data, model, EVERY, tensorboard=True)
        follow(Recording(run, fit, EVERY, tensorboard.Writer(run, config, fit.done)))


def follow(recorder: Recording) -> None:
    try:
        for block in recorder.fit:
            recorder.add(block)
        recorder.complete()
    except BaseException as error:
        recorder.fail(error)
        raise


@pytest.mark.sample(1)
@pytest.mark.parametrize("lastingly", [False, True])
def test_wherever_a_write_fails_the_run_goes_on_and_every_scalar_is_there(lastingly: bool, tmp_path: Path) -> None:
    record(tmp_path / "whole")  # Python, too, opens files, the first time
    failed, of_events = 0, 0
    for at in range(1, 1000):
        folder = tmp_path / f"run-{at}"
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, at, errno.ENOSPC, lastingly=lastingly)
            try:
                record(folder)
                if failing.calls < at:
                    break
            except RunError as error:
                failed += 1
                of_events += "events.out.tfevents" in str(error)
                assert str(error).endswith("cannot be written: No space left on device")
        if (folder / "run.json").exists() and read_info(folder)["status"] != "completed":
            resume(folder)
        if folder.exists():
            assert_all_there(folder)
        assert not list(tmp_path.rglob("*.part"))
    assert failed > 60
    assert failed >= at - 3  # the sweep of leftovers may fail, and nothing is lost
    assert of_events > 10


def test_wherever_catching_up_fails_it_is_done_the_next_time(tmp_path: Path) -> None:
    record(tmp_path / "begun")
    (tmp_path / "begun" / "events.out.tfevents.000001").unlink()
    of_events = 0
    for at in range(1, 1000):
        folder = shutil.copytree(tmp_path / "begun", tmp_path / f"run-{at}")
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, at, errno.EIO, lastingly=True)
            try:
                resume(folder, epochs=16)
                if failing.calls < at:
                    break
            except RunError as error:
                of_events += "events.out.tfevents" in str(error)
        assert not list(folder.glob(".*"))
        resume(folder, epochs=16 if read_info(folder)["status"] != "completed" else 20)
        assert_all_there(folder, untimed=None)
    assert of_events > 10
    assert_all_there(folder, untimed=12)


def test_it_goes_with_a_run_folder_only(twolayer: Run, tmp_path: Path) -> None:
    done = twolayer("train", "--tensorboard", "--no-save")
    assert done.returncode == 2
    assert "--tensorboard" in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_the_extra_one_line_says_so_before_anything_is_made(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from twolayer.__main__ import main; code = main(); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "train", "--tensorboard"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: this needs tensorboard: pip install 'twolayer[tensorboard]'\n"
    assert not list(tmp_path.iterdir())


def test_nothing_of_tensorboard_is_written_or_imported_unasked(tmp_path: Path) -> None:
    program = (
        "import sys; from twolayer.__main__ import main; code = main(); assert 'tensorboard' not in sys.modules; "
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "train", "--epochs", "5", "--out", "run", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "run").glob("events*"))


@pytest.mark.parametrize("name", ["loss", "val_loss"])
def test_the_losses_stand_together(name: str) -> None:
    assert tensorboard.TAGS[name].startswith("loss/")
