"""Frames -> arrays of numbers, by an encoding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from twolayer.errors import DataError
from twolayer.tables.features import Array, Encoding, Feature, Kind, safe_deviation
from twolayer.tables.sources import MISSING

_PLAIN = frozenset(
    {pl.Boolean, pl.Float32, pl.Float64, pl.Int8, pl.Int16, pl.Int32, pl.Int64}
    | {pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64}
)  # types that numpy has, too


def encode(frame: pl.DataFrame, columns: Encoding, name: str, first_row: int = 1) -> Array:
    """x, standardised: (rows, D_in), float64. `name` and `first_row` are for the places in errors.

    A category that the model does not know becomes zeros; `unknown` counts those. Raises DataError if a column does
    not exist, or a cell is not a number or has no value.
    """
    x = unscaled(frame, columns, name, first_row)
    with np.errstate(over="ignore", invalid="ignore"):  # the caller checks for numbers that are not finite
        x -= columns.mean
        x /= safe_deviation(columns.mean, columns.deviation)
    return x


def unscaled(frame: pl.DataFrame, columns: Encoding, name: str, first_row: int = 1) -> Array:
    """The features before standardising, missing numbers filled: (rows, D_in), float64. Raises DataError."""
    require_columns(frame.columns, columns.inputs, name)
    x = np.zeros((frame.height, len(columns.features)))
    given = dict(zip(frame.columns, frame.get_columns(), strict=True))  # frame[...] searches all names
    there = given | _parsed(given, columns)
    at = 0
    rest = []
    for column, features in columns.groups:
        cells = there[column]
        plain = columns.kinds[column] != "category" and cells.dtype in _PLAIN
        if plain and len(features) == 1 and not cells.null_count():
            x[:, at] = cells.to_numpy()
        else:
            rest.append((at, column, features))
        at += len(features)
    # Checking all numbers at once takes a tenth of the time of checking each column.
    if not np.isfinite(x).all():
        wrong = set(np.flatnonzero(~np.isfinite(x).all(axis=0)).tolist())
        rest += [(j, columns.features[j].column, (columns.features[j],)) for j in sorted(wrong)]
    for at, column, features in rest:
        _encode(given[column], columns, features, x[:, at : at + len(features)], Place(name, column, first_row))
    return x


def _parsed(given: dict[str, pl.Series], columns: Encoding) -> dict[str, pl.Series]:
    """The columns of text in which every cell is a number, as numbers."""
    if columns.decimal != ".":
        return {}
    texts = [given[c] for c, kind in columns.kinds.items() if kind == "number" and given[c].dtype == pl.String]
    parsed = (cells.cast(pl.Float64, strict=False) for cells in texts)  # expressions on 10,000 columns take seconds
    return {cells.name: cells for cells in parsed if not cells.null_count()}


def _encode(cells: pl.Series, columns: Encoding, features: tuple[Feature, ...], x: Array, where: Place) -> None:
    """Write the features of a column into x: (rows, number of features)."""
    if columns.kinds[where.column] == "category":
        cells = text(cells)
        code = cells.cast(pl.Enum([f.category for f in features if f.category is not None]), strict=False).to_physical()
        x[np.flatnonzero(code.is_not_null().to_numpy()), code.drop_nulls().to_numpy().astype(np.intp)] = 1
    else:
        cells = numbers(cells, columns.kinds[where.column], columns.decimal, where)
        fill = features[0].fill
        x[:, 0] = (cells if fill is None else cells.fill_null(fill)).to_numpy()
    if cells.null_count():
        if features[-1].kind != "missing":
            raise DataError(f"{where.row(cells.is_null())} has no value, and none was missing in training")
        x[:, -1] = cells.is_null().to_numpy()


@dataclass(frozen=True)
class Place:
    """The place of a column's cells in a file."""

    name: str
    column: str
    first_row: int = 1

    def row(self, wrong: pl.Series) -> str:
        """The place of the first cell that is marked."""
        return f"{self.name}: row {self.first_row + (wrong.arg_max() or 0)}, column {shown(self.column)}:"


def require_columns(columns: Iterable[str], inputs: Sequence[str], name: str, *, targets: Sequence[str] = ()) -> None:
    """Raise DataError if a table with these columns lacks some of the inputs, or of the targets."""
    there = set(columns)
    lacking = [column for column in inputs if column not in there]
    problems = [f"{listed(lacking)} missing, and the model needs {'it' if len(lacking) == 1 else 'them'}"]
    lost = [column for column in targets if column not in there]
    what = "the target" if len(targets) == 1 else "a target" if len(lost) == 1 else "targets"
    problems.append(f"{listed(lost)} missing: {what}, which predictions are compared with")
    if lacking or lost:
        found = (problem for problem, names in zip(problems, (lacking, lost), strict=True) if names)
        raise DataError(f"{name}: {'; '.join(found)}")


def listed(names: Sequence[str]) -> str:
    """Columns as the subject of a sentence, with the verb: `column a is`, `columns a, b are`."""
    return f"{subject(names)} {'is' if len(names) == 1 else 'are'}"


