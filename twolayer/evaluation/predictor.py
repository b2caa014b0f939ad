"""A trained network, read from its model file, and its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from twolayer.errors import RunError
from twolayer.evaluation.baselines import Baseline
from twolayer.runs.model_file import OpenedModel, open_model
from twolayer.tables.features import Encoding

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Predictor:
    """A network trained on a table: its weights, the encoding of the table's columns, and its baseline.

    w1 (H, D_in), b1 (H,), w2 (D_out, H), b2 (D_out,) have the training's dtype, everything else is float64.
    """

    columns: Encoding
    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    target_mean: Tensor  # (D_out,)
    target_deviation: Tensor  # (D_out,)
    baseline: Baseline


def bundle(model: nn.Sequential, columns: Encoding, baseline: Baseline) -> dict[str, Tensor]:
    """The tensors in the model file of a network trained on a table; `columns` are in its metadata."""
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


def predictor_of(model: nn.Sequential, columns: Encoding, baseline: Baseline | None = None) -> Predictor:
    """A network that has just been trained, on the CPU. For predictions alone it needs no baseline: that is zeros."""
    if baseline is None:
        D_out, D_in = len(columns.classes or columns.targets), len(columns.features)
        baseline = Baseline(torch.zeros(D_out, D_in), torch.zeros(D_out), torch.zeros(D_out))
    tensors = bundle(model, columns, baseline)
    names = ("0.weight", "0.bias", "2.weight", "2.bias", "targets.mean", "targets.deviation")
    w1, b1, w2, b2, mean, deviation = (tensors[name].detach().cpu() for name in names)
    return Predictor(columns, w1, b1, w2, b2, mean, deviation, baseline)


def load_model(path: Path) -> Predictor:
    """The model of a run folder, or of a model file. Raises RunError where there is none, or it is damaged."""
    opened = open_model(path)
    if (found := predictor_in(opened)) is None:
        raise RunError("was trained on random data, not on a table", path=path, usage=True)
    return found


def predictor_in(opened: OpenedModel) -> Predictor | None:
    """The model in an opened file; None if it was not trained on a table. Raises RunError where it is damaged."""
    columns = opened.columns
    if columns is None:
        return None
    try:
        tensors = safetensors.torch.load(opened.data)
        D_in, D_out = len(columns.features), len(columns.classes or columns.targets)
        H = len(tensors["0.bias"])
        shapes = {"0.weight": (H, D_in), "0.bias": (H,), "2.weight": (D_out, H), "2.bias": (D_out,)}
        shapes |= {"targets.mean": (D_out,), "targets.deviation": (D_out,)}
        shapes |= {"linear.weight": (D_out, D_in), "linear.bias": (D_out,), "constant": (D_out,)}
        if any(tensors[name].shape != shape for name, shape in shapes.items()):
            raise RunError("is damaged: the shapes of its tensors do not fit its columns", path=opened.path)
        w1, b1, w2, b2, mean, deviation, *baseline = (tensors[name] for name in shapes)
    except SafetensorError as error:
        raise RunError(f"is damaged: {error}", path=opened.path) from None
    except KeyError as error:
        reason = f"has no tensor {error.args[0]}; another version of twolayer wrote it"
        raise RunError(reason, path=opened.path) from None
    return Predictor(columns, w1, b1, w2, b2, mean, deviation, Baseline(*baseline))


def forward(model: Predictor, x: Array) -> Tensor:
    """The network's output for standardised rows x (n, D_in): logits or standardised targets, (n, D_out) float64."""
    return layers(x, model.w1, model.b1, model.w2, model.b2)


def layers(x: Array, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """The output of the two layers for x (n, D_in), computed in the dtype of the weights: (n, D_out) float64."""
    hidden = functional.linear(torch.from_numpy(x).to(w1.dtype), w1, b1).relu()  # (n, H)
    return functional.linear(hidden, w2, b2).double()


def predict(model: Predictor, x: Array) -> Tensor:
    """Predictions for standardised x (n, D_in): targets in their own units or probabilities, (n, D_out) float64."""
    return to_predictions(model, forward(model, x))


def to_predictions(model: Predictor, output: Tensor) -> Tensor:
    """A network's outputs (n, D_out) as targets in their own units, or as probabilities of the classes."""
    if model.columns.classes is not None:
        return output.softmax(1)
    return output * model.target_deviation + model.target_mean
