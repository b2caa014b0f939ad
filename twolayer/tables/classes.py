"""The classes of a target."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import polars as pl

from twolayer.errors import TableProblem
from twolayer.tables.column_types import MAX_CATEGORIES, Column
from twolayer.tables.encoding import listed, shown
from twolayer.tables.labels import labels


def class_names(
    frame: pl.DataFrame,
    columns: dict[str, Column],
    targets: Sequence[str],
    loss: str | None,
    problems: list[TableProblem],
) -> tuple[str, ...] | None:
    """The classes in order, or None if numbers are predicted; what is wrong is added to the problems."""
    if dated := [name for name in targets if columns[name].kind == "date"]:
        problems.append(
            TableProblem(f"the target {listed(dated)} dates; convert them to numbers, such as days since a day")
        )
        return None
    named = [name for name in targets if columns[name].kind == "category"]
    if loss is None:
        loss = "cross_entropy" if len(targets) == 1 and columns[targets[0]].kind != "number" else "mse"
    if loss == "mse":
        if named:
            classes = (("loss", "cross_entropy"),) if len(targets) == 1 else ()
            text = f"the target {listed(named)} text; to predict its classes, set loss: cross_entropy"
            problems.append(TableProblem(text, classes))
        return None
    if len(targets) != 1:
        problems.append(TableProblem(f"loss: cross_entropy needs one target column, not {len(targets)}"))
        return None
    names = labels(frame[targets[0]]).drop_nulls().unique(maintain_order=True).to_list()
    if len(names) > MAX_CATEGORIES:
        text = f"target {shown(targets[0])} has {len(names)} classes, more than {MAX_CATEGORIES}"
        problems.append(TableProblem(text))
    return tuple(sorted(names, key=_numeric) if all(map(_is_number, names)) else sorted(names))


def _is_number(name: str) -> bool:
    try:
        return Decimal(name).is_finite()
    except InvalidOperation:
        return False


def _numeric(name: str) -> tuple[Decimal, str]:
    return Decimal(name), name
