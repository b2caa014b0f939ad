"""A trained network put to use: what its file holds, what it predicts, and how good that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from twolayer.baselines import Baseline
from twolayer.checkpoint import unpack
from twolayer.errors import RunError
from twolayer.runs import MODEL, read_info
from twolayer.tables import Columns

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Model:
    """A network trained on a table: its weights, the table's columns, and the baselines to hold it against.

    w1 (H, D_in), b1 (H,), w2 (D_out, H), b2 (D_out,) are in the training's dtype, all else is float64.
    """

    columns: Columns
    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    target_mean: Tensor  # (D_out,)
    target_deviation: Tensor  # (D_out,)
    baseline: Baseline


def bundle(model: nn.Sequential, columns: Columns, baseline: Baseline) -> dict[str, Tensor]:
    """The tensors of the model file of a network that was trained on a table; `columns` go into its metadata."""
    classes = len(columns.classes or ())
    targets = columns.targets if columns.classes is None else ()
    numbers = {
        "inputs.mean": [feature.mean for feature in columns.features],
        "inputs.deviation": [feature.deviation for feature in columns.features],
        "targets.mean": [target.mean for target in targets] or [0.0] * classes,
        "targets.deviation": [target.deviation for target in targets] or [1.0] * classes,
    }
    scaling = {name: torch.tensor(values, dtype=torch.float64) for name, values in numbers.items()}
    linear = {"linear.weight": baseline.weight, "linear.bias": baseline.bias, "constant": baseline.constant}
    return dict(model.state_dict()) | scaling | linear


def load_model(run: Path) -> Model:
    """The model of a run folder (see `runs.find`). Raises RunError where there is none, or it is damaged."""
    info = read_info(run)
    path = run / MODEL
    try:
        tensors, metadata = unpack(path.read_bytes())
    except FileNotFoundError:
        status = info.get("status")
        if status in ("completed", "diverged"):
            raise RunError(f"{path}: is gone") from None
        how = "is running, or was killed" if status == "running" else f"has {status}"
        how = "was interrupted" if status == "interrupted" else how
        again = f"go on with it by: twolayer train --resume {run}"
        raise RunError(f"{run}: has no model yet, as it {how}; {again}") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    if "columns" not in metadata:
        raise RunError(f"{run}: was not trained on a table, but on data that were drawn", usage=True)
    return _model(path, tensors, Columns.of(metadata["columns"]))


def _model(path: Path, tensors: Mapping[str, Tensor], columns: Columns) -> Model:
    try:
        return Model(
            columns,
            *(tensors[name] for name in ("0.weight", "0.bias", "2.weight", "2.bias")),
            tensors["targets.mean"],
            tensors["targets.deviation"],
            Baseline(tensors["linear.weight"], tensors["linear.bias"], tensors["constant"]),
        )
    except KeyError as error:
        raise RunError(f"{path}: lacks the tensor {error.args[0]}; it is of another twolayer") from None


def forward(model: Model, x: Array) -> Tensor:
    """What the network gives for standardised rows x (n, D_in): logits or standardised targets, (n, D_out) float64."""
    hidden = functional.linear(torch.from_numpy(x).to(model.w1.dtype), model.w1, model.b1).relu()  # (n, H)
    return functional.linear(hidden, model.w2, model.b2).double()


def predict(model: Model, x: Array) -> Tensor:
    """The targets in their own units, or the probabilities of the classes, of rows x (n, D_in): (n, D_out) float64."""
    return finished(model, forward(model, x))


def finished(model: Model, output: Tensor) -> Tensor:
    """What the outputs of a network mean: targets in their own units, or the probabilities of the classes."""
    if model.columns.classes is not None:
        return output.softmax(1)
    return output * model.target_deviation + model.target_mean
