"""A trained network, read from its model file, and its predictions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from twolayer.errors import DataError, RunError
from twolayer.evaluation.baselines import Baseline
from twolayer.files import open_regular, unreadable
from twolayer.runs.checkpoint import unpack
from twolayer.runs.checksum import digest, read_tensors
from twolayer.runs.run_files import MODEL, check_files, is_own_model

if TYPE_CHECKING:
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


def predictor_of(model: nn.Sequential, columns: Encoding, baseline: Baseline) -> Predictor:
    """A network that has just been trained, on the CPU."""
    tensors = bundle(model, columns, baseline)
    names = ("0.weight", "0.bias", "2.weight", "2.bias", "targets.mean", "targets.deviation")
    w1, b1, w2, b2, mean, deviation = (tensors[name].detach().cpu() for name in names)
    return Predictor(columns, w1, b1, w2, b2, mean, deviation, baseline)


def load_model(run: Path) -> Predictor:
    """The model of a run folder (see `names.find`). Raises RunError where there is none, or it is damaged."""
    info, path = check_files(run), run / MODEL
    status = info.get("status")
    again = f"resume it with: twolayer train --resume {shlex.quote(str(run))}"
    try:
        with open_regular(path) as file:
            data = read_tensors(file)
        tensors, metadata = unpack(data)
    except FileNotFoundError:
        if status in ("completed", "diverged"):
            raise RunError("is missing", path=path) from None
        how = "its training was interrupted" if status == "interrupted" else "its training has not ended"
        raise RunError(f"has no model yet: {how}", path=run, hint=again) from None
    except OSError as error:
        raise RunError(unreadable(error), path=path) from None
    except ValueError as error:
        raise RunError(str(error), path=path) from None
    if not is_own_model(run, info, digest(data)):
        raise RunError("its training has not ended", path=run, hint=again)
    if "columns" not in metadata:
        raise RunError("was trained on random data, not on a table", path=run, usage=True)
    return _model(path, tensors, metadata["columns"])


def _model(path: Path, tensors: Mapping[str, Tensor], document: Any) -> Predictor:
    from twolayer.tables.features import Encoding

    try:
        columns = Encoding.of(document)
        D_in, D_out = len(columns.features), len(columns.classes or columns.targets)
        H = len(tensors["0.bias"])
        shapes = {"0.weight": (H, D_in), "0.bias": (H,), "2.weight": (D_out, H), "2.bias": (D_out,)}
        shapes |= {"targets.mean": (D_out,), "targets.deviation": (D_out,)}
        shapes |= {"linear.weight": (D_out, D_in), "linear.bias": (D_out,), "constant": (D_out,)}
        if any(tensors[name].shape != shape for name, shape in shapes.items()):
            raise RunError("is damaged: the shapes of its tensors do not fit its columns", path=path)
        w1, b1, w2, b2, mean, deviation, *baseline = (tensors[name] for name in shapes)
    except KeyError as error:
        raise RunError(f"has no tensor {error.args[0]}; another version of twolayer wrote it", path=path) from None
    except DataError as error:
        raise RunError(str(error), path=path) from None
    return Predictor(columns, w1, b1, w2, b2, mean, deviation, Baseline(*baseline))


def forward(model: Predictor, x: Array) -> Tensor:
    """The network's output for standardised rows x (n, D_in): logits or standardised targets, (n, D_out) float64."""
    hidden = functional.linear(torch.from_numpy(x).to(model.w1.dtype), model.w1, model.b1).relu()  # (n, H)
    return functional.linear(hidden, model.w2, model.b2).double()


def predict(model: Predictor, x: Array) -> Tensor:
    """Predictions for standardised x (n, D_in): targets in their own units or probabilities, (n, D_out) float64."""
    return to_predictions(model, forward(model, x))


def to_predictions(model: Predictor, output: Tensor) -> Tensor:
    """A network's outputs (n, D_out) as targets in their own units, or as probabilities of the classes."""
    if model.columns.classes is not None:
        return output.softmax(1)
    return output * model.target_deviation + model.target_mean
