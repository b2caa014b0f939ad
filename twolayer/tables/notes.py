"""What the user should know about a table that can be trained on: what is left out, read otherwise, or replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from twolayer.formatting import counted
from twolayer.tables.column_types import Column, rises_by_one
from twolayer.tables.encoding import by_name, shown
from twolayer.tables.features import Array

_PLURALS = {
    "is": "are",
    "holds": "hold",
    "looks": "look",
    "has": "have",
    "differs": "differ",
    "counts": "count",
    "it": "them",
}
_SHOWN = 6  # columns of a note
_FIRST = 1000  # rows of a target that are looked at before all are
_FEW_NUMBERS = 10  # a target of so few whole numbers may be meant as classes


def left_out(reasons: Mapping[str, str]) -> list[str]:
    """Inputs that cannot help, by why not."""
    if not reasons:
        return []
    same: dict[str, list[str]] = {}
    for name, why in reasons.items():
        same.setdefault(why, []).append(name)
    parts = [f"{_some(names)} ({inflected(why, len(names))})" for why, names in same.items()]
    return [f"left out: {', '.join(parts)}; to use one, name it in data.inputs"]


def readings(columns: Mapping[str, Column], used: Sequence[str]) -> list[str]:
    """Text that is read as numbers, as dates or as codes, each column with an example."""
    found = []
    for what, keys in (("number", "data.thousands, data.decimal"), ("date", "data.date_order")):
        read = [name for name in used if columns[name].kind == what and columns[name].example]
        if read:
            some = [f'{shown(name)} ("{columns[name].example}" is {columns[name].value})' for name in read[:_SHOWN]]
            more = f" and {len(read) - _SHOWN} more" if len(read) > _SHOWN else ""
            found.append(f"read as {what}s: {', '.join(some)}{more}; to change that: {keys} or data.categories")
    return found + _codes(columns, used)


def _codes(columns: Mapping[str, Column], used: Sequence[str]) -> list[str]:
    """Text of digits that is kept as it is, each column with an example."""
    read = [name for name in used if columns[name].code]
    if not read:
        return []
    some = [f'{shown(name)} ("{columns[name].example}": {columns[name].code})' for name in read[:_SHOWN]]
    more = f" and {len(read) - _SHOWN} more" if len(read) > _SHOWN else ""
    are_digits = any(columns[name].example.isdecimal() for name in read)
    change = "; to read digits as numbers: data.numbers" if are_digits else ""
    return [f"read as categories: {', '.join(some)}{more}{change}"]


def missing(frame: pl.DataFrame, gaps: Mapping[str, int]) -> list[str]:
    """Missing values of inputs, which are replaced."""
    if not gaps:
        return []
    some = ", ".join(f"{shown(name)} {count}" for name, count in list(gaps.items())[:_SHOWN])
    more = f" and {len(gaps) - _SHOWN} more columns" if len(gaps) > _SHOWN else ""
    how = "they become the mean, marked in a column of 0 and 1; to refuse them: data.missing"
    return [f"missing values: {some}{more} of {counted(frame.height, 'row')}; {how}"]


def targets(frame: pl.DataFrame, names: Sequence[str], classes: Sequence[str] | None, loss: str | None) -> list[str]:
    """A target of few whole numbers, which may be meant as classes."""
    if classes is not None or loss is not None or len(names) != 1:
        return []
    cells = frame[names[0]].drop_nulls()
    if cells.head(_FIRST).n_unique() > _FEW_NUMBERS:  # more rows have no fewer
        return []
    distinct = cells.unique().cast(pl.Float64)
    if not 1 < len(distinct) <= _FEW_NUMBERS or 3 * len(distinct) > len(cells) or (distinct != distinct.round(0)).any():
        return []
    what = f"target {shown(names[0])}: its {len(distinct)} whole numbers are predicted as a quantity"
    return [f"{what}; to predict classes, set loss: cross_entropy"]


def row_numbers(frame: pl.DataFrame, used: Sequence[str]) -> list[str]:
    """Inputs that rise by one from row to row."""
    given = by_name(frame)
    rising = [name for name in used if rises_by_one(given[name])]
    if not rising:
        return []
    verb = "rises" if len(rising) == 1 else "rise"
    return [f"{_some(rising)} {verb} by one from row to row; if that only counts the rows, put it in data.exclude"]


def without_target(names: Sequence[str], rows: Array, total: int, first: int) -> str:
    """The rows that have no target; `rows` are those that have one."""
    gone = counted(total - len(rows), "row")
    return f"{gone} of {total} without a target ({', '.join(map(shown, names))}), first row {first}"


def inflected(reason: str, columns: int) -> str:
    """The predicate of a sentence about one or several columns; the words to change are in braces."""
    for singular, plural in _PLURALS.items():
        reason = reason.replace(f"{{{singular}}}", singular if columns == 1 else plural)
    return reason


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(shown, names[:_SHOWN])) + more
