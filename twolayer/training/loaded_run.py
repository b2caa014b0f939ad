"""`twolayer.load`: a trained network, read from its run folder or from its model file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from twolayer.config.schema import Config
from twolayer.errors import DataError, RunError
from twolayer.evaluation.predictor import Predictor, predictor_in
from twolayer.reporting import notebook
from twolayer.runs import names, saved_run
from twolayer.runs.model_file import TENSORS, OpenedModel, open_model
from twolayer.training.shown import as_html

if TYPE_CHECKING:
    from twolayer.evaluation.frames import Frame


@dataclass(frozen=True, repr=False, eq=False)
class LoadedRun:
    """A trained network: `model` has the weights that the run keeps, on the CPU.

    `history` has the columns of history.csv by name: the number of the iteration or epoch, the loss, and what else
    there is. A model file alone, without its run, has no `config` and no history. A notebook shows this with its curve
    and its parameters.
    """

    path: Path
    model: nn.Sequential
    config: Config | None
    history: Mapping[str, tuple[float, ...]]
    status: str
    predictor: Predictor | None = field(default=None)

    def predict(self, frame: Frame) -> Frame:
        """The predictions for the rows of a frame of polars or pandas, in the target's own units: a frame again.

        See `evaluation.frames.predict_frame`. Raises DataError where the run was not trained on a table.
        """
        if self.predictor is None:
            raise DataError(f"{self.path}: was not trained on a table: call `model` with a tensor of D_in columns")
        from twolayer.evaluation import frames

        return frames.predict_frame(self.predictor, frame)

    def __repr__(self) -> str:
        w1, _, w2, _ = self.model.parameters()
        shape = f"{w1.shape[1]} -> {w1.shape[0]} -> {w2.shape[0]}"
        rows = f"{self.config.N} x " if self.config is not None else ""
        return notebook.text(f"LoadedRun {self.path.name}", f"{rows}{shape}", self.history, self.status)

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.history, self.model)


def load(run: str | os.PathLike[str]) -> LoadedRun:
    """A run by its name in runs/ or its path, or a model file alone. Nothing is locked or written.

    Raises RunError where there is no run, where it has no model yet, or where one of its files is damaged.
    """
    path = names.find_model(os.fsdecode(run))
    opened = open_model(path)
    config, status = None, "model file"
    history: dict[str, tuple[float, ...]] = {"iteration": (), "loss": ()}
    if path.is_dir():
        saved = saved_run.read(path)
        if saved.problems:
            raise RunError(saved.problems[0])
        found = saved.history
        columns = {name: tuple(column) for name, column in found.columns.items()}
        config, history, status = saved.config, {found.unit: tuple(range(1, len(found) + 1)), **columns}, saved.status
    return LoadedRun(path, _network(opened), config, history, status, predictor_in(opened))


def _network(opened: OpenedModel) -> nn.Sequential:
    """The network in a model file. Raises RunError where its tensors are not those of two layers."""
    try:
        tensors = safetensors.torch.load(opened.data)
        w1, b1, w2, b2 = (tensors[name] for name in TENSORS)
    except (SafetensorError, KeyError):
        raise RunError("does not hold the tensors of two layers", path=opened.path) from None
    if not _are_layers(w1, b1, w2, b2):
        raise RunError("its tensors are not those of two layers", path=opened.path)
    (H, D_in), D_out = w1.shape, len(w2)
    with torch.random.fork_rng(devices=[]):  # the initial weights, which go, draw from the global generator
        model = nn.Sequential(nn.Linear(D_in, H, dtype=w1.dtype), nn.ReLU(), nn.Linear(H, D_out, dtype=w1.dtype))
    with torch.no_grad():
        for parameter, tensor in zip(model.parameters(), (w1, b1, w2, b2), strict=True):
            parameter.copy_(tensor)
    return model


def _are_layers(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> bool:
    is_float = all(tensor.is_floating_point() and tensor.dtype == w1.dtype for tensor in (w1, b1, w2, b2))
    are_matrices = (w1.ndim, w2.ndim) == (2, 2) and 0 not in (*w1.shape, *w2.shape)
    return is_float and are_matrices and (w1.shape[:1], w2.shape[:1], w2.shape[1:]) == (b1.shape, b2.shape, b1.shape)
