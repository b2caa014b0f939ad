"""A trained network in numpy, with all that it takes to use it; and the document that exported files hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from twolayer.errors import RunError
from twolayer.runs.model_file import TENSORS, open_model
from twolayer.tables.encoding import MARKS, numeric_marks
from twolayer.tables.features import Array, Encoding, Feature, safe_deviation
from twolayer.tables.sources import MISSING
from twolayer.version import __version__

FORMAT = 1  # of the document; files with a newer one may lack keys of this one


@dataclass(frozen=True)
class Network:
    """w1 (H, D_in), b1 (H,), w2 (D_out, H), b2 (D_out,) in the training's dtype.

    `columns` says how a table becomes x, None for random data. `sha256` is that of the model file.
    """

    w1: Array
    b1: Array
    w2: Array
    b2: Array
    columns: Encoding | None
    sha256: str

    @property
    def dtype(self) -> str:
        """`float32` or `float64`."""
        return self.w1.dtype.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """D_in, H and D_out."""
        return int(self.w1.shape[1]), len(self.b1), len(self.b2)


def load(path: Path) -> Network:
    """The network of a run folder, or of a model file.

    Raises RunError where there is none, or it is damaged, or its training diverged.
    """
    opened = open_model(path)
    if opened.info.get("status") == "diverged":
        raise RunError("its training diverged", path=path, hint="train it with a smaller lr, and export that run")
    columns = opened.columns
    try:
        tensors = safetensors.numpy.load(opened.data)
        w1, b1, w2, b2 = (tensors[name] for name in TENSORS)
    except (SafetensorError, KeyError):  # KeyError: also a dtype that numpy does not have
        raise RunError("does not hold the tensors of two layers", path=opened.path) from None
    found = Network(w1, b1, w2, b2, columns, opened.sha256)
    layers = (w1.ndim, w2.ndim) == (2, 2) and (w1.shape[:1], w2.shape) == (b1.shape, (*b2.shape, *b1.shape))
    if columns is not None and layers:
        layers = found.shape[::2] == (len(columns.features), len(columns.classes or columns.targets))
    if not layers or found.dtype not in ("float32", "float64"):
        raise RunError("is damaged: the shapes of its tensors do not fit", path=opened.path)
    if not all(np.isfinite(tensor).all() for tensor in (w1, b1, w2, b2)):
        raise RunError("its weights are not finite numbers", path=opened.path)
    return found


def may_be_missing(columns: Encoding, features: tuple[Feature, ...]) -> bool:
    """Whether values of the column with these features may be missing."""
    return columns.missing == "mean" or features[-1].kind == "missing"


def deviations(columns: Encoding) -> Array:
    """What the features are divided by, (D_in,): infinite for one that was constant in training, so that 0 results."""
    return safe_deviation(columns.mean, columns.deviation)


def document(network: Network) -> dict[str, Any]:
    """All of a network but its weights, as JSON can hold it. The same for equal models."""
    columns = network.columns
    head = {
        "format": FORMAT,
        "twolayer": __version__,
        "sha256": network.sha256,
        "dtype": network.dtype,
        **dict(zip(("D_in", "H", "D_out"), network.shape, strict=True)),
    }
    if columns is None:
        return head
    spread = deviations(columns)
    return head | {
        "inputs": [
            {
                "column": column,
                "kind": columns.kinds[column],
                "notation": _notation(columns, column),
                "dates": columns.orders.get(column, "ymd") if columns.kinds[column] == "date" else None,
                "may_be_missing": may_be_missing(columns, features),
            }
            for column, features in columns.groups
        ],
        "features": [
            asdict(feature) | {"deviation": feature.deviation if np.isfinite(divisor) else 0.0}
            for feature, divisor in zip(columns.features, spread, strict=True)
        ],
        "targets": [asdict(target) | {"notation": _notation(columns, target.column)} for target in columns.targets],
        "classes": None if columns.classes is None else list(columns.classes),
        "missing": [*dict.fromkeys((*MISSING, *columns.na))],
        "missing_numbers": numeric_marks(columns.na),
        "missing_in_numbers": sorted(MARKS),
    }


def _notation(columns: Encoding, column: str) -> dict[str, str] | None:
    """How the numbers of a column of text are written; None if they are plain, or it has none."""
    found = columns.notation(column) if columns.kinds.get(column, "number") in ("number", "boolean") else None
    return None if found is None else asdict(found)
