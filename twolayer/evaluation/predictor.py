"""A trained network put to use: what its file holds, what it predicts, and how good that is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from twolayer.errors import DataError, RunError
from twolayer.evaluation.baselines import Baseline
from twolayer.files import open_regular
from twolayer.runs.checkpoint import unpack
from twolayer.runs.checksum import digest, read_tensors
from twolayer.runs.folder import MODEL, check_files

if TYPE_CHECKING:
    from twolayer.tables.features import Columns


MODELS = ("network", "linear", "constant")

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
    """The model of a run folder (see `folder.find`). Raises RunError where there is none, or it is damaged."""
    info, path = check_files(run), run / MODEL
    status = info.get("status")
    again = f"go on with it by: twolayer train --resume {shlex.quote(str(run))}"
    try:
        with open_regular(path) as file:
            data = read_tensors(file)
        tensors, metadata = unpack(data)
    except FileNotFoundError:
        if status in ("completed", "diverged"):
            raise RunError(f"{path}: is missing") from None
        how = "its training was interrupted" if status == "interrupted" else "its training has not come to its end"
        raise RunError(f"{run}: has no model yet, as {how}; {again}") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    if info.get("model_sha256", digest(data) if info["format"] == 1 else None) != digest(data):
        if status == "running":  # killed in the instant before run.json was written
            raise RunError(f"{run}: its training has not come to its end; {again}")
        raise RunError(f"{path}: is not the model of this run, or was changed")
    if "columns" not in metadata:
        raise RunError(f"{run}: was not trained on a table, but on data that were drawn", usage=True)
    return _model(path, tensors, metadata["columns"])


def _model(path: Path, tensors: Mapping[str, Tensor], document: Any) -> Model:
    from twolayer.tables.features import Columns

    try:
        columns = Columns.of(document)
        D_in, D_out = len(columns.features), len(columns.classes or columns.targets)
        H = len(tensors["0.bias"])
        shapes = {"0.weight": (H, D_in), "0.bias": (H,), "2.weight": (D_out, H), "2.bias": (D_out,)}
        shapes |= {"targets.mean": (D_out,), "targets.deviation": (D_out,)}
        shapes |= {"linear.weight": (D_out, D_in), "linear.bias": (D_out,), "constant": (D_out,)}
        if any(tensors[name].shape != shape for name, shape in shapes.items()):
            raise RunError(f"{path}: is damaged: its tensors do not have the shapes of its columns")
        w1, b1, w2, b2, mean, deviation, *baseline = (tensors[name] for name in shapes)
    except KeyError as error:
        raise RunError(f"{path}: lacks the tensor {error.args[0]}; it is of another twolayer") from None
    except DataError as error:
        raise RunError(f"{path}: {error}") from None
    return Model(columns, w1, b1, w2, b2, mean, deviation, Baseline(*baseline))


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


class Scores:
    """How good the network, the linear model and the constant are, added up over chunks of rows.

    The network and the linear model are judged by what they give on the same standardised inputs; the constant is the
    training rows' mean, or their frequencies of the classes. `rows` counts what was added.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.rows = model, 0
        outputs = len(model.target_mean)
        self._squares = np.zeros((len(MODELS), outputs))  # of the errors, in the targets' own units
        self._sizes = np.zeros((len(MODELS), outputs))
        self._losses = np.zeros(len(MODELS))
        self._right = np.zeros(len(MODELS), dtype=np.int64)
        self._first = self._mean = self._moment = np.zeros(outputs)  # of the targets, as Chan et al. (1983) merge them
        self.confusion = np.zeros((outputs, outputs), dtype=np.int64)  # true classes by predicted ones

    def add(self, x: Array, y: Array) -> None:
        """Count rows in: x (n, D_in) standardised, y (n, D_out) targets in their own units, or one-hot."""
        if not len(x):
            return
        targets, baseline = torch.from_numpy(y), self.model.baseline
        outputs = (
            forward(self.model, x),
            functional.linear(torch.from_numpy(x), baseline.weight, baseline.bias),
            baseline.constant.expand_as(targets),
        )
        with np.errstate(over="ignore", invalid="ignore"):  # a model may overflow: the figures say so
            if self.model.columns.classes is None:
                self._add_targets(outputs, targets)
            else:
                self._add_classes(outputs, targets)
        self.rows += len(x)

    def _add_targets(self, outputs: Sequence[Tensor], targets: Tensor) -> None:
        for number, output in enumerate(outputs):
            errors = (finished(self.model, output) - targets).numpy()
            self._squares[number] += np.square(errors).sum(0)
            self._sizes[number] += np.abs(errors).sum(0)
        if not self.rows:
            self._first = targets[0].numpy()
        values = targets.numpy() - self._first  # so that a constant is one to the last bit
        mean, total = values.mean(0), self.rows + len(values)
        self._moment = (
            self._moment
            + np.square(values - mean).sum(0)
            + np.square(mean - self._mean) * (self.rows * len(values) / total)
        )
        self._mean = self._mean + (mean - self._mean) * (len(values) / total)

    def _add_classes(self, outputs: Sequence[Tensor], targets: Tensor) -> None:
        network, linear, constant = outputs
        smallest = torch.finfo(torch.float64).eps  # a class that the training rows had not is not impossible
        logs = (network.log_softmax(1), linear.log_softmax(1), constant.clamp(min=smallest).log())
        true = targets.argmax(1)
        for number, log in enumerate(logs):
            self._losses[number] -= float(log.gather(1, true[:, None]).sum())
            self._right[number] += int((log.argmax(1) == true).sum())
        classes = len(self.confusion)
        pairs = torch.bincount(true * classes + network.argmax(1), minlength=classes**2)
        self.confusion += pairs.reshape(classes, classes).numpy()

    def table(self) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Names and rows of the figures.

        Of classes: accuracy and log loss. Of targets: the loss, which is the mean squared error in the training's
        units, and R2, RMSE and MAE in the target's own, for each; of several, the loss over all comes first. R2 is None
        where a target has one value only.
        """
        if self.model.columns.classes is not None:
            rows = zip(MODELS, (self._right / self.rows).tolist(), (self._losses / self.rows).tolist(), strict=True)
            return ("model", "accuracy", "log loss"), list(rows)
        means = self._squares / self.rows
        scaled = means / self.model.target_deviation.numpy() ** 2
        found: list[tuple[Any, ...]] = []
        if len(self._first) > 1:
            found = [(None, name, float(scaled[n].mean()), None, None, None) for n, name in enumerate(MODELS)]
        for k, target in enumerate(self.model.columns.targets):
            for n, name in enumerate(MODELS):
                with np.errstate(over="ignore", invalid="ignore"):
                    determined = 1 - self._squares[n, k] / self._moment[k] if self._moment[k] > 0 else None
                figures = (scaled[n, k], determined, np.sqrt(means[n, k]), self._sizes[n, k] / self.rows)
                found.append((target.column, name, *(None if f is None else float(f) for f in figures)))
        return ("target", "model", "loss", "R2", "RMSE", "MAE"), found
