"""Exports a run: makes the file, tries it on rows whose predictions are known, and writes it."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import torch

from twolayer.errors import RunError
from twolayer.evaluation.predictor import layers, load_model, predict
from twolayer.exporters import card, json_file, sample, script
from twolayer.exporters.network import Network, load
from twolayer.files import named, replacing
from twolayer.formatting import flag
from twolayer.tables.encoding import encode
from twolayer.tables.features import Array

ENDINGS = (".onnx", ".json", ".py", ".md")
ROWS = 100  # that a file is tried on
# How far a prediction may be from that of `predict`, as a part of the sizes of all terms that are added up for it.
_TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@dataclass(frozen=True)
class Exported:
    """A file that was written: its size in bytes, and how its predictions differ from those of `predict`.

    `difference` is the largest one on `rows` rows, in the `unit`; `reader` is what made the predictions of the file.
    A card predicts nothing: `rows` is 0. `notes` are sentences for the user.
    """

    size: int
    rows: int = 0
    difference: float = 0.0
    unit: str = ""
    reader: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """Rows with their predictions: the columns (see `sample.rows`), or x (rows, D_in) as `x`; y (rows, D_out).

    y is in standard deviations of the targets, or probabilities. `sizes` (rows, D_out) are those of all terms that are
    added up for y.
    """

    values: dict[str, Array]
    y: Array
    sizes: Array


def check_name(path: Path) -> None:
    """Raise RunError where the name's suffix is not one of ENDINGS."""
    if path.suffix.lower() not in ENDINGS:
        raise RunError(f"its name must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}", path=path, usage=True)


def export(run: Path, path: Path, *, force: bool = False) -> Exported:
    """Write the model of a run folder, or of a model file, as a file of the kind that the suffix names.

    It is tried before it gets its name: one that predicts anything else than `predict` is never there. Raises
    RunError, and DataError if a library is missing.
    """
    check_name(path)
    check_free(path, force=force)
    network = load(run)
    suffix = path.suffix.lower()
    if suffix == ".md":
        text, notes = card.dump(run, network)
        _write(path, text)
        return Exported(len(text), notes=tuple(notes))
    known = known_rows(run, network)
    if suffix == ".onnx":
        from twolayer.exporters import onnx_file

        data = onnx_file.dump(network, path)
        found, reader = onnx_file.predicted(data, network, known.values, path)
    elif suffix == ".json":
        data, reader = json_file.dump(network), "its formulas, in numpy"
        found = json_file.predicted(data, known.values)
    else:
        data, reader = script.dump(network), "numpy alone"
        found = _run_script(path, data, network, known.values)
    difference = _compared(path, network, known, _scaled(network, found))
    _write(path, data)
    return Exported(len(data), ROWS, difference, _unit(network), reader)


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def check_free(path: Path, *, force: bool) -> None:
    """Raise RunError where a file is there already, unless with `force`, or something that is no file."""
    if os.path.lexists(path) and not path.is_file():
        raise RunError("exists and is not a file", path=path, hint="choose another name", usage=True)
    if path.exists() and not force:
        raise RunError("already exists", path=path, hint=f"{flag('force')} overwrites it", usage=True)


def known_rows(run: Path, network: Network) -> Known:
    """Rows made from the columns alone, with what `predict` makes of them."""
    columns = network.columns
    if columns is None:
        x: Array = np.random.default_rng(0).normal(size=(ROWS, network.shape[0])).astype(network.dtype)
        weights = (torch.from_numpy(array) for array in (network.w1, network.b1, network.w2, network.b2))
        return Known({"x": x}, layers(x, *weights).numpy(), _sizes(network, x))
    values = sample.rows(columns, ROWS)
    x = encode(pl.DataFrame(sample.as_text(values, columns)), columns, "the rows to try the file with")
    return Known(values, _scaled(network, predict(load_model(run), x).numpy()), _sizes(network, x))


def _sizes(network: Network, x: Array) -> Array:
    """The sizes of all terms that are added up for the outputs, (rows, D_out)."""
    w1, b1, w2, b2 = (np.abs(array.astype(np.float64)) for array in (network.w1, network.b1, network.w2, network.b2))
    return np.asarray((np.abs(x) @ w1.T + b1) @ w2.T + b2)


def _scaled(network: Network, y: Array) -> Array:
    """Predictions in standard deviations of the targets; probabilities and outputs as they are."""
    columns = network.columns
    if columns is None or columns.classes is not None:
        return y
    mean, deviation = (np.array([getattr(t, key) for t in columns.targets]) for key in ("mean", "deviation"))
    return np.asarray((y - mean) / deviation)


def _unit(network: Network) -> str:
    """The unit of differences, to be shown after a number."""
    columns = network.columns
    if columns is None or columns.classes is not None:
        return "" if columns is None else " in a probability"
    scaled = any((target.mean, target.deviation) != (0, 1) for target in columns.targets)
    return f" standard deviations of {'a' if len(columns.targets) > 1 else 'the'} target" if scaled else ""


def _compared(path: Path, network: Network, known: Known, found: Array) -> float:
    """The largest difference between predictions. Raises RunError where rounding does not explain it."""
    if found.shape != known.y.shape:
        raise RunError("predicts other columns or rows than `predict`, and was not written", path=path)
    difference = np.abs(found - known.y)
    if not (difference <= _TOLERANCE[network.dtype] * (1 + known.sizes)).all():  # False also for NaN
        largest = f"{np.nanmax(difference, initial=0):.2g}"
        raise RunError(f"its predictions differ from those of `predict` by {largest}; it was not written", path=path)
    return float(difference.max(initial=0))


def _run_script(path: Path, data: bytes, network: Network, values: dict[str, Array]) -> Array:
    """What a predict.py predicts in a process of its own: targets or probabilities, (rows, D_out) float64."""
    columns, text = network.columns, io.StringIO()
    separator = "," if columns is None else script.separator(columns)
    writer = csv.writer(text, delimiter=separator, quoting=csv.QUOTE_NONNUMERIC)  # blanks separate only behind quotes
    if columns is None:
        writer.writerows(values["x"].tolist())
    else:
        cells = sample.as_text(values, columns)
        writer.writerow(cells)
        writer.writerows(zip(*cells.values(), strict=True))
    with TemporaryDirectory(prefix="twolayer-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "predict.py"
        with named(copy):
            copy.write_bytes(data)
        command = [sys.executable, str(copy), "-"]
        done = subprocess.run(command, input=text.getvalue().encode(), capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise RunError(f"does not run, and was not written: {last}", path=path)
    lines = list(csv.reader(io.StringIO(done.stdout.decode(), newline="")))
    if columns is None:
        return np.array(lines, np.float64)
    D_out = network.shape[2]
    try:
        return np.array([line[-D_out:] for line in lines[1:]], np.float64)
    except ValueError:  # also where a row has fewer cells
        raise RunError("gives something else than numbers, and was not written", path=path) from None
