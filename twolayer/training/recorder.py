"""Records a training in its run folder: history, checkpoints, and at the end the model."""

from __future__ import annotations

import hashlib
import math
import platform
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from twolayer import formatting
from twolayer.config.schema import Config, document
from twolayer.engines.base import Data
from twolayer.errors import DivergedError, RunError, StateError, TwolayerError
from twolayer.evaluation import predictor
from twolayer.evaluation.baselines import linear_baseline
from twolayer.files import named
from twolayer.hardware.device import device_name
from twolayer.runs import checkpoint, folder, names, table_paths
from twolayer.runs.checkpoint import Checkpoint
from twolayer.runs.checkpoint_interval import CheckpointInterval
from twolayer.runs.folder import Run
from twolayer.runs.history import Block, csv_row, scan
from twolayer.runs.run_files import CHECKPOINTS, CONFIG, HISTORY, MODEL
from twolayer.tables.options import FileData
from twolayer.training.fingerprints import fingerprints, is_of_0_1_0, row_sums
from twolayer.training.loop import Fit, Outcome
from twolayer.version import __version__

if TYPE_CHECKING:
    from twolayer.runs.tensorboard import Writer


ROW_BYTES = 56  # a row of the history, approximate maximum
EVENT_BYTES = 200  # a row in TensorBoard's files


class Recording:
    """Writes the losses, checkpoints and end of a training into a run folder; with `writer` also for TensorBoard.

    Every method raises RunError if it cannot write; what was written before stays valid.
    """

    def __init__(self, run: Run, fit: Fit, every: CheckpointInterval, writer: Writer | None = None) -> None:
        self.run, self.fit, self.every, self.writer = run, fit, every, writer
        self.saved_at = time.monotonic()
        with named(run.path / HISTORY), run.folder.open(HISTORY) as file:
            self.losses = scan(file)
        self.seconds = float(run.info.get("seconds", 0.0))

    def add(self, block: Block) -> None:
        """Write a block's losses, and a checkpoint if one is due."""
        self.run.append("".join(map(csv_row, block.every(1))))
        if self.writer is not None:
            self.writer.add(block)
        self.losses.add(block.losses)
        self.seconds += block.seconds
        if not math.isfinite(block.losses[-1]):
            return
        if self.every.iterations:
            is_due = self.fit.done % self.every.iterations == 0
        else:
            is_due = time.monotonic() - self.saved_at >= self.every.seconds
        if is_due:
            self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        if self.writer is not None:
            self.writer.sync()  # a resumed run does not repeat the events before its checkpoint
        checkpoint.save(self.run, self.fit.done, self.fit.state(), self.seconds)
        self.saved_at = time.monotonic()

    def complete(self) -> Outcome:
        """Record the end of a completed training: a last checkpoint, the model and its scores."""
        self.save()
        outcome = self.fit.finish()
        digest = self._save_model(self.fit, outcome.kept)
        scores = {f"final_{name}": formatting.json_number(value) for name, value in outcome.scores.items()}
        self.end("completed", 0, model_sha256=digest, stopped_early=self.fit.stopped, kept=outcome.kept, **scores)
        return outcome

    def interrupt(self, exit_code: int) -> None:
        """Record that the training was stopped by a signal; it can be resumed."""
        self.save()
        self.end("interrupted", exit_code)

    def fail(self, error: BaseException) -> None:
        """Record that the training ended with an error, if that can still be written."""
        with suppress(TwolayerError):
            if isinstance(error, DivergedError):
                self._diverge(error)
                return
            if isinstance(error, OSError):  # of stdout: the training itself is fine
                self.save()
            self.end("failed", getattr(error, "exit_code", 1), error=str(error))

    def _diverge(self, error: DivergedError) -> None:
        """Record a divergence and save the last weights that give a finite loss.

        They are computed again from the last checkpoint, with the same result, so that no state is kept for this during
        the training.
        """
        self.end("diverged", error.exit_code, diverged_at=error.iteration)
        updates = max(0, error.iteration - 2)
        config = self.fit.config.model_copy(update={"epochs": max(1, updates)})
        data, model = self.fit.restart()
        found, _ = checkpoint.newest(self.run.open_checkpoints(), updates)
        fit = Fit(model, data, config, *((found.state, found.iteration) if found else ()))
        for _ in fit if updates else ():
            pass
        self.run.update_info(model_sha256=self._save_model(fit, updates))

    def end(self, status: str, exit_code: int, **more: Any) -> None:
        """Write into `run.json` how the training ended."""
        if self.writer is not None:
            self.writer.close()
        size, digest = self.run.position()
        figures: dict[str, Any] = {"iterations": self.losses.count, "seconds": self.seconds} | self.losses.named()
        figures |= {"history_bytes": size, "history_sha256": digest}
        self.run.update_info(status=status, exit_code=exit_code, ended=folder.now(), **figures, **more)

    def _save_model(self, fit: Fit, iteration: int) -> str:
        """Write the model; returns its SHA-256."""
        tensors: dict[str, Tensor] = fit.model.state_dict()
        metadata: dict[str, Any] = {"iteration": str(iteration)}
        if (columns := fit.data.columns) is not None:
            baseline = linear_baseline(fit.data.x, fit.data.y, columns.classes is not None)
            tensors = predictor.bundle(fit.model, columns, baseline)
            metadata["columns"] = columns.document()
        parts = checkpoint.pack(tensors, metadata)
        self.run.write(MODEL, *parts)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        return digest.hexdigest()


