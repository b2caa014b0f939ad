"""A file, split and standardised, as arrays x and y."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from twolayer.errors import DataError, TableError
from twolayer.formatting import counted, size
from twolayer.system import available_memory
from twolayer.tables import splits
from twolayer.tables.encoding import about_unknown, encode, shown, unknown, unscaled
from twolayer.tables.features import Array, Encoding, safe_deviation
from twolayer.tables.fitting import fit_encoding
from twolayer.tables.options import FileData
from twolayer.tables.readers import collect
from twolayer.tables.reading import open_for_model, read_so, refuse_unused
from twolayer.tables.roles import resolved, select_columns
from twolayer.tables.sources import Source, open_table
from twolayer.tables.survey import Survey, check_columns
from twolayer.tables.target_encoding import encode_targets, with_targets

_BLOCK = 1 << 18  # numbers that are processed at a time: they fit into the cache
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Table:
    """Training data: x (N, D_in) and y (N, D_out), standardised; the rows held out; the number of rows of the file.

    `numbers` are those (from 1) of the training rows in the file. `notes` is what the user should know about it, a
    sentence each. `survey` is what the table was made of, if that is kept.
    """

    columns: Encoding
    x: Array
    y: Array
    x_validation: Array | None
    y_validation: Array | None
    rows: int
    numbers: Array
    notes: tuple[str, ...] = ()
    survey: Survey | None = None


def scan(path: Path | str, columns: Encoding | None = None, *, name: str | None = None) -> Source:
    """Open a table, to be read by `readers.batches`; "-" is a CSV on stdin.

    The columns of a CSV are all text, exactly as in the file, so that they can be written unchanged; `encode` converts
    them to numbers. Other formats keep their types. Raises DataError.
    """
    if columns is None:
        return open_table(path, name or str(path), text=True)
    return open_for_model(path, name or str(path), columns).source


def read(
    data: FileData,
    *,
    validation: float | str | None,
    seed: int,
    loss: str | None,
    dtype: str = "float32",
    keep_survey: bool = False,
) -> Table:
    """The file's columns as x and y in the dtype, standardised by means and standard deviations of the training rows.

    A `validation` in (0, 1) is the part of the rows to hold out, drawn with the seed, of classes by class; a path is
    another file. Text is one-hot encoded. If `loss` is None, classes are predicted if there is one target, of text or
    booleans. Raises DataError with everything that keeps the table from being trained on.
    """
    found = survey(data, loss=loss)
    part = validation if isinstance(validation, float) else None
    held = splits.validation_rows(found, part, seed, data.path, stratify=data.stratify)
    table = split(found, held, data, validation=validation, dtype=dtype)
    return replace(table, survey=found) if keep_survey else table


def survey(data: FileData, *, loss: str | None) -> Survey:
    """The file's columns, checked, with all its rows: what `split` makes a table of. Raises DataError as `read`."""
    named = [*data.target, *(data.inputs or ()), *data.exclude]
    source = open_table(
        data.path, data.path, separator=data.separator, decimal=data.decimal, header=data.header, sheet=data.sheet,
        named=named,
    )  # fmt: skip
    refuse_unused(source, data.model_dump(include={"header", "sheet"}))
    inputs, targets = select_columns(source, data)
    frame = collect(source, [*inputs, *targets])
    found = check_columns(
        frame, inputs, targets, data, loss=loss, categories=resolved(data.categories, source), first=source.names[0]
    )
    if found.problems:
        raise TableError(data.path, found.problems)
    return replace(found, notes=source.notes + found.notes, reading=source.reading)


def split(
    found: Survey, held: Array, data: FileData, *, validation: float | str | None, dtype: str = "float32"
) -> Table:
    """The table of a survey: encoded by the rows that are not `held`, a boolean for each row of `found.frame`.

    The held rows are its validation rows, unless `validation` is the path of another file. Raises DataError.
    """
    rows = found.frame.height
    numbers = found.numbers
    columns = read_so(fit_encoding(found, held, data), found.reading)
    notes, own = found.notes, numbers[~held]
    _check_memory(rows, columns, data.path, dtype)
    x, x_held = _split(found.frame, held, columns, data.path, dtype)
    y = scaled_targets(found.frame, columns, data.path, dtype, numbers)
    y, y_held = y[~held], y[held]
    if not data.scale:  # if scaled, no training row is further from 0 than the square root of their number
        _refuse_large(x, y, own, columns, data.path, scale=False)
    if isinstance(validation, str):
        frame, other = _other(validation, columns)
        notes += other
        there = with_targets(frame, columns)
        numbers = 1 + np.flatnonzero(there)
        x_held = _split(frame, np.ones(frame.height, dtype=bool), columns, validation, dtype)[1][there]
        y_held = scaled_targets(frame.filter(pl.Series(there)), columns, validation, dtype, numbers)
        _refuse_large(x_held, y_held, numbers, columns, validation, scale=bool(data.scale))
    else:
        _refuse_large(x_held, y_held, numbers[held], columns, data.path, scale=bool(data.scale))
    if validation is None:
        return Table(columns, x, y, None, None, rows, own, notes)
    return Table(columns, x, y, x_held, y_held, rows, own, notes + splits.notes(found, held))


