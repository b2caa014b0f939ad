"""A survey of a table's columns: what each is used as, what is left out, and what keeps it from being trained on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TypeAlias, cast

import numpy as np
import polars as pl

from twolayer.errors import TableProblem
from twolayer.tables import notes
from twolayer.tables.classes import class_names
from twolayer.tables.column_types import (
    Column,
    Span,
    decide,
    is_nearly_constant,
    is_row_number,
)
from twolayer.tables.encoding import by_name, has_nan, shown, subject, without_missing
from twolayer.tables.features import FLAT, Array, Kind, Notation, Order
from twolayer.tables.options import FileData
from twolayer.tables.sources import Reading

_FLAT = f"nearly constant (varying by less than {FLAT:g} of its size)"
NEARLY_CONSTANT = f"{_FLAT}; subtract a constant"
_SHOWN = 20  # problems
_EXCLUDE = "data.exclude"

Refusal: TypeAlias = tuple[str, str, str]  # why, the keys that decide, and the key that makes a training possible


@dataclass(frozen=True)
class Survey:
    """A table's columns: `frame` (text converted, without rows that have no target), and what they are used as.

    `kinds` are those of the inputs, `classes` those of the target, `missing` the inputs with missing values; `left_out`
    says of columns that are not used why not. `rows` are the numbers (from 1) in the file of the rows of `frame`, None
    if it has all of them. `problems` is what keeps the table from being trained on; `refused` are the columns that
    cannot be used at all. `notes` is what the user should know, a sentence each. `reading` says how the
    file was read.
    """

    frame: pl.DataFrame
    kinds: dict[str, Kind]
    targets: tuple[str, ...]
    classes: tuple[str, ...] | None
    missing: frozenset[str]
    refused: frozenset[str]
    problems: tuple[TableProblem, ...]
    columns: dict[str, Column] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    rows: Array | None = None
    notes: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)

    @property
    def numbers(self) -> Array:
        """The numbers (from 1) in the file of the rows of `frame`."""
        return np.arange(1, self.frame.height + 1) if self.rows is None else self.rows

    @property
    def notations(self) -> dict[str, Notation]:
        """The columns whose numbers are not plain."""
        return {name: column.notation for name, column in self.columns.items() if column.notation is not None}

    @property
    def orders(self) -> dict[str, Order]:
        """The columns of text that are dates."""
        return {name: column.order for name, column in self.columns.items() if column.order is not None}


def check_columns(
    frame: pl.DataFrame,
    inputs: Sequence[str],
    targets: Sequence[str],
    data: FileData,
    *,
    loss: str | None = None,
    categories: frozenset[str] = frozenset(),
    first: str | None = None,
) -> Survey:
    """Survey the columns of a frame with all rows of a file; `first` is the first column of the file.

    `categories` are columns that hold categories whatever they look like.
    """
    as_text = categories | (set(targets) if loss == "cross_entropy" and len(targets) == 1 else set())
    columns = read_columns(frame, [*inputs, *targets], data, as_text)
    frame = pl.DataFrame({name: column.cells for name, column in columns.items()})
    counting = {name for name in inputs if _counts_rows(columns[name], name, is_first=name == first)}
    frame, rows = _with_targets(frame, targets)
    frame, spans = _spans(frame, [n for n, column in columns.items() if column.kind == "number" and not column.refused])
    gaps = {name: count for name, count in zip(frame.columns, frame.null_count().row(0), strict=True) if count}
    useless, refused = _judged(columns, frame, spans, counting, rows, inputs, targets, named=data.inputs is not None)
    problems = _problems(inputs, targets, useless, refused, data)
    if data.missing == "refuse":
        taken = [name for name in inputs if name in gaps and name not in useless and name not in refused]
        problems += [_gap(frame[name], gaps[name], rows) for name in taken]
    if rows is not None and data.strict:
        problems.append(_dropped(targets, rows, len(columns[targets[0]].cells)))
    classes = None
    if not any(name in refused or name in useless for name in targets):
        classes = class_names(frame, columns, targets, loss, problems)
    if classes is None:  # the numbers of classes may be nearly equal
        flat = [n for n in targets if n in spans and n not in refused and is_nearly_constant(*spans[n])]
        problems += [TableProblem(f"target {shown(name)} is {NEARLY_CONSTANT}") for name in flat]
        refused |= dict.fromkeys(flat, (NEARLY_CONSTANT, "", ""))
    if len(problems) > _SHOWN:
        problems[_SHOWN:] = [TableProblem(f"and {len(problems) - _SHOWN} more such problems")]
    kinds = {name: columns[name].kind for name in inputs if name not in useless and name not in refused}
    found = Survey(
        frame, kinds, tuple(targets), classes, frozenset(gaps) & kinds.keys(), frozenset(refused), tuple(problems),
        columns, {name: useless[name] for name in inputs if name in useless}, rows,
    )  # fmt: skip
    return replace(found, notes=tuple(_notes(found, gaps, loss, data)))


def _notes(found: Survey, gaps: dict[str, int], loss: str | None, data: FileData) -> list[str]:
    columns, kinds, targets = found.columns, found.kinds, found.targets
    lines = notes.left_out(found.left_out) + notes.readings(columns, [*kinds, *targets])
    if data.missing == "mean":
        lines += notes.missing(found.frame, {name: gaps[name] for name in kinds if name in gaps})
    if found.rows is not None:
        lines.append(f"{_without_target(targets, found.rows, len(columns[targets[0]].cells))}: left out")
    if targets and len(kinds) > 1:
        lines += notes.row_numbers(found.frame, [name for name in kinds if columns[name].kind == "number"])
    return lines + (notes.targets(found.frame, targets, found.classes, loss) if not found.problems else [])


def read_columns(
    frame: pl.DataFrame, names: Sequence[str], data: FileData, as_categories: Collection[str] = ()
) -> dict[str, Column]:
    """What the columns are."""
    schema = frame.schema  # built again at every access
    texts = [name for name in names if schema[name] in (pl.String, pl.Categorical, pl.Enum)]
    if texts:
        frame = frame.with_columns(without_missing(pl.col(texts).cast(pl.String), data.na))
    given = by_name(frame)
    return {name: decide(given[name], data, as_categories=name in as_categories) for name in names}


# --- what cannot help


def _judged(
    columns: dict[str, Column],
    frame: pl.DataFrame,
    spans: dict[str, Span],
    counting: set[str],
    rows: Array | None,
    inputs: Sequence[str],
    targets: Sequence[str],
    *,
    named: bool,
) -> tuple[dict[str, str], dict[str, Refusal]]:
    """The columns that cannot help, and why, and those that are refused; inputs that are `named` need not help."""
    useless: dict[str, str] = {}
    refused: dict[str, Refusal] = {}
    given = by_name(frame)
    for name, column in columns.items():
        if name in spans and not all(map(isfinite, spans[name])):
            row = 1 + (given[name].cast(pl.Float64).is_infinite().arg_max() or 0)
            refused[name] = f"{{is}} infinite in row {row if rows is None else rows[row - 1]}", "", _EXCLUDE
        elif column.refused:
            refused[name] = column.refused, column.decide, column.fix
        elif why := _useless(column, given[name], spans.get(name), is_counting=name in counting):
            if not (named and name in inputs):
                useless[name] = why
            elif not column.usable:
                refused[name] = f"{why}, which cannot be used", "", _EXCLUDE
        elif name in spans and name not in targets and is_nearly_constant(*spans[name]):
            refused[name] = f"{{is}} {_FLAT}", "subtract a constant", _EXCLUDE
    if all(name in useless or name in refused for name in inputs):  # a row number is better than nothing
        useless = {name: why for name, why in useless.items() if name not in counting}
    return useless, refused


def _useless(column: Column, cells: pl.Series, span: Span | None, *, is_counting: bool) -> str:
    """Why a column cannot help; empty if it can."""
    if column.useless:
        return column.useless
    if cells.null_count() == len(cells):
        return "{is} empty" if len(cells) else ""
    if not cells.null_count() and len(cells) > 1 and (span[0] == span[1] if span else cells.n_unique() == 1):
        return "{is} constant"
    return "{counts} the rows" if is_counting else ""


def _counts_rows(column: Column, name: str, *, is_first: bool) -> bool:
    is_plain = column.kind == "number" and not column.refused
    return is_plain and is_row_number(column.cells.alias(name), is_first=is_first)


def _with_targets(frame: pl.DataFrame, targets: Sequence[str]) -> tuple[pl.DataFrame, Array | None]:
    """The rows whose targets have values, unless none has, and their numbers from 1; None if these are all."""
    values = [cells.fill_nan(None) if cells.dtype.is_float() else cells for cells in map(frame.get_column, targets)]
    gaps = [cells.is_null() for cells in values if 0 < cells.null_count() < len(cells)]
    if not gaps:
        return frame, None
    kept = (
        ~pl.DataFrame([gap.alias(str(i)) for i, gap in enumerate(gaps)]).select(pl.any_horizontal(pl.all())).to_series()
    )
    return frame.filter(kept), 1 + np.flatnonzero(kept.to_numpy())


def _spans(frame: pl.DataFrame, columns: list[str]) -> tuple[pl.DataFrame, dict[str, Span]]:
    """The frame with null for NaN, and min and max of the columns of numbers that are not empty.

    They have the columns' own types: whole numbers may differ where floats would be equal. Each column is asked
    itself, because a query of 10,000 expressions takes as long as all else.
    """
    if not columns or not frame.height:
        return frame, {}
    schema = frame.schema
    floats = [column for column in columns if schema[column].is_float()]
    given = by_name(frame)
    if holed := [column for column in floats if has_nan(given[column])]:
        frame = frame.with_columns(pl.col(holed).fill_nan(None))
        given = by_name(frame)
    ends = {column: (given[column].min(), given[column].max()) for column in columns}
    return frame, {column: cast(Span, pair) for column, pair in ends.items() if pair[0] is not None}


# --- problems


def _problems(
    inputs: Sequence[str],
    targets: Sequence[str],
    useless: dict[str, str],
    refused: dict[str, Refusal],
    data: FileData,
) -> list[TableProblem]:
    """A sentence for each reason, with all its columns."""
    reasons: dict[Refusal, list[str]] = {}
    for name in inputs:
        if name in refused:
            reasons.setdefault(refused[name], []).append(name)
        elif name in useless and data.strict:
            reasons.setdefault((useless[name], "", _EXCLUDE), []).append(name)
    found = [_of_columns(names, *refusal) for refusal, names in reasons.items()]
    if not data.strict and not found and all(name in useless for name in inputs):
        why = "; ".join(f"{subject([name])} {notes.inflected(why, 1)}" for name, why in list(useless.items())[:_SHOWN])
        found.append(TableProblem(f"no column is left to predict from: {why}"))
    for name in targets:
        if name in refused:
            text = "; ".join(notes.inflected(part, 1) for part in refused[name][:2] if part)
            is_category = refused[name][2] == "data.categories"
            found.append(
                TableProblem(f"target {shown(name)} {text}", (("loss", "cross_entropy"),) if is_category else ())
            )
        elif name in useless:
            text = f"{notes.inflected(useless[name], 1)}: it cannot be predicted"
            found.append(TableProblem(f"target {shown(name)} {text}"))
    return found


def _of_columns(names: Sequence[str], why: str, ways: str, fix: str) -> TableProblem:
    ways = f"{ways}, or" if ways else ""
    text = f"{subject(names)} {why}; {ways} put {{it}} in data.exclude".replace(";  ", "; ")
    return TableProblem(notes.inflected(text, len(names)), tuple((fix, name) for name in names))


def _gap(cells: pl.Series, count: int, rows: Array | None) -> TableProblem:
    first = cells.is_null().arg_max() or 0
    text = f"column {shown(cells.name)} has no value in {count} of {len(cells)} rows, first in row "
    text += f"{first + 1 if rows is None else rows[first]}; drop these rows, or set data.missing: mean"
    return TableProblem(text, (("data.missing", "mean"),))


def _dropped(targets: Sequence[str], rows: Array, total: int) -> TableProblem:
    text = f"{_without_target(targets, rows, total)}; drop them, or set data.strict: false"
    return TableProblem(text, (("data.strict", "false"),))


def _without_target(targets: Sequence[str], rows: Array, total: int) -> str:
    first = int(np.setdiff1d(np.arange(1, total + 1), rows, assume_unique=True)[0])
    return notes.without_target(targets, rows, total, first)
