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
from torch import Tensor

from twolayer import formatting
from twolayer.config.schema import Config, document
from twolayer.errors import DivergedError, RunError, TwolayerError
from twolayer.evaluation import predictor
from twolayer.evaluation.baselines import linear_baseline
from twolayer.files import named
from twolayer.hardware.device import device_name
from twolayer.runs import checkpoint, folder, names, table_paths
from twolayer.runs.checkpoint_interval import CheckpointInterval
from twolayer.runs.folder import Run
from twolayer.runs.history import Block, csv_row, join, scan
from twolayer.runs.run_files import CONFIG, HISTORY, MODEL
from twolayer.training import checkpoints
from twolayer.training.fingerprints import fingerprints, row_sums
from twolayer.training.loop import Fit
from twolayer.training.outcome import Outcome
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
        self.waiting = [Block(fit.done + 1, (), math.nan)] if fit.updates else []  # the blocks since the last row
        with named(run.path / HISTORY), run.folder.open(HISTORY) as file:
            self.losses = scan(file)
        self.seconds = float(run.info.get("seconds", 0.0))

    def add(self, block: Block) -> None:
        """Write a block's losses, and a checkpoint if one is due. A block may end within an epoch, without losses."""
        self.seconds += block.seconds
        self.waiting.append(block)
        is_due = time.monotonic() - self.saved_at >= self.every.seconds
        if block.losses:
            self.run.append("".join(map(csv_row, block.every(1))))
            if self.writer is not None:
                self.writer.add(join(self.waiting))
            self.waiting = []
            self.losses.add(block.losses)
            if not math.isfinite(block.losses[-1]):
                return
            is_due = is_due or bool(self.every.iterations and self.fit.done % self.every.iterations == 0)
        if is_due:
            self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        if self.writer is not None:
            self.writer.sync()  # a resumed run does not repeat the events before its checkpoint
        checkpoints.save(self.run, self.fit, self.seconds)
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
        fit = checkpoints.begun(model, data, config, found)
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
        if self.fit.updates and status in ("interrupted", "failed"):
            figures |= {"updates": self.fit.updates, "updates_per_epoch": self.fit.batches}
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
    clean: bool = True,
) -> Run:
    """Create a run folder with its files before the first iteration. Raises RunError, and leaves no folder then.

    `more` is kept in run.json as well; `clean` is as for `folder.create`.
    """
    config = fit.config
    with folder.create(out, names.safe_name(source), clean=clean) as run:
        check_space(run.path, fit, "take another --out, or --no-save", config.epochs if tensorboard else 0)
        run.write(CONFIG, document(config).encode())
        run.start_history(config.columns)
        run.update_info(
            status="running",
            config=source,
            note=note,
            **config_sums(run, config),
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


def config_sums(run: Run, config: Config) -> dict[str, Any]:
    """The checksums of the config file and of the one before: the process may be killed between the two writes."""
    digest = hashlib.sha256(document(config).encode()).hexdigest()
    return {"config_sha256": [digest, *run.info.get("config_sha256", [])[:1]]}


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
        **({"parts": config.parts, "split": config.split} if config.parts is not None else {}),
        "device": device_name(config.device),
        "twolayer": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def check_space(path: Path, fit: Fit, advice: str, events: int) -> None:
    """Raise RunError if the disk has no room for the history, the model, and one checkpoint more than are kept."""
    state = checkpoints.state_bytes(fit)
    model = sum(parameter.nbytes for parameter in fit.model.parameters())
    kept = checkpoint.KEPT + 2 * (fit.batches > 1) + 1
    need = kept * state + model + ROW_BYTES * (fit.config.epochs - fit.done) + EVENT_BYTES * events
    free = shutil.disk_usage(path).free
    if free < need:
        sizes = f"{formatting.size(free)} free, and the run may need {formatting.size(need)}"
        raise RunError(f"the disk has {sizes}", path=path, hint=advice)