def subject(names: Sequence[str]) -> str:
    """Columns as the subject of a sentence: `column a`, `columns a, b`."""
    some = ", ".join(map(shown, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"column {some}" if len(names) == 1 else f"columns {some}"


def shown(column: str) -> str:
    """A column's name in a sentence: in quotes if it is blank."""
    return column if column.strip() else f'"{column}"'


def text(cells: pl.Series) -> pl.Series:
    """The cells as text, without blanks around it; null for a missing value."""
    return cells.cast(pl.String).to_frame("cell").select(stripped(pl.col("cell"))).to_series()


def stripped(cell: pl.Expr) -> pl.Expr:
    """The same, as an expression on text."""
    inner = cell.str.strip_chars()
    return pl.when(~inner.is_in(MISSING)).then(inner)


def number(cell: pl.Expr, decimal: str) -> pl.Expr:
    """Stripped text as float64; null if it is not a number."""
    if decimal == ",":  # a dot may separate thousands (1.234,5): not a number
        cell = cell.str.replace_all(".", "?", literal=True).str.replace(",", ".", literal=True)
    return cell.cast(pl.Float64, strict=False)


def boolean(cell: pl.Expr) -> pl.Expr:
    """Stripped text, `false` or `true`, as 0 or 1; null for other text."""
    return cell.str.to_lowercase().replace_strict({"false": 0.0, "true": 1.0}, default=None, return_dtype=pl.Float64)


def numbers(cells: pl.Series, kind: Kind, decimal: str, where: Place) -> pl.Series:
    """The cells as float64, null if missing. Raises DataError for text and for infinity."""
    if cells.dtype in (pl.String, pl.Categorical, pl.Enum):
        frame = text(cells).alias("cell").to_frame()
        value = number(pl.col("cell"), decimal)
        if kind == "boolean":
            value = pl.coalesce(boolean(pl.col("cell")), value)
        found = frame.select(value).to_series()
        if found.null_count() > frame["cell"].null_count():
            wrong = found.is_null() & frame["cell"].is_not_null()
            cell = frame["cell"][wrong.arg_max() or 0]
            raise DataError(f"{where.row(wrong)} {cell[:40]!r} is not a number")
    elif cells.dtype.is_numeric() or cells.dtype in (pl.Boolean, pl.Null):
        found = cells.cast(pl.Float64)
    else:
        raise DataError(f"{where.name}: column {shown(where.column)} holds {cells.dtype}, not numbers")
    found = found.fill_nan(None)
    if (infinite := found.is_infinite().fill_null(value=False)).any():
        raise DataError(f"{where.row(infinite)} is infinite")
    return found


def unknown(frame: pl.DataFrame, columns: Encoding) -> dict[str, int]:
    """The number of cells with a category that the model does not know, for each text column that has any."""
    found = {}
    for column, kind in columns.kinds.items():
        if kind == "category" and column in frame.columns:
            known = [feature.category for feature in columns.features if feature.column == column]
            count = int((~text(frame[column]).drop_nulls().is_in([c for c in known if c is not None])).sum())
            if count:
                found[column] = count
    return found


def encode_targets(frame: pl.DataFrame, columns: Encoding, name: str, first_row: int = 1) -> Array:
    """The targets: (rows, D_out), float64, numbers before standardising or one-hot classes. Raises DataError."""
    require_columns(frame.columns, (), name, targets=[target.column for target in columns.targets])
    if columns.classes is not None:
        return _one_hot(
            frame[columns.targets[0].column], columns.classes, Place(name, columns.targets[0].column, first_row)
        )
    y = np.empty((frame.height, len(columns.targets)))
    for j, target in enumerate(columns.targets):
        where = Place(name, target.column, first_row)
        cells = numbers(frame[target.column], "boolean", columns.decimal, where)
        if cells.null_count():
            raise DataError(f"{where.row(cells.is_null())} the target has no value")
        y[:, j] = cells.to_numpy()
    return y


def labels(cells: pl.Series) -> pl.Series:
    """The names of classes: text without blanks around it, `true`, `false`, or a number; null if missing."""
    if cells.dtype.is_float():
        whole = cells.fill_nan(None)
        return pl.select(
            pl.when(whole == whole.round(0))
            .then(pl.coalesce(whole.cast(pl.Int64, strict=False).cast(pl.String), whole.cast(pl.String)))
            .otherwise(whole.cast(pl.String))
        ).to_series()
    return text(cells)


def _one_hot(cells: pl.Series, classes: tuple[str, ...], where: Place) -> Array:
    found = labels(cells)
    # Text may write a class in another way than in training: True for true, 1.0 for 1.
    others = [found, found.str.to_lowercase()] if classes == ("false", "true") else [found]
    others.append(labels(found.cast(pl.Float64, strict=False)))
    frame = pl.DataFrame([other.cast(pl.Enum(classes), strict=False).alias(str(i)) for i, other in enumerate(others)])
    code = frame.select(pl.coalesce(pl.all()).to_physical()).to_series()
    if code.null_count():
        if found.null_count():
            raise DataError(f"{where.row(found.is_null())} the target has no value")
        cell = found[code.is_null().arg_max() or 0]
        raise DataError(f"{where.row(code.is_null())} {cell[:40]!r} is not a class that the model knows")
    y = np.zeros((cells.len(), len(classes)))
    y[np.arange(cells.len()), code.to_numpy()] = 1
    return y
