"""A table in chunks, encoded for a model, with its predictions."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from twolayer.errors import DataError
from twolayer.evaluation.predictor import Array, Predictor, predict
from twolayer.formatting import counted
from twolayer.tables import readers
from twolayer.tables.encoding import about_unknown, encode, shown, unknown
from twolayer.tables.features import Encoding
from twolayer.tables.panics import without_panics
from twolayer.tables.reading import open_for_model
from twolayer.tables.sources import Source

_MAX_ROWS, _MAX_NUMBERS = 8192, 2**23  # in memory at a time


@dataclass(frozen=True)
class EncodedTable:
    """A table, read in chunks; `unknown` counts by column the rows whose category the model does not know.

    `gaps` counts by column the values that are missing though none was in training.

    `columns` is the model's encoding, for the way in which this table is read; `odd` says where that is another than
    in training, a sentence each.
    """

    name: str
    source: Source
    schema: pl.Schema
    unknown: Counter[str]
    columns: Encoding
    odd: tuple[str, ...] = ()
    gaps: Counter[str] = field(default_factory=Counter)

    def chunks(self, model: Predictor) -> Iterator[tuple[int, pl.DataFrame, Array]]:
        """For each chunk the number of its first row (from 1), its rows as they are, and x (n, D_in) standardised."""
        widest = max(len(self.schema), *model.w1.shape)
        size = max(256, min(_MAX_ROWS, _MAX_NUMBERS // widest))
        first = 1
        for frame in readers.batches(self.source, list(self.schema), size):
            if frame.height:
                x = encode(frame, self.columns, self.name, first, self.gaps)
                self.unknown.update(unknown(frame, self.columns))
                yield first, frame, x
                first += frame.height

    def remarks(self) -> list[str]:
        """What to know about the rows read so far, a line each: how they are read, and their unknown categories."""
        gaps = (
            f"{self.name}: column {shown(column)}: {counted(count, 'row')} without a value, and none was missing in "
            "training; the mean is used"
            for column, count in self.gaps.items()
        )
        strange = (about_unknown(self.name, column, count) for column, count in self.unknown.items())
        return [*self.odd, *gaps, *strange]


@contextmanager
def table(
    data: str, columns: Encoding, needed: tuple[str, ...], *, whole: bool, given: Mapping[str, Any] | None = None
) -> Iterator[EncodedTable]:
    """The table in a file, or with "-" on stdin: with `whole` all columns, else those needed. Raises DataError.

    It is read as in training or, if that does not fit, in another way (see `open_for_model`), but for what is `given`.
    """
    with tempfile.TemporaryDirectory(prefix="twolayer-", ignore_cleanup_errors=True) as folder, without_panics():
        name, path = (data, Path(data)) if data != "-" else ("stdin", _copy_of_stdin(Path(folder)))
        opened = open_for_model(path, name, columns, needed, given)
        source = opened.source
        schema = source.frame.collect_schema()
        chosen = source.names if whole else needed
        chosen_schema = pl.Schema({column: schema[column] for column in chosen})
        yield EncodedTable(name, source, chosen_schema, Counter(), opened.columns, (*source.notes, *opened.remarks))


def predictions(model: Predictor, rows: EncodedTable) -> tuple[pl.Schema, Iterator[pl.DataFrame], Counter[str]]:
    """The schema of the rows with their predictions, these rows in chunks, and a counter.

    Once the rows are read, the counter has the number of predictions that are not finite, by column. Raises DataError.
    """
    added = _prediction_columns(model.columns, rows)
    odd = Counter[str]()
    return pl.Schema({**rows.schema, **added}), _with_predictions(model, rows, added, odd), odd


def _copy_of_stdin(folder: Path) -> Path:
    """Stdin copied to a file, because a table is read twice. NDJSON is recognised by its first character, a brace."""
    if sys.stdin is None:  # closed by the shell (<&-)
        raise DataError("stdin: is closed")
    try:
        start = sys.stdin.buffer.read(1)
        path = folder / ("stdin.ndjson" if start == b"{" else "stdin.csv")
        with path.open("wb") as file:
            file.write(start)
            shutil.copyfileobj(sys.stdin.buffer, file, 2**20)
    except OSError as error:
        raise DataError(f"stdin: cannot be kept for reading: {error.strerror or error}") from None
    return path


def _prediction_columns(columns: Encoding, rows: EncodedTable) -> dict[str, pl.DataType]:
    """The columns of the predictions. Raises DataError where the table has a column of the same name."""
    added: dict[str, pl.DataType] = {
        f"{target.column}_predicted": pl.Float64() if columns.classes is None else pl.String()
        for target in columns.targets
    }
    for name in columns.classes or ():
        added[f"{columns.targets[0].column}_p_{name}"] = pl.Float64()
    if taken := [name for name in added if name in rows.schema]:
        raise DataError(f"{rows.name}: already has a column {taken[0]}, the name of a column of predictions; rename it")
    return added


def _with_predictions(
    model: Predictor, rows: EncodedTable, added: dict[str, pl.DataType], odd: Counter[str]
) -> Iterator[pl.DataFrame]:
    """The rows with their predictions, in chunks; `odd` counts the predictions that are not finite."""
    for _, frame, x in rows.chunks(model):
        found = predict(model, x).numpy()  # (n, D_out)
        values = list(found.T)
        if model.columns.classes is not None:
            values.insert(0, [model.columns.classes[k] for k in found.argmax(1)])
        series = [pl.Series(name, value, dtype) for (name, dtype), value in zip(added.items(), values, strict=True)]
        odd.update(
            {s.name: int((~s.is_finite()).sum()) for s in series if s.dtype.is_float() and not s.is_finite().all()}
        )
        yield frame.with_columns(series)
