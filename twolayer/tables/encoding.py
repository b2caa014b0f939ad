"""Frames -> arrays of numbers, by an encoding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from twolayer.errors import DataError
from twolayer.tables import dates, notation
from twolayer.tables.features import Array, Encoding, Feature, Kind, Notation, safe_deviation
from twolayer.tables.labels import labels, named_by_number
from twolayer.tables.sources import MISSING

# Texts that stand for a missing value where all other cells of a column are numbers or dates, in lower case.
MARKS = frozenset(
    {"?", "-", "--", "---", ".", "..", "...", "*", "none", "null", "nil", "na", "n/a", "n.a.", "nan", "-nan", "+nan"}
    | {"nan(ind)", "-nan(ind)", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "unknown", "missing", "not available"}
    | {"#n/a", "#na", "#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"}
)

_PLAIN = frozenset(
    {pl.Boolean, pl.Float32, pl.Float64, pl.Int8, pl.Int16, pl.Int32, pl.Int64}
    | {pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64}
)  # types that numpy has, too


def encode(
    frame: pl.DataFrame, columns: Encoding, name: str, first_row: int = 1, gaps: Counter[str] | None = None
) -> Array:
    """x, standardised: (rows, D_in), float64. `name` and `first_row` are for the places in errors.

    A category that the model does not know becomes zeros; `unknown` counts those. `gaps` counts, by column, values that
    are missing though none was in training. Raises DataError if a column does not exist, or a cell is not a number or
    has no value.
    """
    x = unscaled(frame, columns, name, first_row, gaps)
    with np.errstate(over="ignore", invalid="ignore"):  # the caller checks for numbers that are not finite
        x -= columns.mean
        x /= safe_deviation(columns.mean, columns.deviation)
    return x


def unscaled(
    frame: pl.DataFrame, columns: Encoding, name: str, first_row: int = 1, gaps: Counter[str] | None = None
) -> Array:
    """The features before standardising, missing numbers filled: (rows, D_in), float64. Raises DataError."""
    require_columns(frame.columns, columns.inputs, name)
    x = np.zeros((frame.height, len(columns.features)))
    given = by_name(frame)
    there = given | _parsed(given, columns)
    at = 0
    has_marks = bool(numeric_marks(columns.na))
    rest = []
    for column, features in columns.groups:
        cells = there[column]
        plain = columns.kinds[column] in ("number", "boolean") and cells.dtype in _PLAIN and not has_marks
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
        place = Place(name, column, first_row)
        gap = _encode(given[column], columns, features, x[:, at : at + len(features)], place)
        if gap and gaps is not None:
            gaps[column] += gap
    return x


def _parsed(given: dict[str, pl.Series], columns: Encoding) -> dict[str, pl.Series]:
    """The columns of plain text in which every cell is a number, as numbers."""
    kinds = columns.kinds.items()
    plain = [name for name, kind in kinds if kind == "number" and columns.notation(name) is None]
    texts = [given[name] for name in plain if given[name].dtype == pl.String]
    parsed = (cells.cast(pl.Float64, strict=False) for cells in texts)  # expressions on 10,000 columns take seconds
    return {cells.name: cells for cells in parsed if not cells.null_count()}


def _encode(cells: pl.Series, columns: Encoding, features: tuple[Feature, ...], x: Array, where: Place) -> int:
    """Write the features of a column into x: (rows, number of features).

    Returns how many values are missing if none was in training, else 0.
    """
    kind = columns.kinds[where.column]
    if kind == "category":
        cells = text(cells, columns.na)
        code = _codes(cells, [f.category for f in features if f.category is not None])
        x[np.flatnonzero(code.is_not_null().to_numpy()), code.drop_nulls().to_numpy().astype(np.intp)] = 1
    elif kind == "date":
        cells = _dates(cells, columns, where)
        for j, feature in enumerate(features):
            if feature.part is not None:
                x[:, j] = dates.part_of(cells, feature.part)
                if feature.fill is not None:
                    np.nan_to_num(x[:, j], copy=False, nan=feature.fill)
    else:
        cells = as_numbers(cells, kind, columns, where)
        if kind == "boolean" and (odd := ~cells.is_in([0.0, 1.0]).fill_null(value=True)).any():
            raise DataError(f"{where.row(odd)} {cells[odd.arg_max() or 0]:g} is neither true (1) nor false (0)")
        fill = features[0].fill
        x[:, 0] = (cells if fill is None else cells.fill_null(fill)).to_numpy()
    if not cells.null_count():
        return 0
    if features[-1].kind == "missing":
        x[:, -1] = cells.is_null().to_numpy()
        return 0
    if columns.missing == "refuse":
        raise DataError(f"{where.row(cells.is_null())} has no value, and none was missing in training")
    return cells.null_count()


def _codes(cells: pl.Series, categories: Sequence[str]) -> pl.Series:
    """The number of each cell's category, by its text or by the number that it is (1 for 1.0, 01 for 1).

    It is null for a cell that has none.
    """
    kinds = pl.Enum(categories)
    code = cells.cast(kinds, strict=False).to_physical()
    if code.null_count() == cells.null_count():
        return code
    as_number = named_by_number(cells, categories).cast(kinds, strict=False).to_physical()
    return code.zip_with(code.is_not_null(), as_number)


@dataclass(frozen=True)
class Place:
    """The place of a column's cells in a file."""

    name: str
    column: str
    first_row: int = 1
    numbers: Array | None = None  # of the rows, if they are not consecutive

    def row(self, wrong: pl.Series) -> str:
        """The place of the first cell that is marked."""
        at = wrong.arg_max() or 0
        number = self.first_row + at if self.numbers is None else self.numbers[at]
        return f"{self.name}: row {number}, column {shown(self.column)}:"


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


