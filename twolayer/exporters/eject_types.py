"""How a script makes numbers, booleans and dates of cells: expressions of polars, one for all columns written alike."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from twolayer.errors import DataError
from twolayer.exporters.eject_source import chain, constant, literal
from twolayer.tables import dates
from twolayer.tables.encoding import shown
from twolayer.tables.features import Encoding, Notation
from twolayer.tables.sources import MISSING

# Formats of dates, with one of some signs between day, month and year.
_DATES = ("%Y{0}%m{0}%d", "%d{0}%m{0}%Y", "%m{0}%d{0}%Y", "%d{0}%m{0}%y", "%m{0}%d{0}%y")
_NAMED = ("%d %B %Y", "%d-%B-%Y", "%d. %B %Y", "%B %d, %Y", "%B %d %Y", "%d-%B-%y")
_TIMES = ("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", "T%H:%M:%SZ", " %H:%M:%S%.f", "T%H:%M:%S%.f", " %I:%M %p")
_MOST = 4  # formats in one column
_SHORT = 40  # characters of names in an expression; more have a constant


class Types:
    """The columns that need more than a cast, by how they are converted."""

    def __init__(self) -> None:
        self.constants: list[str] = []
        self._groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, cells: pl.Series, kind: str, columns: Encoding, marks: list[str]) -> None:
        """Take a column. `marks` are texts for a missing value in it. Raises DataError for dates of no format."""
        how: tuple[str, ...] = ()
        if kind == "date":
            if cells.dtype == pl.String:
                how = _date_formats(cells, columns, marks)
            elif cells.dtype != pl.Datetime("us"):
                kind, how = "cast", ('.cast(pl.Datetime("us"))',)
        elif cells.dtype == pl.String and kind == "boolean":
            how = (".str.to_lowercase()",)
        elif cells.dtype == pl.String and kind == "number" and (notation := columns.notation(cells.name)) is not None:
            how = tuple(_number(notation, cells))
        if how:
            self._groups.setdefault((kind, how), []).append(cells.name)

    def source(self) -> str:
        """The expressions, as arguments of `with_columns`; `constants` then has what they need."""
        return "\n".join(" " * 8 + line for group in self._groups for line in self._expressions(*group))

    def _expressions(self, kind: str, how: tuple[str, ...]) -> Iterator[str]:
        names = self._groups[kind, how]
        if kind == "date" and len(how) > 1:
            formats = self._constant("FORMATS", list(how))
            for name in names:
                yield "pl.coalesce("
                yield f'    pl.col({literal(name)}).str.to_datetime(form, time_unit="us", strict=False)'
                yield f"    for form in {formats}"
                yield "),"
            return
        listed = ", ".join(map(literal, names))
        if len(listed) > _SHORT:
            listed = self._constant(f"{kind.upper()}S" if kind != "cast" else "DATES", names)
        if kind == "date":
            how = (f'.str.to_datetime({literal(how[0])}, time_unit="us")',)
        end = ' == "true",' if kind == "boolean" else ","
        yield chain(f"pl.col({listed})", how, 8, len(end)) + end

    def _constant(self, name: str, value: list[str]) -> str:
        taken = sum(line.startswith((f"{name} =", f"{name}_")) for line in self.constants)
        name = f"{name}_{taken + 1}" if taken else name
        self.constants.append(constant(name, value))
        return name


def _number(notation: Notation, cells: pl.Series) -> Iterator[str]:
    """The methods that make of text in a notation what `cast` reads."""
    if notation.prefix:
        yield f".str.strip_prefix({literal(notation.prefix)})"
    if notation.suffix:
        yield f".str.strip_suffix({literal(notation.suffix)})"
    bare = cells.str.strip_chars().str.strip_prefix(notation.prefix).str.strip_suffix(notation.suffix)
    if (bare != bare.str.strip_chars()).any():
        yield ".str.strip_chars()"
    if notation.thousands:
        end = ", literal=True" if notation.thousands == "." else ""
        yield f'.str.replace_all({literal(notation.thousands)}, ""{end})'
    if notation.decimal != ".":
        yield f'.str.replace({literal(notation.decimal)}, ".")'


def _date_formats(cells: pl.Series, columns: Encoding, marks: list[str]) -> tuple[str, ...]:
    """The formats of a column's dates, as `strptime` has them, of which the first that fits a cell counts.

    Raises DataError where some date has none.
    """
    text = cells.str.strip_chars().unique()
    text = text.filter(~text.is_in([*MISSING, *columns.na, *marks])).drop_nulls()
    wanted = (
        text.to_frame("cell").select(dates.parse(pl.col("cell"), columns.orders.get(cells.name, "ymd"))).to_series()
    )
    found: list[str] = []
    for form in _formats():
        values = text.str.to_datetime(form, time_unit="us", strict=False)
        fits = values.is_not_null()
        if fits.any() and (values == wanted).filter(fits).all():
            found.append(form)
            text, wanted = text.filter(~fits), wanted.filter(~fits)
        if not len(text):
            return tuple(found)
        if len(found) == _MOST:
            break
    raise DataError(
        f"column {shown(cells.name)}: a plain script cannot read dates such as {literal(text[0])}; write them as "
        "2024-12-31, or leave the column out (data.exclude)"
    )


def _formats() -> Iterator[str]:
    for time in _TIMES:
        yield from (date.format(sign) + time for date in _DATES for sign in "-/.")
        yield from (date + time for date in _NAMED)
