"""Statistics of every column of a table, and what would keep it from being trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from twolayer.errors import DataError, TableError, TableProblem
from twolayer.formatting import counted
from twolayer.tables import splits
from twolayer.tables.column_types import Column
from twolayer.tables.encoding import by_name, has_nan
from twolayer.tables.options import FileData
from twolayer.tables.readers import collect
from twolayer.tables.reading import refuse_unused
from twolayer.tables.roles import resolved, select_columns
from twolayer.tables.sources import open_table
from twolayer.tables.survey import Survey, check_columns, read_columns


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
    """The rows and columns of a file, the problems for which `dataset.read` would refuse it, and what it would say."""

    rows: int
    columns: tuple[ColumnSummary, ...]
    problems: tuple[TableProblem, ...]
    notes: tuple[str, ...]


def summary(
    data: FileData,
    name: str,
    *,
    targets: Sequence[str],
    loss: str | None = None,
    validation: float | None = None,
    seed: int = 0,
) -> Summary:
    """Describe a file, with the problems that `dataset.read` would raise; without targets, all columns are inputs.

    `targets` replaces those of `data`. Raises DataError if the file cannot be read.
    """
    named = [*targets, *(data.inputs or ()), *data.exclude]
    source = open_table(
        data.path,
        name,
        separator=data.separator,
        decimal=data.decimal,
        header=data.header,
        sheet=data.sheet,
        named=named,
    )
    refuse_unused(source, data.model_dump(include={"header", "sheet"}))
    names = list(source.names)
    raw = collect(source, names)
    categories = resolved(data.categories, source)
    problems: list[TableProblem] = []
    found = Survey(raw, {}, (), None, frozenset(), frozenset(), ())
    if raw.height < 2:
        problems.append(TableProblem(f"has {counted(raw.height, 'row')}; training needs 2 or more"))
    try:
        taken, roles = select_columns(source, data, targets)
    except TableError as error:
        problems += error.problems
    else:
        found = check_columns(raw, taken, roles, data, loss=loss, categories=categories, first=names[0])
        problems += found.problems
    others = read_columns(raw, [column for column in names if column not in found.columns], data, categories)
    columns = found.columns | others
    given = by_name(found.frame)
    uses = {name: _use(name, found, given) for name in names}
    notes = source.notes + found.notes
    if targets and not problems:
        try:
            held = splits.validation_rows(found, validation, seed, name, stratify=data.stratify)
        except DataError as error:
            problems.append(TableProblem(str(error).removeprefix(f"{name}: ")))
        else:
            notes += splits.notes(found, held)
    return Summary(raw.height, tuple(_columns(columns, uses)), tuple(problems), notes)


def _use(column: str, found: Survey, given: dict[str, pl.Series]) -> str:
    """How training would use a column."""
    if column in found.targets:
        return f"target, {len(found.classes)} classes" if found.classes else "target"
    if column in found.left_out:
        return "left out"
    if column in found.refused:
        return "refused"
    if column not in found.kinds:
        return "not used"
    if found.kinds[column] == "category":
        cells = given[column]
        return f"{cells.n_unique() - (cells.null_count() > 0)} categories"
    return {"number": "number", "boolean": "0 and 1", "date": "date"}[found.kinds[column]]


def _columns(columns: dict[str, Column], uses: dict[str, str]) -> Iterator[ColumnSummary]:
    """A column each. Only the distinct values take a query, one for all: 10,000 columns are 10,000 queries else."""
    given = {name: _without_nan(columns[name].cells) for name in uses}
    flat = {name: cells for name, cells in given.items() if not cells.dtype.is_nested()}
    distinct = pl.DataFrame(flat).select(pl.all().n_unique()).row(0, named=True) if flat else {}
    for name, use in uses.items():
        cells = given[name]
        missing = cells.null_count()
        different = distinct[name] - (missing > 0) if name in distinct else None
        yield ColumnSummary(name, _type(columns[name], cells), use, missing, different, *_statistics(cells))


def _without_nan(cells: pl.Series) -> pl.Series:
    return cells.fill_nan(None) if cells.dtype.is_float() and has_nan(cells) else cells


def _statistics(cells: pl.Series) -> tuple[float | None, ...]:
    """Min, mean, standard deviation and max of numbers and booleans; None of all else."""
    if not cells.dtype.is_numeric() and cells.dtype != pl.Boolean:
        return None, None, None, None
    cells = cells if cells.dtype == pl.Float64 else cells.cast(pl.Float64)
    return cells.min(), cells.mean(), cells.std(ddof=0), cells.max()  # type: ignore[return-value]  # floats, or None


def _type(column: Column, cells: pl.Series) -> str:
    if cells.dtype == pl.String:
        return "text"
    return column.kind if column.usable else str(cells.dtype).partition("(")[0].lower()