def _check_memory(rows: int, columns: Encoding, name: str, dtype: str) -> None:
    """Raise DataError, with the columns that need most, if x and y do not fit into memory."""
    need = rows * (len(columns.features) + len(columns.classes or columns.targets)) * np.dtype(dtype).itemsize
    free = available_memory.available()
    if free is None or need <= free:
        return
    widest = sorted(columns.groups, key=lambda group: -len(group[1]))[:5]
    made = ", ".join(f"{shown(column)} {len(features)}" for column, features in widest)
    raise DataError(
        f"{name}: {rows} rows of {len(columns.features)} inputs need {size(need)} of memory, and {size(free)} is "
        f"available; most inputs are made of: {made}; put columns in data.exclude"
    )


def folds(
    found: Survey, count: int, repeats: int, data: FileData, *, validation: float | str | None, seed: int,
    dtype: str = "float32",
) -> Iterator[tuple[Table, Array, Array]]:  # fmt: skip
    """For each fold of each repeat a table of the rows of all other folds, and the fold's rows to test it with.

    The table is encoded by its own training rows alone, and has its own validation rows; x and y of the fold are as
    `encode` and `encode_targets` give them. Raises DataError if there are too few rows.
    """
    splits.check_folds(found, count, data)
    part = validation if isinstance(validation, float) else None
    for repeat in range(repeats):
        for tested in splits.folds(found, count, seed, repeat, data):
            rest = replace(found, frame=found.frame.filter(pl.Series(~tested)), rows=found.numbers[~tested])
            held = splits.validation_rows(rest, part, seed, data.path, stratify=data.stratify)
            table = split(rest, held, data, validation=validation, dtype=dtype)
            rows = found.frame.filter(pl.Series(tested))
            yield table, encode(rows, table.columns, data.path), encode_targets(rows, table.columns, data.path)


def _refuse_large(x: Array, y: Array, rows: Array, columns: Encoding, name: str, *, scale: bool) -> None:
    """Raise DataError, with the place in the file, if the square of a number overflows. `rows` are their numbers."""
    names = [feature.column for feature in columns.features], [target.column for target in columns.targets]
    for array, columns_of in zip((x, y), names, strict=True):
        limit = float(np.sqrt(np.finfo(array.dtype).max))
        if not array.size or (array.max() <= limit and array.min() >= -limit):
            continue
        row, column = np.argwhere(~(np.abs(array) <= limit))[0].tolist()
        place = f"{name}: row {rows[row]}, column {shown(columns_of[column])}: the number"
        if not scale:
            raise DataError(f"{place} is too large for {array.dtype}; set data.scale: true")
        raise DataError(f"{place} is too far from the training rows for {array.dtype}; drop the row")


def _other(path: str, columns: Encoding) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows of the validation file, for `encode`, and what to tell about them. Raises DataError."""
    needed = [*columns.inputs, *(target.column for target in columns.targets)]
    opened = open_for_model(path, path, columns, needed)
    frame = collect(opened.source, needed)
    if not frame.height:
        raise DataError(f"{path}: has no rows")
    notes = [about_unknown(path, column, count) for column, count in unknown(frame, columns).items()]
    if gone := int((~with_targets(frame, columns)).sum()):
        notes.append(f"{path}: {counted(gone, 'row')} of {frame.height} without a target: left out")
    if gone == frame.height:
        raise DataError(f"{path}: has no rows with a target")
    return frame, (*opened.remarks, *notes)


# --- the arrays


def _split(frame: pl.DataFrame, held: Array, columns: Encoding, name: str, dtype: str) -> tuple[Array, Array]:
    """X of the training rows and of those held out, in the dtype and the order of the file."""
    mean, deviation = columns.mean, safe_deviation(columns.mean, columns.deviation)
    out = int(held.sum())
    D_in = len(columns.features)
    x: Array = np.empty((frame.height - out, D_in), dtype)
    x_held: Array = np.empty((out, D_in), dtype)
    block = max(1 << 10, _BLOCK // D_in)
    before = np.concatenate([[0], np.cumsum(held)])  # the number of rows above each that are held out

    def work(start: int) -> None:
        end = min(start + block, frame.height)
        numbers = unscaled(frame.slice(start, block), columns, name, start + 1)
        mask, at, to = held[start:end], before[start], before[end]
        with np.errstate(over="ignore", invalid="ignore"):  # `read` checks for numbers that are too large
            numbers -= mean
            numbers /= deviation
            x[start - at : end - to] = numbers if at == to else numbers[~mask]
            x_held[at:to] = numbers[mask]

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(work, range(0, frame.height, block)):
            pass
    return x, x_held


def scaled_targets(frame: pl.DataFrame, columns: Encoding, name: str, dtype: str, numbers: Array) -> Array:
    """Y of these rows, standardised, (rows, D_out) in the dtype; `numbers` are theirs in the file. Raises DataError."""
    y = encode_targets(frame, columns, name, numbers=numbers)
    with np.errstate(over="ignore", invalid="ignore"):
        if columns.classes is None:
            y -= [target.mean for target in columns.targets]
            y /= [target.deviation for target in columns.targets]
        return y.astype(dtype)
