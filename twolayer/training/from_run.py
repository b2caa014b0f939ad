"""A saved run begun again: its config, its data and its weights at any iteration. Nothing is written or locked."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.errors import DataError, ExtraError, NoRowsError, RunError
from twolayer.files import Folder
from twolayer.formatting import counted
from twolayer.runs import checkpoint, model_file, table_paths
from twolayer.runs.checkpoint import Checkpoint
from twolayer.runs.run_files import CHECKPOINTS, CONFIG
from twolayer.runs.saved_run import SavedRun
from twolayer.training.checkpoints import begun
from twolayer.training.fingerprints import fingerprints
from twolayer.training.loop import Fit
from twolayer.training.setup import prepare

if TYPE_CHECKING:
    from twolayer.tables.dataset import Table


def begun_again(run: SavedRun) -> tuple[Config, Data, nn.Sequential]:
    """The run's config, data and initial weights; the table is read where it is now.

    Raises NoRowsError where the table cannot be read, or where the data or the initial weights are not those of the
    run's start, and RunError where the config cannot be read; else as `prepare` does.
    """
    config = run.config
    if config is None:
        raise RunError(run.problems[0] if run.problems else f"{run.path}: has no config")
    changed: dict[str, Any] = {}
    for key, path in table_paths.moved(run.path, run.info, config).items():
        changed |= {key: path} if key == "validation" else {"data": config.data.model_copy(update={"path": path})}
    config = config.model_copy(update=changed)
    try:
        config, data, model = prepare(config)
    except ExtraError:  # the table is there
        raise
    except DataError as error:
        if not table_paths.tables(config):
            raise
        raise NoRowsError(str(error), path=run.path, hint="put back the table that the run was trained on") from None
    for key, digest in fingerprints(data, model).items():
        if key in run.info and digest != run.info[key]:
            raise _changed(run, config, key)
    return config, data, model


def _changed(run: SavedRun, config: Config, key: str) -> NoRowsError:
    """What to say where the data or the initial weights are not those that the run began with."""
    if key != "initial_sha256" and (tables := table_paths.tables(config)):
        named = " or ".join(dict.fromkeys(tables.values()))
        hint = f"put back the old one, or train again: twolayer train {quote(str(run.path / CONFIG))}"
        return NoRowsError(f"{named} has changed since the run was trained on it", path=run.path, hint=hint)
    what = "initial weights" if key == "initial_sha256" else "data"
    used = run.text("torch") or "another version"
    reason = f"PyTorch {torch.__version__} draws other {what} here than the run had; it was trained with PyTorch {used}"
    hint = f"pip install torch=={used.partition('+')[0]}" if used[0].isdigit() else "install that"
    return NoRowsError(reason, path=run.path, hint=hint)


def load_kept(run: SavedRun, model: nn.Sequential) -> int | None:
    """Copy the weights that the run keeps into the model, and return their iteration; None if it has none yet.

    Raises RunError where the model file is damaged.
    """
    found = model_file.read(run)
    if found is None:
        return None
    arrays = (found.first.weight, found.first.bias, found.second.weight, found.second.bias)
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))
    return found.iterations


def newest_checkpoint(run: SavedRun, limit: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest undamaged checkpoint of at most `limit` iterations, or None; and what is wrong with newer ones."""
    with suppress(OSError, RunError), Folder(run.path) as folder, Folder(Path(CHECKPOINTS), inside=folder) as inner:
        return checkpoint.newest(inner, limit)
    return None, []


def train_to(run: SavedRun | None, iteration: int, config: Config, data: Data, model: nn.Sequential) -> Fit:
    """Train the model, which has its initial weights, up to an iteration (with batches, an epoch).

    That of a run starts at its nearest checkpoint, and comes out with the same bits as in the run. Raises RunError
    where the run has fewer iterations, and DivergedError.
    """
    if run is not None and iteration > len(run.history):
        raise RunError(
            f"has {counted(len(run.history), config.unit)}, so there is no {iteration}", path=run.path, usage=True
        )
    found = newest_checkpoint(run, iteration)[0] if run is not None else None
    fit = begun(model, data, config.model_copy(update={"epochs": max(1, iteration)}), found)
    for _ in fit if fit.done < iteration else ():
        pass
    return fit


@dataclass(frozen=True)
class Place:
    """A network at one point of its training: `iteration` updates or epochs after its start; None if not known.

    `lr` is the learning rate there. With `is_kept` the weights are those that the run keeps, in its model file. `text`
    says all this in a sentence, and `notes` why the run has no later ones.
    """

    config: Config
    data: Data
    model: nn.Sequential
    lr: float
    iteration: int
    text: str
    run: SavedRun | None = None
    is_kept: bool = False
    notes: tuple[str, ...] = ()


def place_in_run(run: SavedRun, at: str | int) -> Place:
    """A run's network at its "start", at its "end" (the weights that it keeps), or after `at` iterations or epochs.

    The end of a run that keeps none yet is its newest checkpoint. Raises as `begun_again` and `train_to`.
    """
    config, data, model = begun_again(run)
    what, unit = f"run {run.name}, {run.status}", config.unit
    if at == "end" and (kept := load_kept(run, model)) is not None:
        text = f"{what}: the weights that it keeps, of {unit} {kept}"
        return Place(config, data, model, _lr(run, config, kept), kept, text, run, is_kept=True)
    found, notes = newest_checkpoint(run) if at == "end" else (None, [])
    iteration = at if isinstance(at, int) else found.iteration if found is not None else 0
    last = run.info.get("iterations", 0)
    if at == "end" and not notes and iteration < last:
        notes = [f"{run.path}: has {counted(last, unit)}, and no checkpoint of the last"]
    if iteration:
        train_to(run, iteration, config, data, model)
    text = f"{what}: the weights after {unit} {iteration}" if iteration else f"{what}: the initial weights"
    return Place(config, data, model, _lr(run, config, iteration), iteration, text, run, notes=tuple(notes))


def place_in_config(config: Config, table: Table | None, name: str, at: str | int) -> Place:
    """A config's network at its "start", trained to its "end", or after `at` iterations or epochs.

    Raises as `prepare`, and DivergedError.
    """
    config, data, model = prepare(config, table)
    iteration = at if isinstance(at, int) else config.epochs if at == "end" else 0
    fit = train_to(None, iteration, config, data, model)
    if at == "end":
        iteration = fit.finish().kept
    text = (
        f"config {name}: the weights after {config.unit} {iteration}"
        if iteration
        else f"config {name}: the initial weights"
    )
    return Place(config, data, model, fit.lr, iteration, text)


def _lr(run: SavedRun, config: Config, iteration: int) -> float:
    """The learning rate of the update after this number of iterations; nan where a run with `lr: auto` has none."""
    if config.lr != "auto":
        return config.lr
    rates = run.history.columns.get("lr", ())
    return rates[min(iteration, len(rates) - 1)] if len(rates) else math.nan
