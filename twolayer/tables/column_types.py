"""What a column is: the first of the rules in `decide` that fits, from top to bottom."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from math import isfinite
from typing import TypeAlias

import polars as pl

from twolayer.formatting import setting
from twolayer.tables import codes, dates, notation
from twolayer.tables.encoding import MARKS, boolean, without_numbers
from twolayer.tables.features import FLAT, Kind, Notation, Order
from twolayer.tables.labels import labels
from twolayer.tables.options import FileData

Number: TypeAlias = int | float | Decimal
Span: TypeAlias = tuple[Number, Number]  # min and max

MAX_CATEGORIES = 1000
FEW = 20  # rows; of so few rows each may have its own text
_GAPS = 1.1  # the last number of a column that counts the rows, as a part of their number, is at most this

_ORDINAL = r"^(?i)[0-9]+ ?(st|nd|rd|th)\.?$"  # 1st, 2nd, 3rd
_ROW_NUMBERS = r"|Unnamed: \d+|__index_level_\d+__"  # names that pandas, R and others give to row numbers


@dataclass(frozen=True)
class Column:
    """What a column is, and how its cells are read.

    `cells` are numbers, booleans, text of categories, or Datetime. `notation` is set for text that is no plain number,
    `order` for text of dates, `code` for text of digits that is no quantity, and says what it is; `example` is such a
    cell. `refused` is why it cannot be used before the user decides
    something, `decide` the keys that do, and `fix` the key that makes a training possible; `useless` is why it is left
    out, and `usable` whether it need not be.
    """

    cells: pl.Series
    kind: Kind
    notation: Notation | None = None
    order: Order | None = None
    code: str = ""
    example: str = ""
    refused: str = ""
    decide: str = ""
    fix: str = "data.exclude"
    useless: str = ""
    usable: bool = True

    @property
    def value(self) -> str:
        """What the example is."""
        cells = pl.Series([self.example]).to_frame("cell")
        if self.order is None:
            return f"{cells.select(notation.parse(pl.col('cell'), self.notation)).item():g}"
        when = cells.select(dates.parse(pl.col("cell"), self.order)).item()
        return f"{when:%H:%M:%S}" if self.order == "time" else f"{when}".removesuffix(" 00:00:00")


def decide(cells: pl.Series, data: FileData, *, as_categories: bool = False) -> Column:
    """What a column is. Of the text, blanks around it are removed, and it is null where it is missing."""
    found = _decided(cells, data, as_categories=as_categories)
    if cells.name not in data.numbers or found.kind == "number" or found.refused:
        return found
    return replace(found, refused="{is} in data.numbers, but {holds} other values", decide="take {it} out of that list")


def _decided(cells: pl.Series, data: FileData, *, as_categories: bool) -> Column:
    dtype = cells.dtype
    # 1. The user says that it is categories, or it is the target of classes.
    if as_categories:
        return Column(class_labels(cells), "category")
    # 2. The file says what it is: a typed number is never doubted.
    if dtype.is_numeric() or dtype == pl.Null:
        return Column(without_numbers(cells, data.na) if data.na else cells, "number")
    if dtype == pl.Boolean:
        return Column(cells, "boolean")
    if dtype == pl.Duration:
        return Column(cells.dt.total_microseconds() / 1e6, "number")
    if dtype.is_temporal():
        return Column(dates.typed(cells), "date")
    if dtype != pl.String:
        return Column(
            cells, "category", useless=f"{{holds}} values of type {str(dtype).partition('(')[0]}", usable=False
        )
    distinct = cells.drop_nulls().unique(maintain_order=True)
    # 3. It is empty, or all of it is true or false.
    if not len(distinct):
        return Column(cells.cast(pl.Float64), "number")
    if distinct.str.to_lowercase().is_in(["true", "false"]).all():
        return Column(cells.to_frame("cell").select(boolean(pl.col("cell")).cast(pl.Boolean)).to_series(), "boolean")
    # 4. Its digits are a code, such as a zip code, an IPv4 address, a version, or a phone number.
    known = distinct.filter(~distinct.str.to_lowercase().is_in(MARKS))
    if cells.name not in data.numbers and (coded := _code(cells, distinct, known, data)) is not None:
        return coded
    # 5. All of it, but for marks of missing values, is numbers, or dates.
    found = _numbers(cells, known, data) or _dates(cells, known, data)
    if found is not None:
        return found
    # 6. Most of it is numbers or dates: what the rest is, only the user knows.
    if (reason := _mostly(cells, data)) is not None:
        return reason
    # 7. Categories, unless there are too many.
    return _categories(cells, distinct)


def _code(cells: pl.Series, distinct: pl.Series, known: pl.Series, data: FileData) -> Column | None:
    found = codes.find(known, thousands=data.thousands, date_order=data.date_order)
    if found is None:
        return None
    if found.refused:
        return Column(cells, "category", refused=found.refused, decide=found.decide, fix="data.categories")
    first = known.filter(known.str.starts_with("0"))
    return replace(_categories(cells, distinct), code=found.what, example=str((first if len(first) else known)[0]))


def _numbers(cells: pl.Series, known: pl.Series, data: FileData) -> Column | None:
    found = notation.find(known, data.decimal, data.thousands)
    if found.notation is None:
        return None
    if found.unclear:
        first = known.filter(known.str.contains("[.,]"))[0]
        mark = "," if "," in first else "."
        whole, decimal = (re.sub("(?<![0-9])0+(?=[0-9])", "", first.replace(mark, new)) for new in ("", "."))
        why = f"{{holds}} numbers that can be read in two ways, such as {first}"
        ways = f"add {setting('data.thousands', mark)} (for {whole}) or {setting('data.decimal', mark)} (for {decimal})"
        return Column(cells, "number", refused=why, decide=ways)
    plain = found.notation == Notation() and not known.cast(pl.Float64, strict=False).null_count()
    used = None if plain else found.notation
    values = known.to_frame("cell").select("cell", value=notation.parse(pl.col("cell"), used))
    other = values.filter(pl.col("cell").cast(pl.Float64, strict=False).ne_missing(pl.col("value")))["cell"]
    return Column(
        without_numbers(_mapped(cells, values), data.na),
        "number",
        notation=used,
        example=_longest(other) if len(other) else "",
    )


def _dates(cells: pl.Series, known: pl.Series, data: FileData) -> Column | None:
    order, unclear = dates.find(known, data.date_order)
    if order is None:
        return None
    if unclear:
        why = f"{{holds}} dates that can be read in two ways, such as {known[0]}"
        return Column(cells, "date", refused=why, decide=f"add {setting('data.date_order', 'dmy')}, mdy or ymd")
    values = known.to_frame("cell").select("cell", value=dates.parse(pl.col("cell"), order))
    return Column(_mapped(cells, values), "date", order=order, example=_longest(known))


def _longest(cells: pl.Series) -> str:
    """The first of the longest cells, which show most of a notation."""
    return str(cells[cells.str.len_chars().arg_max() or 0])


def _mostly(cells: pl.Series, data: FileData) -> Column | None:
    """The column, refused, if more than half of its cells are numbers or dates but not all of them, in one notation."""
    filled = len(cells) - cells.null_count()
    for what, like in (("numbers", notation.like_number), ("dates", dates.like_date)):
        fits = like(cells)
        count = int(fits.sum() or 0)
        if 2 * count <= filled:
            continue
        distinct = cells.filter(fits.fill_null(value=False)).unique(maintain_order=True)
        if count == filled:
            if distinct.str.contains(_ORDINAL).all():
                return None
            some = ", ".join(distinct.head(3).to_list())
            why = f"{{holds}} {what} written in several ways, such as {some}"
            return Column(
                cells, "category", refused=why, decide="write all of them in one way, or add {it} to data.categories"
            )
        row = (cells.is_not_null() & ~fits.fill_null(value=False)).arg_max() or 0
        other = f"{filled - count} of {filled} values are not {what}"
        why = f"{{looks}} like {what}, but {other}; the first is {cells[row][:40]!r} in row {row + 1}"
        few = cells.n_unique() <= FEW
        ways = "add {it} to data.categories, or such values to data.na"
        return Column(cells, "category", refused=why, decide=ways, fix="data.categories" if few else "data.exclude")
    return None


def _categories(cells: pl.Series, distinct: pl.Series) -> Column:
    filled, useless = len(cells) - cells.null_count(), ""
    if filled > FEW and 2 * len(distinct) > filled:
        useless = "{differs} in most rows"
    elif len(distinct) > MAX_CATEGORIES:
        useless = f"{{has}} {len(distinct)} different values, more than {MAX_CATEGORIES}"
    return Column(cells, "category", useless=useless)


def _mapped(cells: pl.Series, values: pl.DataFrame) -> pl.Series:
    """The value of each cell, null for those that have none."""
    return cells.to_frame("cell").join(values, on="cell", how="left", maintain_order="left")["value"]


def class_labels(cells: pl.Series) -> pl.Series:
    """The cells as names of categories: text, `true`, `false`, or a number (10 for 10.0)."""
    if cells.dtype != pl.String:
        return labels(cells)
    is_decimal = cells.str.contains(r"^[+-]?(?:0|[1-9][0-9]*)\.[0-9]*$").all()
    return labels(cells.cast(pl.Float64, strict=False)) if is_decimal else cells


def is_row_number(cells: pl.Series, *, is_first: bool) -> bool:
    """Whether a column of numbers counts the rows: the first one, or one with a name that tools give to such."""
    if re.fullmatch(_ROW_NUMBERS, cells.name):
        whole = cells.null_count() == 0 and (cells.dtype.is_integer() or bool((cells == cells.round(0)).all()))
        return bool(whole) and cells.n_unique() == len(cells)
    return is_first and (counts_with_gaps(cells) or (rises_by_one(cells) and cells[0] in (0, 1)))


def counts_with_gaps(cells: pl.Series) -> bool:
    """Whether whole numbers rise from row to row and are nearly all that there are from 0 or 1 on.

    So does a row number once some rows have been removed. Few rows do not show it.
    """
    if not cells.dtype.is_numeric() or len(cells) < FEW or cells.null_count() or not 0 <= cells[0] <= cells[-1]:
        return False
    if cells[-1] > _GAPS * len(cells) or (cells.dtype.is_float() and not (cells == cells.round(0)).all()):
        return False
    return bool((cells.cast(pl.Float64).diff().drop_nulls() > 0).all())


def rises_by_one(cells: pl.Series) -> bool:
    """Whether each cell is one more than that above it."""
    if not cells.dtype.is_numeric() or len(cells) < 3 or cells.null_count():
        return False
    return bool(cells[-1] - cells[0] == len(cells) - 1 and (cells.cast(pl.Float64).diff().drop_nulls() == 1).all())


def is_nearly_constant(low: Number, high: Number) -> bool:
    """Whether two numbers differ, but by no more than rounding changes their mean and standard deviation."""
    size = max(abs(float(low)), abs(float(high)))
    return isfinite(size) and low != high and float(high) / 2 - float(low) / 2 <= FLAT * size / 2
