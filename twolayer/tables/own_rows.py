"""Some rows of a table, encoded: what a process reads of a file that several train on together.

Parquet, Arrow, npy and safetensors files are read from the first of these rows to the last; all others from their
start, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from twolayer.errors import DataError
from twolayer.files import unreadable
from twolayer.formatting import counted
from twolayer.tables import array_files
from twolayer.tables.dataset import scaled_targets
from twolayer.tables.encoding import encode
from twolayer.tables.features import Array, Encoding
from twolayer.tables.file_checks import check_size
from twolayer.tables.readers import batches
from twolayer.tables.reading import open_for_model

_ROWS, _BLOCK = 2**10, 2**20  # what is read at a time: at least 2^10 rows, and otherwise 2^20 features
_SLICED = (".npy", ".safetensors")  # arrays of which some rows can be read


def read_rows(
    path: str, columns: Encoding, numbers: Array, inputs: slice = slice(None), dtype: str = "float32"
) -> tuple[Array, Array]:
    """x, of these inputs, and y of the rows with these numbers (ascending, from 1), as `dataset.read` has them.

    The shapes are (rows, inputs) and (rows, D_out). Raises DataError.
    """
    D_in, D_out = len(columns.features), len(columns.classes or columns.targets)
    x: Array = np.empty((len(numbers), len(range(D_in)[inputs])), dtype)
    y: Array = np.empty((len(numbers), D_out), dtype)
    if not len(numbers):
        return x, y
    at = 0
    for first, frame in _frames(path, columns, int(numbers[0]), int(numbers[-1]), max(_ROWS, _BLOCK // D_in)):
        end = at + int(np.searchsorted(numbers[at:], first + frame.height))
        rows = frame[numbers[at:end] - first]
        with np.errstate(over="ignore", invalid="ignore"):  # the first process has checked all rows
            x[at:end] = encode(rows, columns, path, first)[:, inputs]
        y[at:end] = scaled_targets(rows, columns, path, dtype, numbers[at:end])
        if (at := end) == len(numbers):
            return x, y
    raise DataError(f"{path}: has {counted(len(numbers) - at, 'row')} less than the file of rank 0")


def _frames(path: str, columns: Encoding, first: int, last: int, size: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows from `first` to `last`, some at a time, each with the number of its first one; there may be others."""
    needed = [*columns.inputs, *(target.column for target in columns.targets)]
    if (suffix := Path(path).suffix.lower()) in _SLICED:
        try:
            arrays = array_files.frames(Path(path), suffix, lambda need: check_size(need, path), slice(first - 1, last))
        except (ValueError, OSError) as error:
            raise DataError(f"{path}: {unreadable(error)}") from None
        frame = pl.concat(arrays.values(), how="horizontal").select(needed)
        yield from ((first + start, frame[start : start + size]) for start in range(0, frame.height, size))
        return
    source = open_for_model(path, path, columns, needed).source
    if source.binary is None:
        first = 1
    else:
        source = replace(source, frame=source.frame.slice(first - 1, last - first + 1))
    for frame in batches(source, needed, size):
        yield first, frame
        first += frame.height
