"""The columns of a table: which are inputs and targets, their types, and what keeps them from being trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from math import isfinite
from typing import TypeAlias

import polars as pl

from twolayer.errors import TableError, TableProblem
from twolayer.tables.encoding import boolean, labels, listed, number, shown, stripped, subject
from twolayer.tables.features import FLAT, Kind
from twolayer.tables.sources import Source

MAX_CATEGORIES = 1000
NEARLY_CONSTANT = f"nearly constant (varying by less than {FLAT:g} of its size); subtract a constant"
_FEW = 20  # rows; of so few rows each may have its own text
_SHOWN = 20  # problems
_PLURALS = {"is": "are", "holds": "hold", "looks": "look", "it": "them"}  # words of a reason, there in braces
_COMMA = r"^[+-]?\d*,\d+([eE][+-]?\d+)?$"
_WHOLE = r"^[+-]?\d+$"
_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"


Number: TypeAlias = int | float | Decimal


@dataclass(frozen=True)
class Survey:
    """A table's columns: `frame` (text of numbers converted), the kind of each input, and the classes of the target.

    `missing` are the columns with missing values. `problems` is what keeps the table from being trained
    on; `refused` are the columns that cannot be used at all.
    """

    frame: pl.DataFrame
    kinds: dict[str, Kind]
    targets: tuple[str, ...]
    classes: tuple[str, ...] | None
    missing: frozenset[str]
    refused: frozenset[str]
    problems: tuple[TableProblem, ...]


def select_columns(
    source: Source, target: Sequence[str], inputs: Sequence[str] | None, exclude: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The names of the input columns and of the target columns; the name of an array stands for all its columns.

    Raises TableError if a column does not exist or has two roles, or if no input is left.
    """
    there = set(source.names)
    problems = []

    def resolve(key: str, names: Sequence[str]) -> list[str]:
        found: list[str] = []
        for name in names:
            if name in there:
                found.append(name)
            elif name in source.groups:
                found += source.groups[name]
            else:
                problems.append(f"data.{key}: there is no column {name}{_nearest(name, source)}")
        return list(dict.fromkeys(found))

    targets, out = resolve("target", target), set(resolve("exclude", exclude))
    chosen = list(source.names) if inputs is None else resolve("inputs", inputs)
    if both := [name for name in targets if inputs is not None and name in chosen]:
        problems.append(f"data.inputs: {listed(both)} also the target")
    if both := [name for name in targets if name in out]:
        problems.append(f"data.exclude: {listed(both)} the target")
    if problems:
        raise TableError(source.name, problems)
    taken = [name for name in chosen if name not in out and name not in targets]
    if not taken:
        raise TableError(source.name, ["no column is left to predict from"])
    return taken, targets


def _nearest(name: str, source: Source) -> str:
    if close := get_close_matches(name, [*source.names, *source.groups], 1, 0.6):
        return f"; did you mean {close[0]}?"
    shown = ", ".join(source.names[:10])
    return f"; its columns are {shown}{' ...' if len(source.names) > 10 else ''}"


def check_columns(
    frame: pl.DataFrame,
    inputs: Sequence[str],
    targets: Sequence[str],
    *,
    missing: str = "refuse",
    loss: str | None = None,
    decimal: str = ".",
    typed: bool = False,
) -> Survey:
    """Check the columns. The text of a `typed` format stays text, even if all of it is numbers."""
    frame, kinds, refused = infer_types(frame, [*inputs, *targets], decimal, typed=typed)
    frame, spans = _spans(frame, [column for column in kinds if kinds[column] != "category"])
    gaps = {column: count for column, count in zip(frame.columns, frame.null_count().row(0), strict=True) if count}
    for column in kinds:
        if gaps.get(column) == frame.height:
            refused[column] = "{is} empty; put {it} in data.exclude"
        elif column in spans and not all(map(isfinite, spans[column])):
            row = 1 + (frame[column].cast(pl.Float64).is_infinite().arg_max() or 0)
            refused[column] = f"{{is}} infinite in row {row}"
        elif column not in gaps and _constant(frame[column], spans.get(column)):
            refused[column] = "{is} constant; put {it} in data.exclude"
        elif column in spans and column not in targets and _nearly_constant(*spans[column]):
            refused[column] = f"{{is}} {NEARLY_CONSTANT}"
    problems = _grouped({column: refused[column] for column in [*inputs, *targets] if column in refused}, targets)
    for column in [*inputs, *targets]:
        if column in gaps and column not in refused and (missing == "refuse" or column in targets):
            problems.append(_gap(frame[column], gaps[column], target=column in targets))
    classes = None
    if not any(column in refused for column in targets):
        classes = _classes(frame, kinds, targets, loss, problems)
    if classes is None:  # the numbers of classes may be nearly equal
        flat = {
            column: f"{{is}} {NEARLY_CONSTANT}"
            for column in targets
            if column in spans and column not in refused and _nearly_constant(*spans[column])
        }
        problems += _grouped(flat, targets)
        refused |= flat
    if len(problems) > _SHOWN:
        problems[_SHOWN:] = [TableProblem(f"and {len(problems) - _SHOWN} more such problems")]
    known = {column: kinds[column] for column in inputs if column in kinds}
    return Survey(
        frame, known, tuple(targets), classes, frozenset(gaps) & known.keys(), frozenset(refused), tuple(problems)
    )