def start_recording(
    fit: Fit,
    every: CheckpointInterval,
    *,
    out: Path | None,
    source: str,
    note: str,
    tensorboard: bool = False,
    more: Mapping[str, Any] | None = None,
) -> Run:
    """Create a run folder with its files before the first iteration. Raises RunError, and leaves no folder then.

    `more` is kept in run.json as well.
    """
    config = fit.config
    with folder.create(out, names.safe_name(source)) as run:
        _check_space(run.path, fit, "take another --out, or --no-save", config.epochs if tensorboard else 0)
        run.write(CONFIG, document(config).encode())
        run.start_history(config.columns)
        run.update_info(
            status="running",
            config=source,
            note=note,
            **_config(run, config),
            **provenance(config),
            **fingerprints(fit.data, fit.model),
            **row_sums(fit.data),
            **table_paths.beside(run.path, config),
            **(more or {}),
            weights=config.weights,  # that are kept, and that a val_loss is of
            checkpoint_every=every.text,
            tensorboard=tensorboard,
            started=folder.now(),
        )
    return run


def _config(run: Run, config: Config) -> dict[str, Any]:
    """The checksums of the config file and of the one before: the process may be killed between the two writes."""
    digest = hashlib.sha256(document(config).encode()).hexdigest()
    return {"config_sha256": [digest, *run.info.get("config_sha256", [])[:1]]}


def resume_recording(
    run: Run, config: Config, data: Data, model: nn.Sequential, every: CheckpointInterval, *, tensorboard: bool = False
) -> tuple[Fit, list[str]]:
    """The training at its newest valid checkpoint, and what is wrong with newer ones.

    Raises RunError if there is nothing left to do, if the data have changed, or if the history does not match the
    checkpoint.
    """
    for key, digest in fingerprints(data, model).items():
        if digest != run.info.get(key) and not (key == "data_sha256" and is_of_0_1_0(data, run.info.get(key))):
            raise RunError(_other(run, config, key))
    fit, found, wrong = _restored(run, config, data, model, every)
    if run.info.get("status") == "completed" and run.info.get("stopped_early"):
        reason = f"the validation loss had not improved for {config.patience} epochs"
        raise RunError(f"stopped after {fit.done} epochs, because {reason}", path=run.path, usage=True)
    # A run that was killed after its last iteration is not completed yet: its end is written now.
    if fit.done > config.epochs or (fit.done == config.epochs and run.info.get("status") == "completed"):
        more = f"for more, add --epochs {2 * max(fit.done, int(run.info.get('epochs', 0)))}"
        raise RunError(f"has {fit.done} {config.unit}s already", path=run.path, hint=more, usage=True)
    recorded = fit.done if run.info.get("tensorboard") is True else 0
    _check_space(run.path, fit, "make room", config.epochs - recorded if tensorboard else 0)
    before = run.info.get("resumed", [])
    # The run's own provenance stays that of its start.
    other = {key: value for key, value in provenance(config).items() if run.info.get(key) != value}
    again = [*(before if isinstance(before, list) else []), {"at": folder.now(), "iteration": fit.done, **other}]
    ended = ("exit_code", "ended", "error", "iterations", "stopped_early", "kept", "history_bytes", "history_sha256")
    for key in [key for key in run.info if key in ended or key.endswith(("_loss", "_accuracy"))]:
        del run.info[key]  # of the previous end
    seconds = found.seconds if found else 0.0
    run.update_info(
        status="running",
        seconds=seconds,
        **_config(run, config),
        **row_sums(data),
        **table_paths.beside(run.path, config),
        epochs=config.epochs,
        tensorboard=tensorboard,
        resumed=again,
    )
    run.write(CONFIG, document(config).encode())
    run.start_history(config.columns)  # cut last: run.json no longer has the checksum of its rows
    return fit, wrong


