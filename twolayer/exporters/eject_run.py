"""The learning rates that a run with `lr: auto` took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.errors import RunError
from twolayer.runs.saved_run import SavedRun
from twolayer.training.loop import Fit


def rates_of(run: SavedRun, config: Config, data: Data, model: nn.Sequential) -> dict[int, float]:
    """The learning rates of a run with `lr: auto`, by the number of updates before the first that each holds for.

    The history has one for each row. With batches a row has many updates: the epochs up to the last change are
    trained again, in `model`. Raises RunError where the training has not ended.
    """
    if run.status not in ("completed", "diverged"):
        raise RunError("its training has not ended, so its learning rates are not all known", path=run.path)
    history = run.history.columns.get("lr")
    if not history:
        raise RunError("its history has no learning rates", path=run.path)
    if config.batch_size is None or config.batch_size >= config.N:
        found = {0: history[0]}
        return found | {i: rate for i, rate in enumerate(history) if i and rate != history[i - 1]}
    changes = [i for i in range(1, len(history)) if history[i] != history[i - 1]]
    config = config.model_copy(update={"epochs": max(changes, default=0) + 1})
    fit = Fit(model, data, config)
    fit.engine = engine = _Watched(fit)
    for _ in fit:
        pass
    return engine.rates


class _Watched:
    """The engine of a training; it takes down the learning rates, by the number of updates before."""

    def __init__(self, fit: Fit) -> None:
        self.engine, self.count, self.rates = fit.engine, 0, {0: fit.lr}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def set_lr(self, lr: float) -> None:
        if lr != list(self.rates.values())[-1]:
            self.rates[self.count] = lr
        self.engine.set_lr(lr)

    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        self.count += len(batches)
        self.engine.updates(batches, out)  # type: ignore[attr-defined]