def _grouped(refused: dict[str, str], targets: Sequence[str]) -> list[TableProblem]:
    """A problem for each reason, with all its columns; inputs can be excluded."""
    reasons: dict[str, list[str]] = {}
    for column, reason in refused.items():
        reasons.setdefault(reason, []).append(column)
    return [
        TableProblem(
            f"{subject(columns)} {_inflected(reason, len(columns))}",
            () if set(columns) & set(targets) else tuple(("data.exclude", column) for column in columns),
        )
        for reason, columns in reasons.items()
    ]


def _inflected(reason: str, columns: int) -> str:
    """The predicate of a sentence about one or several columns."""
    for singular, plural in _PLURALS.items():
        reason = reason.replace(f"{{{singular}}}", singular if columns == 1 else plural)
    return reason


def _gap(cells: pl.Series, count: int, *, target: bool) -> TableProblem:
    first = 1 + (cells.is_null().arg_max() or 0)
    kind, hint = ("target", "drop these rows") if target else ("column", "drop these rows, or set data.missing: mean")
    text = f"{kind} {shown(cells.name)} has no value in {count} of {len(cells)} rows, first in row {first}; {hint}"
    return TableProblem(text, () if target else (("data.missing", "mean"),))


def _constant(cells: pl.Series, span: tuple[Number, Number] | None) -> bool:
    return len(cells) > 1 and (span[0] == span[1] if span is not None else cells.n_unique() == 1)


def _nearly_constant(low: Number, high: Number) -> bool:
    """Whether two numbers differ, but by no more than rounding changes their mean and standard deviation."""
    size = max(abs(float(low)), abs(float(high)))
    return isfinite(size) and low != high and float(high) / 2 - float(low) / 2 <= FLAT * size / 2


def _spans(frame: pl.DataFrame, columns: list[str]) -> tuple[pl.DataFrame, dict[str, tuple[Number, Number]]]:
    """The frame with null for NaN, and min and max of the columns of numbers that are not empty.

    They have the columns' own types: whole numbers may differ where floats would be equal.
    """
    if not columns or not frame.height:
        return frame, {}
    schema = frame.schema
    floats = [column for column in columns if schema[column].is_float()]
    if floats:
        holes = frame.select(pl.col(floats).is_nan().any()).row(0, named=True)
        if holed := [column for column, hole in holes.items() if hole]:
            frame = frame.with_columns(pl.col(holed).fill_nan(None))
    values = pl.col(columns)
    lows, highs = (frame.select(bound).row(0) for bound in (values.min(), values.max()))
    ends = zip(columns, lows, highs, strict=True)
    return frame, {column: (low, high) for column, low, high in ends if low is not None}


# --- types


