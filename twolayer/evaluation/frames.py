"""Predictions for a frame, of polars or pandas."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from typing import Any, TypeVar

import polars as pl

from twolayer.errors import DataError
from twolayer.evaluation.encoded_rows import EncodedTable, predictions
from twolayer.evaluation.predictor import Predictor
from twolayer.formatting import counted
from twolayer.tables.encoding import require_columns
from twolayer.tables.sources import Source

Frame = TypeVar("Frame")

_NAME = "frame"  # in messages


def predict_frame(model: Predictor, frame: Frame) -> Frame:
    """The predictions for the rows of a frame in raw units, as a frame of the same kind, with a row for each.

    The columns are those that `twolayer predict` adds: `<target>_predicted` in the target's own units; for classes
    the class, and in `<target>_p_<class>` its probability. Inputs are found by the names of their columns; all others
    are ignored. A frame of pandas keeps its index. Categories that the model does not know, and values that are missing
    though none was in training, are warned of. Raises DataError where a column is missing or a cell cannot be read.
    """
    given = _inputs(frame, model.columns.inputs)
    rows = EncodedTable(
        _NAME, Source(_NAME, given.lazy(), tuple(given.columns)), given.schema, Counter(), model.columns
    )
    schema, parts, odd = predictions(model, rows)
    added = [name for name in schema if name not in given.schema]
    found = pl.concat([pl.DataFrame(schema=schema), *parts]).select(added)
    strange = (f"{_NAME}: {name} is not finite in {counted(count, 'row')}" for name, count in odd.items())
    for remark in (*rows.remarks(), *strange):
        warnings.warn(remark, stacklevel=3)
    if isinstance(frame, pl.DataFrame):
        return found  # type: ignore[return-value]  # mypy does not narrow a TypeVar
    columns = {cells.name: cells.to_list() for cells in found}
    return sys.modules["pandas"].DataFrame(columns, index=frame.index)  # type: ignore[attr-defined, no-any-return]


def _inputs(frame: Any, inputs: tuple[str, ...]) -> pl.DataFrame:
    """The columns that the model takes. Raises DataError."""
    if isinstance(frame, pl.DataFrame):
        require_columns(frame.columns, inputs, _NAME)
        return frame.select(inputs)
    pandas = sys.modules.get("pandas")  # whoever gives a frame of it has imported it
    if pandas is None or not isinstance(frame, pandas.DataFrame):
        hint = "; collect() it" if isinstance(frame, pl.LazyFrame) else ""
        raise DataError(f"needs a frame of polars or pandas, not {type(frame).__name__}{hint}")
    names = [str(name) for name in frame.columns]
    require_columns(names, inputs, _NAME)
    if twice := [name for name in inputs if names.count(name) > 1]:
        raise DataError(f"{_NAME}: has several columns {twice[0]}")
    return pl.DataFrame([_series(name, frame.iloc[:, names.index(name)]) for name in inputs])


def _series(name: str, cells: Any) -> pl.Series:
    """A column of pandas, without pyarrow, which `polars.from_pandas` needs."""
    if getattr(cells.dtype, "tz", None) is not None:
        cells = cells.dt.tz_convert("UTC").dt.tz_localize(None)
    values = cells.to_numpy()
    if values.dtype.kind in "biuf":
        return pl.Series(name, values)
    if values.dtype.kind == "M":
        return pl.Series(name, values.astype("datetime64[us]"))
    gone = cells.isna().tolist()
    return pl.Series(
        name, [None if no else value for value, no in zip(cells.tolist(), gone, strict=True)], strict=False
    )
