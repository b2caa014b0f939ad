"""What stands in a table, a row for each column, and what would keep it from being trained on. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from twolayer.errors import DataError
from twolayer.formatting import safe
from twolayer.tables.column_types import Survey, check_columns, infer_types, select_columns
from twolayer.tables.features import Kind
from twolayer.tables.readers import collect
from twolayer.tables.sources import open_table


@dataclass(frozen=True)
class ColumnSummary:
    """A column: what it holds, what training takes it for, and its values; None where there is no such number.

    `distinct` counts values that are there; `least` and `most` are None for text, `mean` is a boolean's share of true.
    """

    column: str
    type: str
    used_as: str
    missing: int
    distinct: int | None
    least: float | None
    mean: float | None
    most: float | None


@dataclass(frozen=True)
class Summary:
    """A file's rows and columns, and the sentences with which `read` would refuse it."""

    rows: int
    columns: tuple[ColumnSummary, ...]
    problems: tuple[str, ...]


def summary(
    path: Path | str,
    name: str,
    *,
    target: Sequence[str] = (),
    inputs: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    missing: str = "refuse",
    loss: str | None = None,
    separator: str = "auto",
    decimal: str = ".",
) -> Summary:
    """What the file holds, and what `read` would say of it; without a target, all columns are taken for inputs.

    Raises DataError where the file cannot be read.
    """
    named = [*target, *(inputs or ()), *exclude]
    source = open_table(path, name, separator=separator, decimal=decimal, named=named)
    names = list(source.names)
    raw, typed = collect(source, names), source.raw is None
    frame, kinds, _ = infer_types(raw, names, decimal, typed=typed)
    problems: list[str] = []
    taken: list[str] = []
    targets: list[str] = []
    found = Survey(frame, {}, (), None, frozenset(), frozenset(), ())
    if raw.height < 2:
        problems.append(f"has {raw.height} row{'s' * (raw.height != 1)}; training needs 2 or more")
    try:
        taken, targets = select_columns(source, target, inputs, exclude)
    except DataError as error:
        problems.append(str(error).removeprefix(safe(f"{name}: ")))
    else:
        found = check_columns(
            raw.select(*taken, *targets), taken, targets, missing=missing, loss=loss, decimal=decimal, typed=typed
        )
        problems += found.problems
        frame = frame.with_columns(found.frame)
    uses = {column: _use(column, kinds, taken, targets, found) for column in names}
    return Summary(frame.height, tuple(_columns(frame, kinds, uses)), tuple(problems))


def _use(column: str, kinds: dict[str, Kind], taken: list[str], targets: list[str], found: Survey) -> str:
    """What training takes a column for."""
    if column in targets:
        return f"target, {len(found.classes)} classes" if found.classes else "target"
    if column not in taken:
        return "not used"
    if column not in kinds or column in found.refused:
        return "refused"
    if kinds[column] == "category":
        return f"{found.frame[column].drop_nulls().n_unique()} categories"
    return "number" if kinds[column] == "number" else "0 and 1"


def _columns(frame: pl.DataFrame, kinds: dict[str, Kind], uses: dict[str, str]) -> list[ColumnSummary]:
    plain = [column for column, kind in kinds.items() if kind != "category"]
    values = pl.col(plain).cast(pl.Float64).fill_nan(None)
    least, mean, most = (
        frame.select(value).row(0, named=True) if plain else {} for value in (values.min(), values.mean(), values.max())
    )
    rows = []
    for column, use in uses.items():
        cells = frame[column]
        cells = cells.fill_nan(None) if cells.dtype.is_float() else cells
        kind = "text" if kinds.get(column) == "category" or cells.dtype == pl.String else kinds.get(column)
        rows.append(
            ColumnSummary(
                column,
                kind or str(cells.dtype).partition("(")[0].lower(),
                use,
                cells.null_count(),
                None if cells.dtype.is_nested() else cells.drop_nulls().n_unique(),
                least.get(column),
                mean.get(column),
                most.get(column),
            )
        )
    return rows