def infer_types(
    frame: pl.DataFrame, columns: Sequence[str], decimal: str, *, typed: bool
) -> tuple[pl.DataFrame, dict[str, Kind], dict[str, str]]:
    """The frame with text stripped, and converted if all of it is numbers; kinds; refused columns, and why."""
    kinds: dict[str, Kind] = {}
    refused: dict[str, str] = {}
    texts = []
    schema = frame.schema  # built again at every access
    for column in columns:
        dtype = schema[column]
        if dtype in (pl.String, pl.Categorical, pl.Enum):
            texts.append(column)
        elif dtype.is_numeric() or dtype == pl.Null:
            kinds[column] = "number"
        elif dtype == pl.Boolean:
            kinds[column] = "boolean"
        else:
            what = "dates or times" if dtype.is_temporal() else f"values of type {str(dtype).partition('(')[0]}"
            refused[column] = f"{{holds}} {what}; put {{it}} in data.exclude, or convert {{it}} to numbers"
    if not texts:
        return frame, kinds, refused
    frame = frame.with_columns(stripped(pl.col(texts).cast(pl.String)))
    parsed = [] if typed else frame.select(number(pl.col(texts), decimal).is_not_null().sum()).row(0)
    for column, numbers in zip(texts, parsed or [0] * len(texts), strict=True):
        cells = frame[column]
        filled = cells.len() - cells.null_count()
        distinct = cells.drop_nulls().unique().to_frame("cell") if numbers < filled else cells.head(0).to_frame("cell")
        if not filled:
            kinds[column] = "number"  # `check_columns` refuses it as empty
        elif numbers == filled:
            kinds[column] = "number"
            frame = frame.with_columns(number(pl.col(column), decimal))
        elif not typed and all(distinct.select(boolean(pl.col("cell")).is_not_null()).to_series()):
            kinds[column] = "boolean"
            frame = frame.with_columns(boolean(pl.col(column)).cast(pl.Boolean))
        elif reason := _unfit(cells, distinct.to_series(), numbers, filled, decimal, typed=typed):
            refused[column] = reason
        else:
            kinds[column] = "category"
    return frame, kinds, refused


def _unfit(cells: pl.Series, distinct: pl.Series, numbers: int, filled: int, decimal: str, *, typed: bool) -> str:
    """Why text cannot be categories; empty if it can."""
    whole = distinct.str.contains(_WHOLE)
    comma = distinct.str.contains(_COMMA)
    if decimal == "." and comma.any() and (whole | comma).all():
        return "{holds} numbers with commas; if they are decimal commas, set data.decimal to a comma, else remove them"
    if distinct.str.contains(_DATE).all():
        return "{holds} dates; put {it} in data.exclude, or convert {it} to numbers"
    if 2 * numbers > filled:
        wrong = (
            cells.is_not_null() & cells.to_frame("cell").select(number(pl.col("cell"), decimal).is_null()).to_series()
        )
        row = wrong.arg_max() or 0
        other = f"{filled - numbers} of {filled} values are not numbers"
        return f"{{looks}} numeric, but {other}; the first is {cells[row][:40]!r} in row {row + 1}"
    if filled > _FEW and 2 * len(distinct) > filled:
        return "{holds} text that differs in most rows; put {it} in data.exclude"
    if len(distinct) > MAX_CATEGORIES:
        many = f"{len(distinct)} different values, more than {MAX_CATEGORIES}"
        return f"{{holds}} text with {many}; put {{it}} in data.exclude"
    return ""


def _classes(
    frame: pl.DataFrame, kinds: dict[str, Kind], targets: Sequence[str], loss: str | None, problems: list[TableProblem]
) -> tuple[str, ...] | None:
    """The classes in order, or None if numbers are predicted; what is wrong is added to the problems."""
    named = [column for column in targets if kinds[column] == "category"]
    if loss is None:
        loss = "cross_entropy" if len(targets) == 1 and kinds[targets[0]] != "number" else "mse"
    if loss == "mse":
        if named:
            text = f"the target {listed(named)} text; to predict its classes, set loss: cross_entropy"
            problems.append(TableProblem(text, (("loss", "cross_entropy"),)))
        return None
    if len(targets) != 1:
        problems.append(TableProblem(f"loss: cross_entropy needs one target column, not {len(targets)}"))
        return None
    column = targets[0]
    names = labels(frame[column]).drop_nulls().unique(maintain_order=True).to_list()
    if kinds[column] == "number":
        if fractions := [name for name in names if not name.lstrip("-").isdecimal()]:
            problems.append(
                TableProblem(f"target {column}: classes must be text or whole numbers, and {fractions[0]} is neither")
            )
            return None
        names.sort(key=int)
    if len(names) > MAX_CATEGORIES:
        problems.append(TableProblem(f"target {column} has {len(names)} classes, more than {MAX_CATEGORIES}"))
    return tuple(names if kinds[column] == "number" else sorted(names))