def by_name(frame: pl.DataFrame) -> dict[str, pl.Series]:
    """The columns of a frame by their names. (`frame[...]` searches all names.)"""
    return {cells.name: cells for cells in frame.get_columns()}


def has_nan(cells: pl.Series) -> bool:
    """Whether floats have a NaN: their mean shows it, without a query of polars for each column."""
    mean = cells.mean()
    return mean is not None and mean != mean and bool(cells.is_nan().any())


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


def text(cells: pl.Series, na: Sequence[str] = ()) -> pl.Series:
    """The names of categories: text without blanks around it, `true`, `false`, or a number; null if missing."""
    if not isinstance(cells.dtype, (pl.String, pl.Categorical, pl.Enum)):
        return labels(cells)
    return cells.cast(pl.String).to_frame("cell").select(without_missing(pl.col("cell"), na)).to_series()


def without_missing(cell: pl.Expr, na: Sequence[str] = ()) -> pl.Expr:
    """Text without blanks around it; null for a missing value. `na` are further texts that stand for one."""
    inner = cell.str.strip_chars()
    return pl.when(~inner.is_in([*MISSING, *na])).then(inner)


def without_marks(cell: pl.Expr) -> pl.Expr:
    """Text of a column of numbers or dates; null for what stands for a missing value there."""
    return pl.when(~cell.str.to_lowercase().is_in(list(MARKS))).then(cell)


def numeric_marks(na: Sequence[str]) -> list[float]:
    """Those of the texts for a missing value that are numbers, such as -999."""
    found = pl.Series(na, dtype=pl.String).cast(pl.Float64, strict=False).drop_nulls().to_list()
    return [float(number) for number in found]


def without_numbers(cells: pl.Series, na: Sequence[str]) -> pl.Series:
    """Numbers; null for those that stand for a missing value."""
    marks = numeric_marks(na)
    return cells.set(cells.cast(pl.Float64).is_in(marks).fill_null(value=False), None) if marks else cells


def boolean(cell: pl.Expr) -> pl.Expr:
    """Stripped text, `false` or `true`, as 0 or 1; null for other text."""
    return cell.str.to_lowercase().replace_strict({"false": 0.0, "true": 1.0}, default=None, return_dtype=pl.Float64)


def as_numbers(cells: pl.Series, kind: Kind, columns: Encoding, where: Place) -> pl.Series:
    """The cells as float64, null if missing. Raises DataError for text and for infinity."""
    if cells.dtype in (pl.String, pl.Categorical, pl.Enum):
        frame = known_text(cells, columns)
        value = notation.parse(pl.col("cell"), columns.notation(where.column))
        if kind == "boolean":
            value = pl.coalesce(boolean(pl.col("cell")), value)
        found = _all_of(frame, value, where, "a number", columns.notation(where.column))
    elif cells.dtype.is_numeric() or cells.dtype in (pl.Boolean, pl.Null):
        found = cells.cast(pl.Float64)
    elif cells.dtype == pl.Duration:
        found = cells.dt.total_microseconds() / 1e6
    else:
        raise DataError(f"{where.name}: column {shown(where.column)} holds {cells.dtype}, not numbers")
    found = without_numbers(found.fill_nan(None), columns.na)
    if (infinite := found.is_infinite().fill_null(value=False)).any():
        raise DataError(f"{where.row(infinite)} is infinite")
    return found


def _dates(cells: pl.Series, columns: Encoding, where: Place) -> pl.Series:
    """The cells as Datetime, null if missing. Raises DataError for all that is no date."""
    if cells.dtype.is_temporal() and cells.dtype != pl.Duration:
        return dates.typed(cells)
    if cells.dtype == pl.Null:
        return cells.cast(pl.Datetime("us"))
    if cells.dtype != pl.String:
        raise DataError(f"{where.name}: column {shown(where.column)} holds {cells.dtype}, not dates")
    value = dates.parse(pl.col("cell"), columns.orders.get(where.column, "ymd"))
    return _all_of(known_text(cells, columns), value, where, "a date")


def known_text(cells: pl.Series, columns: Encoding) -> pl.DataFrame:
    """Text of numbers or dates, as the column `cell`; null for a missing value."""
    frame = cells.cast(pl.String).to_frame("cell")
    return frame.select(without_marks(without_missing(pl.col("cell"), columns.na)))


def _all_of(frame: pl.DataFrame, value: pl.Expr, where: Place, what: str, form: Notation | None = None) -> pl.Series:
    """The values of the cells. Raises DataError for a cell that has none."""
    found = frame.select(value).to_series()
    if found.null_count() > frame["cell"].null_count():
        wrong = found.is_null() & frame["cell"].is_not_null()
        cell = frame["cell"][wrong.arg_max() or 0]
        how = f"; in training, numbers of this column were like {form.example}" if form is not None else ""
        raise DataError(f"{where.row(wrong)} {cell[:40]!r} is not {what}{how}")
    return found


def unknown(frame: pl.DataFrame, columns: Encoding) -> dict[str, int]:
    """The number of cells with a category that the model does not know, for each text column that has any."""
    found = {}
    for column, kind in columns.kinds.items():
        if kind == "category" and column in frame.columns:
            known = [f.category for f in columns.features if f.column == column and f.category is not None]
            cells = text(frame[column], columns.na).drop_nulls()
            count = _codes(cells, known).null_count()
            if count:
                found[column] = count
    return found


def about_unknown(name: str, column: str, count: int) -> str:
    """A remark on the number of rows whose category the model does not know."""
    cells = "1 row has" if count == 1 else f"{count} rows have"
    what = f"column {shown(column)}: {cells} a category that the model does not know"
    return f"{name}: {what}; it is treated as no category"
