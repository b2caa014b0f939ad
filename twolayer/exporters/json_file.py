"""A model as JSON: every number with every digit, to be read by R, JavaScript, or people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from twolayer.exporters.network import Network, document
from twolayer.tables.features import Array

_TEXTS = {
    "x": "a feature is (value - mean) / deviation; 0 if the deviation is 0; a missing value is replaced by `fill`. The "
    "value of a category is 1 for that text, else 0; of `missing`, 1 where the column has no value, else 0; of a date, "
    "days since 1970-01-01 (part `elapsed`), or the sine or cosine of month, weekday or hour",
    "h": "max(0, `0.weight` x + `0.bias`)",
    "y": "`2.weight` h + `2.bias`",
    "prediction of a target": "y * deviation + mean",
    "probabilities of the classes": "exp(y) / sum(exp(y))",
}


def dump(network: Network) -> bytes:
    """The file. A weight of float32 is written as the float64 that equals it."""
    found = document(network)
    if network.columns is None:
        formulas = {name: _TEXTS[name] for name in ("h", "y")}
    else:
        last = "prediction of a target" if network.columns.classes is None else "probabilities of the classes"
        formulas = {name: _TEXTS[name] for name in ("x", "h", "y", last)}
    weights = {"0.weight": network.w1, "0.bias": network.b1, "2.weight": network.w2, "2.bias": network.b2}
    found |= {"formulas": formulas} | {name: tensor.tolist() for name, tensor in weights.items()}
    lines = ",\n".join(f"{json.dumps(key)}: {_value(value)}" for key, value in found.items())
    return f"{{\n{lines}\n}}\n".encode()


def _value(value: Any) -> str:
    """A value in one line, or, of lists and mappings that hold such, an item a line."""
    if isinstance(value, Mapping) and value:
        lines = ",\n  ".join(f"{json.dumps(key)}: {_line(item)}" for key, item in value.items())
        return f"{{\n  {lines}\n}}"
    if isinstance(value, Sequence) and value and isinstance(value[0], Sequence | Mapping) and value[0] != str(value[0]):
        return "[\n  " + ",\n  ".join(map(_line, value)) + "\n]"
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def predicted(data: bytes, values: Mapping[str, Array]) -> Array:
    """What the file predicts, by its formulas alone: (rows, D_out), float64, in the units of the targets.

    `values` are the columns, (rows,): float64 (NaN if missing), dates as days since 1970-01-01, or text ("" if
    missing); for random data `x` (rows, D_in).
    """
    model = json.loads(data)
    w1, b1, w2, b2 = (np.array(model[name], model["dtype"]) for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    x = _features(model, values) if "inputs" in model else values["x"]
    hidden = np.maximum(0, x.astype(model["dtype"]) @ w1.T + b1)
    y = (hidden @ w2.T + b2).astype(np.float64)
    if "inputs" not in model:
        return np.asarray(y)
    if model["classes"] is not None:
        powers = np.exp(y - y.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    mean, deviation = (np.array([target[key] for target in model["targets"]]) for key in ("mean", "deviation"))
    return np.asarray(y * deviation + mean)


def _features(model: Mapping[str, Any], values: Mapping[str, Array]) -> Array:
    """x, standardised: (rows, D_in), float64."""
    found = []
    for feature in model["features"]:
        cells = values[feature["column"]]
        if cells.dtype.kind == "f":
            gone = np.isnan(cells) | np.isin(cells, model["missing_numbers"])
        else:
            gone = np.isin(cells, model["missing"])
        if feature["kind"] == "missing":
            x = gone.astype(float)
        elif feature["kind"] == "category":
            x = (cells == feature["category"]).astype(float)
        else:
            x = _part(cells, feature["part"]) if feature["kind"] == "date" else cells
            x = np.where(gone, np.nan if feature["fill"] is None else feature["fill"], x)
        found.append((x - feature["mean"]) / feature["deviation"] if feature["deviation"] else np.zeros(len(cells)))
    return np.stack(found, axis=1)


def _part(days: Array, part: str) -> Array:
    """A part of dates, which are days since 1970-01-01 and NaN if missing: (rows,), float64."""
    unit, _, function = part.partition(" ")
    if unit == "elapsed":
        return days
    moment = np.round(np.nan_to_num(days) * 86_400e6).astype(np.int64).astype("datetime64[us]")
    day = moment.astype("datetime64[D]")
    turns = {
        "month": moment.astype("datetime64[M]").astype(np.int64) % 12 / 12,
        "weekday": (day.astype(np.int64) + 3) % 7 / 7,  # 1970-01-01 was a Thursday
        "hour": (moment - day).astype("timedelta64[m]").astype(np.int64) / (24 * 60),
    }[unit]
    found: Array = np.sin(2 * np.pi * turns) if function == "sin" else np.cos(2 * np.pi * turns)
    return np.where(np.isnan(days), np.nan, found)
