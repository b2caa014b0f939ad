"""A table in chunks, encoded for a model, with its predictions."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from twolayer.errors import DataError
from twolayer.evaluation.predictor import Array, Predictor, load_model, predict
from twolayer.evaluation.scores import Scores
from twolayer.tables import readers
from twolayer.tables.dataset import scan
from twolayer.tables.encoding import encode, encode_targets, require_columns, shown, unknown
from twolayer.tables.features import Encoding
from twolayer.tables.panics import without_panics
from twolayer.tables.sources import Source

_MOST_ROWS, _MOST_NUMBERS = 8192, 2**23  # in memory at a time


@dataclass(frozen=True)
class Rows:
    """A table's columns, to be read a chunk at a time; what a model does not know of it is counted in `unknown`."""

    name: str
    source: Source
    schema: pl.Schema
    unknown: Counter[str]

    def chunks(self, model: Predictor) -> Iterator[tuple[int, pl.DataFrame, Array]]:
        """The number of the first row (from 1), the rows as they are, and their x."""
        widest = max(len(self.schema), *model.w1.shape)
        size = max(256, min(_MOST_ROWS, _MOST_NUMBERS // widest))
        first = 1
        for frame in readers.batches(self.source, list(self.schema), size):
            if frame.height:
                x = encode(frame, model.columns, self.name, first)
                self.unknown.update(unknown(frame, model.columns))
                yield first, frame, x
                first += frame.height

    def remarks(self) -> list[str]:
        """What the model does not know of the rows that were read, a line for each column."""
        found = []
        for column, count in self.unknown.items():
            cells = "1 row has" if count == 1 else f"{count} rows have"
            what = f"column {shown(column)}: {cells} a category that the model does not know"
            found.append(f"{self.name}: {what}; it counts for nothing")
        return found


@contextmanager
def table(data: str, columns: Encoding, needed: tuple[str, ...], *, whole: bool) -> Iterator[Rows]:
    """The columns of a file, or with "-" of what comes on stdin: all, or those that are needed. Raises DataError."""
    with tempfile.TemporaryDirectory(prefix="twolayer-") as folder, without_panics():
        name, path = (data, Path(data)) if data != "-" else ("stdin", _spooled(Path(folder)))
        source = scan(path, columns, name=name)
        require_columns(source.names, needed, name)
        schema = source.frame.collect_schema()
        chosen = source.names if whole else needed
        rows = Rows(name, source, pl.Schema({column: schema[column] for column in chosen}), Counter())
        yield rows


def scored(run: Path, data: str) -> tuple[Scores, list[str]]:
    """How good a run's model is on a table, and what the model does not know of that, a line for each column."""
    model = load_model(run)
    columns, scores = model.columns, Scores(model)
    targets = tuple(target.column for target in columns.targets)
    with table(data, columns, (*columns.inputs, *targets), whole=False) as rows:
        for first, frame, x in rows.chunks(model):
            scores.add(x, encode_targets(frame, columns, rows.name, first))
    if not scores.rows:
        raise DataError(f"{rows.name}: has no rows")
    return scores, rows.remarks()


def predictions(model: Predictor, rows: Rows) -> tuple[pl.Schema, Iterator[pl.DataFrame], Counter[str]]:
    """The rows with their predictions, a chunk at a time, and the schema of those.

    The counter has, once they are read, how many predictions of a column are no finite numbers. Raises DataError.
    """
    added = _added(model.columns, rows)
    odd = Counter[str]()
    return pl.Schema({**rows.schema, **added}), _predicted(model, rows, added, odd), odd


def _spooled(folder: Path) -> Path:
    """What comes on stdin, as a file: a table is looked at before it is read. NDJSON begins with a brace."""
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


def _added(columns: Encoding, rows: Rows) -> dict[str, pl.DataType]:
    """The columns of the predictions. Raises DataError where the table has one of that name."""
    added: dict[str, pl.DataType] = {
        f"{target.column}_predicted": pl.Float64() if columns.classes is None else pl.String()
        for target in columns.targets
    }
    for name in columns.classes or ():
        added[f"{columns.targets[0].column}_p_{name}"] = pl.Float64()
    if taken := [name for name in added if name in rows.schema]:
        raise DataError(f"{rows.name}: has a column {taken[0]} already, which is to hold predictions; rename it")
    return added


def _predicted(
    model: Predictor, rows: Rows, added: dict[str, pl.DataType], odd: Counter[str]
) -> Iterator[pl.DataFrame]:
    """The rows with their predictions, a chunk at a time; `odd` counts those that are no finite numbers."""
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