def _restored(
    run: Run, config: Config, data: Data, model: nn.Sequential, every: CheckpointInterval
) -> tuple[Fit, Checkpoint | None, list[str]]:
    """The training at the newest valid checkpoint that agrees with the history; what is wrong with newer ones.

    The history is open then. Raises RunError where no checkpoint of this training agrees with the history.
    """
    wrong: list[str] = []
    problem: RunError | None = None
    for found in checkpoint.verified(run.open_checkpoints(), wrong):
        path = run.path / CHECKPOINTS / f"{found.iteration}.safetensors"
        try:
            fit = Fit(model, data, config, found.state, found.iteration, cut_every=every.iterations)
            run.open_history(found.history_bytes, found.history_sha256)
        except StateError as error:
            wrong.append(f"{path}: {error}")
        except RunError as error:
            problem = problem or error
            wrong.append(f"{path}: does not agree with {HISTORY}")
        else:
            return fit, found, wrong
    if problem is not None:
        raise problem
    run.open_history()
    return Fit(model, data, config, cut_every=every.iterations), None, wrong


def provenance(config: Config) -> dict[str, Any]:
    """The environment: versions, machine and device; and the main keys of the config."""
    return {
        "shape": config.shape,
        "epochs": config.epochs,
        "lr": config.lr,
        "seed": config.seed,
        "engine": config.engine,
        "form": config.form,
        "threads": config.threads,
        "device": device_name(config.device),
        "twolayer": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _other(run: Run, config: Config, key: str) -> str:
    """The message for a fingerprint that has changed since the run's start."""
    if isinstance(config.data, FileData) and key != "initial_sha256":
        is_other_file = key == "validation_sha256" and isinstance(config.validation, str)
        path, name = (config.validation, "validation") if is_other_file else (config.data.path, "data.path")
        hint = f"restore it, or name it with --set {name}=PATH"
        return f"{path}: is not the table that {run.path} was started with, or has changed since; {hint}"
    what = "initial weights" if key == "initial_sha256" else "data"
    versions = f"it was started with PyTorch {run.info.get('torch')}, this is {torch.__version__}"
    return f"{run.path}: the {what} drawn now differ from the run's; {versions}"


def _check_space(path: Path, fit: Fit, advice: str, events: int) -> None:
    """Raise RunError if the disk has no room for the history, the model, and one checkpoint more than the two kept."""
    state = sum(tensor.nbytes for tensor in fit.state().values())
    model = sum(parameter.nbytes for parameter in fit.model.parameters())
    need = (checkpoint.KEPT + 1) * state + model + ROW_BYTES * (fit.config.epochs - fit.done) + EVENT_BYTES * events
    free = shutil.disk_usage(path).free
    if free < need:
        sizes = f"{formatting.size(free)} free, and the run may need {formatting.size(need)}"
        raise RunError(f"the disk has {sizes}", path=path, hint=advice)
