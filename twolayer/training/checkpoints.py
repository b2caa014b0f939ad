"""A training's state into the checkpoints of its run, and back."""

from __future__ import annotations

from typing import Any

from torch import nn

from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.engines.led import described, write_parts
from twolayer.runs import checkpoint
from twolayer.runs.checkpoint import Checkpoint, PartFolder
from twolayer.runs.folder import Run
from twolayer.training.loop import Fit


def save(run: Run, fit: Fit, seconds: float) -> None:
    """Write a checkpoint; where the state is in parts, each of these before it. Raises RunError."""
    state, sums = write_parts(fit.engine, PartFolder(run.open_checkpoints()), fit.done)
    checkpoint.save(run, fit.done, state | fit.beside_engine(), seconds, (fit.updates, fit.batches), sums)


def begun(model: nn.Sequential, data: Data, config: Config, found: Checkpoint | None, **more: Any) -> Fit:
    """The training at a checkpoint, without one at its start; `more` is for `Fit`. Raises as that does."""
    if found is None:
        return Fit(model, data, config, **more)
    return Fit(model, data, config, found.state, found.iteration, parts=found.parts, **more)


def state_bytes(fit: Fit) -> int:
    """The bytes of a state, in parts or not."""
    return sum(tensor.nbytes for tensor in (described(fit.engine) | fit.beside_engine()).values())
