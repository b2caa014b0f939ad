"""Statistics of every column of a table, and what would keep it from being trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from twolayer.errors import TableError
from twolayer.formatting import counted
from twolayer.tables.column_types import Survey, check_columns, infer_types, select_columns
from twolayer.tables.features import Kind
from twolayer.tables.readers import collect
from twolayer.tables.sources import open_table


@dataclass(frozen=True)
class ColumnSummary:
    """A column: its type, how it would be used, and statistics of its values; None if there is no such number.

    `distinct` is the number of different values that are not missing. `mean` is the share of true for booleans; `std`
    is the standard deviation (of the values, not an estimate: ddof 0). Text has no min, mean, std and max.
    """

    column: str
    type: str
    used_as: str
    missing: int
    distinct: int | None
    min: float | None
    mean: float | None
    std: float | None
    max: float | None


@dataclass(frozen=True)
class Summary:
    """The rows and columns of a file, and the problems for which `dataset.read` would refuse it."""

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
    separator: str = "auto",
    decimal: str = ".",
    header: str | Sequence[str] = "auto",
    sheet: str | None = None,
) -> Summary:
    """Describe a file, with the problems that `dataset.read` would raise; without a target, all columns are inputs.

    Raises DataError if the file cannot be read.
    """
    named = [*target, *(inputs or ()), *exclude]
    source = open_table(path, name, separator=separator, decimal=decimal, header=header, sheet=sheet, named=named)
    names = list(source.names)
    raw, typed = collect(source, names), source.raw is None
    frame, kinds, _ = infer_types(raw, names, decimal, typed=typed)
    problems: list[str] = []
    taken: list[str] = []
    targets: list[str] = []
    found = Survey(frame, {}, (), None, frozenset(), frozenset(), ())
    if raw.height < 2:
        problems.append(f"has {counted(raw.height, 'row')}; training needs 2 or more")
    try:
        taken, targets = select_columns(source, target, inputs, exclude)
    except TableError as error:
        problems += error.problems
    else:
        found = check_columns(
            raw.select(*taken, *targets), taken, targets, missing=missing, decimal=decimal, typed=typed
        )
        problems += found.problems
        frame = frame.with_columns(found.frame)
    uses = {column: _use(column, kinds, taken, targets, found) for column in names}
    return Summary(frame.height, tuple(_columns(frame, kinds, uses)), tuple(problems))


def _use(column: str, kinds: dict[str, Kind], taken: list[str], targets: list[str], found: Survey) -> str:
    """How training would use a column."""
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
    statistics = {"min": values.min(), "mean": values.mean(), "std": values.std(ddof=0), "max": values.max()}
    found = {name: frame.select(value).row(0, named=True) if plain else {} for name, value in statistics.items()}
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
                *(found[statistic].get(column) for statistic in ("min", "mean", "std", "max")),
            )
        )
    return rows
