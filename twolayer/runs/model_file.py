"""The weights of a saved network as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from twolayer.errors import DataError, RunError
from twolayer.files import open_regular, unreadable
from twolayer.runs.checksum import digest, read_tensors, unseal
from twolayer.runs.run_files import CONFIG, MODEL, check_files, is_own_model
from twolayer.runs.saved_run import SavedRun
from twolayer.system.console import shell_words
from twolayer.tables.features import Encoding

TENSORS = ("0.weight", "0.bias", "2.weight", "2.bias")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Layer:
    """A linear layer: weight (outputs, inputs) and bias (outputs,), in the training's dtype.

    `inputs` and `outputs` are their names in the table, empty without a table.
    """

    weight: Array
    bias: Array
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelFile:
    """The two linear layers of a network after `iterations` iterations or epochs, -1 where the file does not say."""

    first: Layer
    second: Layer
    iterations: int


def read(run: SavedRun) -> ModelFile | None:
    """The model of a run, None where it has none yet. Raises RunError where it is missing, damaged or another run's."""
    path = run.path / MODEL
    try:
        with open_regular(path) as file:
            data = read_tensors(file)
        metadata = unseal(data)
        tensors = safetensors.numpy.load(data)
    except FileNotFoundError:
        if run.status in ("completed", "diverged"):
            raise RunError("is missing", path=path) from None
        return None
    except OSError as error:
        raise RunError(unreadable(error), path=path) from None
    except (SafetensorError, KeyError):  # KeyError: a dtype that numpy does not have
        raise RunError("is not a safetensors file, or is damaged", path=path) from None
    except ValueError as error:
        raise RunError(str(error), path=path) from None
    if not is_own_model(run.path, run.info, digest(data)):
        return None
    if missing := [name for name in TENSORS if name not in tensors]:
        raise RunError(f"has no tensor {missing[0]}", path=path)
    w1, b1, w2, b2 = (tensors[name] for name in TENSORS)
    are_layers = (w1.ndim, w2.ndim) == (2, 2) and w1.size and w2.size
    are_layers = are_layers and (w1.shape[:1], w2.shape[:1], w2.shape[1:]) == (b1.shape, b2.shape, b1.shape)
    if not are_layers or any(tensors[name].dtype.kind != "f" for name in TENSORS):
        raise RunError("its tensors are not those of two layers", path=path)
    sizes = {"D_in": w1.shape[1], "H": len(b1), "D_out": len(b2)}
    if any(run.values.get(key, size) != size for key, size in sizes.items()):
        raise RunError(f"its shapes are not those in {run.path / CONFIG}", path=path)
    inputs, outputs = _names(metadata.get("columns"))
    iterations = str(metadata.get("iteration"))
    return ModelFile(
        Layer(w1, b1, inputs=inputs if len(inputs) == sizes["D_in"] else ()),
        Layer(w2, b2, outputs=outputs if len(outputs) == sizes["D_out"] else ()),
        int(iterations) if iterations.isdecimal() and len(iterations) < 20 else -1,
    )


@dataclass(frozen=True)
class OpenedModel:
    """A model file that is whole: its bytes and the metadata in it.

    `path` is the file's, `info` the content of the `run.json` beside it, empty for a file that was named alone.
    """

    path: Path
    data: bytes
    metadata: Mapping[str, Any]
    info: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file."""
        return digest(self.data)

    @property
    def columns(self) -> Encoding | None:
        """The encoding of the table's columns; None for random data. Raises RunError where it is damaged."""
        if "columns" not in self.metadata:
            return None
        try:
            return Encoding.of(self.metadata["columns"])
        except DataError as error:
            raise RunError(str(error), path=self.path) from None


def open_model(path: Path) -> OpenedModel:
    """The model of a run folder, verified by the run's checksums, or a model file alone, verified by its own.

    Raises RunError where there is none, or it is damaged, or another run's.
    """
    info, file = (check_files(path), path / MODEL) if path.is_dir() else ({}, path)
    status = info.get("status")
    again = f"resume it with: twolayer train --resume {shell_words([str(path)])}"
    try:
        with open_regular(file if info else file.resolve()) as opened:
            data = read_tensors(opened)
        metadata = unseal(data)
    except FileNotFoundError:
        if not info or status in ("completed", "diverged"):
            raise RunError("is missing", path=file) from None
        how = "its training was interrupted" if status == "interrupted" else "its training has not ended"
        raise RunError(f"has no model yet: {how}", path=path, hint=again) from None
    except OSError as error:
        raise RunError(unreadable(error), path=file) from None
    except ValueError as error:
        raise RunError(str(error), path=file) from None
    if info and not is_own_model(path, info, digest(data)):
        raise RunError("its training has not ended", path=path, hint=again)
    return OpenedModel(file, data, metadata, info)


def encoding_of(path: Path) -> Encoding:
    """The encoding of the columns of a model (see `open_model`). Raises RunError where it has none."""
    columns = open_model(path).columns
    if columns is None:
        raise RunError("was trained on random data, not on a table", path=path, usage=True)
    return columns


def _names(columns: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of inputs and outputs in a model's `columns`, as far as they are there."""
    if not isinstance(columns, Mapping):
        return (), ()
    classes = columns.get("classes")
    outputs = tuple(map(str, classes)) if isinstance(classes, list) else _each(columns.get("targets"), "column")
    return _each(columns.get("features"), "name"), outputs


def _each(items: Any, key: str) -> tuple[str, ...]:
    return tuple(str(item.get(key)) for item in items if isinstance(item, Mapping)) if isinstance(items, list) else ()


def figures(array: Array) -> tuple[float, float, float, float]:
    """Minimum, maximum, mean and standard deviation, in float64."""
    with np.errstate(all="ignore"):  # weights may be inf, or near the end of the range
        values = array.astype(np.float64)
        return float(values.min()), float(values.max()), float(values.mean()), float(values.std())
