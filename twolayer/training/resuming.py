"""Resumes the training of a run folder from its newest good checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from twolayer import formatting
from twolayer.config.schema import Config, document
from twolayer.engines.base import Data
from twolayer.engines.parts import ALONE, Group
from twolayer.errors import RunError, StateError
from twolayer.runs import checkpoint, checksum, folder, table_paths
from twolayer.runs.checkpoint import Checkpoint
from twolayer.runs.checkpoint_interval import CheckpointInterval
from twolayer.runs.folder import Run
from twolayer.runs.run_files import CHECKPOINTS, CONFIG, HISTORY
from twolayer.tables.options import FileData
from twolayer.training import checkpoints
from twolayer.training.fingerprints import fingerprints, is_of_0_1_0, row_sums
from twolayer.training.loop import Fit
from twolayer.training.recorder import check_space, config_sums, provenance

# The keys of run.json that the end of a training writes, beside its losses and accuracies.
ENDED = {"exit_code", "ended", "error", "iterations", "stopped_early", "kept", "history_bytes", "history_sha256"}
ENDED |= {"updates", "updates_per_epoch"}


def resume_recording(
    run: Run,
    config: Config,
    data: Data,
    model: nn.Sequential,
    every: CheckpointInterval,
    *,
    tensorboard: bool = False,
    with_epochs: bool = False,
    group: Group = ALONE,
    more: Mapping[str, Any] | None = None,
) -> tuple[Fit, list[str]]:
    """The training at its newest valid checkpoint, and what is wrong with newer ones.

    A training that `patience` has ended goes on `with_epochs`, where the user named their number, and from its last
    weights: the best ones stay beside them, and the patience is counted from there on.

    `more` is kept in run.json, beside the iteration at which the training goes on.

    Raises RunError if there is nothing left to do, if the data have changed, or if the history does not match the
    checkpoint.
    """
    for key, digest in fingerprints(data, model).items():
        if digest != run.info.get(key) and not (key == "data_sha256" and is_of_0_1_0(data, run.info.get(key))):
            raise RunError(_other(run, config, key))
    fit, found, wrong = _restored(run, config, data, model, every, group)
    has_stopped = run.info.get("status") == "completed" and run.info.get("stopped_early") is True
    _check_left(run, config, fit, has_stopped=has_stopped, with_epochs=with_epochs)
    checksum.remove_stale_parts(run.open_checkpoints())  # not before: a run that cannot be resumed stays as it is
    recorded = fit.done if run.info.get("tensorboard") is True else 0
    check_space(run.path, fit, "make room", config.epochs - recorded if tensorboard else 0)
    seconds = found.seconds if found is not None else 0.0
    if has_stopped and fit.best is not None:
        fit.best.count_again(fit.done)
        # Before run.json says that it is running: a kill in between must not end it once more.
        checkpoints.save(run, fit, seconds)
    before = run.info.get("resumed", [])
    other = {"updates": fit.updates} if fit.updates else {}
    # The run's own provenance stays that of its start.
    other |= dict(more or {})
    other |= {key: value for key, value in provenance(config).items() if run.info.get(key) != value}
    again = [*(before if isinstance(before, list) else []), {"at": folder.now(), "iteration": fit.done, **other}]
    for key in [key for key in run.info if key in ENDED or key.endswith(("_loss", "_accuracy"))]:
        del run.info[key]  # of the previous end
    run.update_info(
        status="running",
        seconds=seconds,
        **config_sums(run, config),
        **row_sums(data),
        **table_paths.beside(run.path, config),
        epochs=config.epochs,
        tensorboard=tensorboard,
        resumed=again,
    )
    run.write(CONFIG, document(config).encode())
    run.start_history(config.columns)  # cut last: run.json no longer has the checksum of its rows
    return fit, wrong


def _check_left(run: Run, config: Config, fit: Fit, *, has_stopped: bool, with_epochs: bool) -> None:
    """Raise RunError if there is nothing left to do."""
    if has_stopped and not with_epochs:
        reason = f"stopped after {fit.done} epochs: the validation loss had not improved for {config.patience} epochs"
        raise RunError(reason, path=run.path, hint=f"to go on, add --epochs {2 * fit.done}", usage=True)
    # A run that was killed after its last iteration is not completed yet: its end is written now.
    is_beyond = fit.done == config.epochs and (run.info.get("status") == "completed" or fit.updates > 0)
    if fit.done > config.epochs or is_beyond:
        planned = 0 if has_stopped else int(run.info.get("epochs", 0))
        part = f" and {formatting.counted(fit.updates, 'update')}" if fit.updates else ""
        reason = f"has {fit.done} {config.unit}s{part} already"
        hint = f"for more, add --epochs {2 * max(1, fit.done, planned)}"
        raise RunError(reason, path=run.path, hint=hint, usage=True)


def _restored(
    run: Run, config: Config, data: Data, model: nn.Sequential, every: CheckpointInterval, group: Group
) -> tuple[Fit, Checkpoint | None, list[str]]:
    """The training at the newest valid checkpoint that agrees with the history; what is wrong with newer ones.

    The history is open then. Raises RunError where no checkpoint of this training agrees with the history.
    """
    wrong: list[str] = []
    problem: RunError | None = None
    for found in checkpoint.verified(run.open_checkpoints(), wrong):
        path = run.path / CHECKPOINTS / found.name
        try:
            fit = checkpoints.begun(model, data, config, found, cut_every=every.iterations, group=group)
            if fit.updates != found.updates:
                raise StateError(f"has the state after {fit.updates} updates of an epoch, not {found.updates}")
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
    return Fit(model, data, config, cut_every=every.iterations, group=group), None, wrong


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
