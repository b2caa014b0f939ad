"""Dates and times: read from text, and turned into numbers."""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from twolayer.tables.features import Array, Order

ORDERS: tuple[Order, ...] = ("ymd", "dmy", "mdy", "time")

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    "(?P<name>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?\.?,? +)?"
_YEAR = "(?P<y>[0-9]{4}|[0-9]{2})"
_DAY = "(?P<d>[0-9]{1,2})"
_NUMBER = "(?P<m>[0-9]{1,2})"
_BETWEEN = "[-/. ]"
_TIME = (
    "(?P<h>[0-9]{1,2}):(?P<min>[0-9]{2})(?::(?P<s>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?(?: ?(?P<half>[ap])\\.?m\\.?)?"
)
_ZONE = "(?: ?(?P<zone>z|utc|gmt|[+-](?:0[0-9]|1[0-4])(?::?[0-9]{2})?))?"  # 10:00-12:00 alone is no time, but a range
TIME_BEHIND = f"(?:(?:t|,? +){_TIME}{_ZONE})?"  # a date
_DATES: dict[Order, tuple[str, ...]] = {
    "ymd": (f"(?P<y>[0-9]{{4}}){_BETWEEN}{_NUMBER}{_BETWEEN}{_DAY}", f"(?P<y>[0-9]{{4}})-{_NUMBER}"),
    "dmy": (f"{_DAY}{_BETWEEN}{_NUMBER}{_BETWEEN}{_YEAR}",),
    "mdy": (f"{_NUMBER}{_BETWEEN}{_DAY}{_BETWEEN}{_YEAR}",),
}
_SHORT = f"(?P<y>[0-9]{{2}})[-/]{_NUMBER}[-/]{_DAY}"  # the year first, in two digits
_NAMED = (
    f"{_WEEKDAY}{_DAY}(?:st|nd|rd|th)?\\.?[-/ ]?{_MONTH},?[-/ ]?{_YEAR}",
    f"{_WEEKDAY}{_MONTH}[-/ ]?{_DAY}(?:st|nd|rd|th)?,?[-/ ]+(?P<y>[0-9]{{4}})",
    f"{_MONTH},?[-/ ]?(?P<y>[0-9]{{4}})",
)
FIRST_OF_CENTURY = 69  # two digits from here on are of 19.., as in POSIX


def find(cells: pl.Series, order: str = "auto") -> tuple[Order | None, bool]:
    """The order of day, month and year in which all cells can be read, and whether two fit and would give other dates.

    The cells are text without blanks around it and without missing values. `order` is that of the config, or "auto".
    """
    if not len(cells):
        return None, False
    frame = cells.to_frame("cell")
    found: dict[Order, pl.Series] = {}
    for candidate in ORDERS:
        if order in ("auto", candidate) or candidate == "time":  # every order reads dates such as 2020-01-02
            values = frame.select(parse(pl.col("cell"), candidate)).to_series()
            if not values.null_count():
                found[candidate] = values
    if not found:
        return None, False
    first, *others = found
    return first, any(not found[other].equals(found[first]) for other in others)


def parse(cell: pl.Expr, order: Order) -> pl.Expr:
    """Stripped text as Datetime in microseconds, UTC where a cell has a time zone; null if it is no such date.

    With "dmy" and "mdy", dates that begin with the year and dates with the name of a month are read, too. Times of day
    are times of 1970-01-01.
    """
    cell = cell.str.to_lowercase()
    return pl.coalesce(_matched(cell, f"^{pattern}$") for pattern in patterns(order))


def patterns(order: Order) -> list[str]:
    """The patterns of lower-case text that is read in this order, of which the first one that gives a date counts."""
    if order == "time":
        return [_TIME]
    found = [*_DATES["ymd"], *((_SHORT,) if order == "ymd" else _DATES[order]), *_NAMED]
    return [date + TIME_BEHIND for date in found]


def typed(cells: pl.Series) -> pl.Series:
    """Dates and times of a typed format as Datetime in microseconds, UTC where they have a time zone."""
    if cells.dtype == pl.Time:
        return (cells.cast(pl.Int64) // 1000).cast(pl.Datetime("us"))
    if isinstance(cells.dtype, pl.Datetime) and cells.dtype.time_zone is not None:
        cells = cells.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return cells.cast(pl.Datetime("us"))


def like_date(cells: pl.Series) -> pl.Series:
    """Which cells (text) are dates or times in some order: booleans."""
    every = pl.coalesce(parse(pl.col("cell"), order) for order in ORDERS)
    return cells.to_frame("cell").select(every.is_not_null()).to_series()


def part_of(cells: pl.Series, part: str) -> Array:
    """A part of the dates (Datetime) as numbers: days since 1970 if "elapsed", NaN if missing; (rows,) float64."""
    unit, _, function = part.partition(" ")
    if unit == "elapsed":
        numbers = cells.dt.epoch("us").cast(pl.Float64) / 86_400e6
        return numbers.fill_null(float("nan")).to_numpy()
    turns = {
        "month": lambda: (cells.dt.month().cast(pl.Float64) - 1) / 12,
        "weekday": lambda: (cells.dt.weekday().cast(pl.Float64) - 1) / 7,
        "hour": lambda: (cells.dt.hour().cast(pl.Float64) + cells.dt.minute().cast(pl.Float64) / 60) / 24,
    }[unit]()
    angle = 2 * np.pi * turns.fill_null(float("nan")).to_numpy()
    return np.asarray(np.sin(angle) if function == "sin" else np.cos(angle))


def _matched(cell: pl.Expr, pattern: str) -> pl.Expr:
    """Lower-case text that matches the pattern, as Datetime; null if it does not, or if there is no such date."""
    parts = cell.str.extract_groups(pattern)
    there = re.compile(pattern).groupindex

    def text(name: str, default: str = "") -> pl.Expr:
        return parts.struct.field(name).fill_null(default) if name in there else pl.lit(default)

    def number(name: str, default: int) -> pl.Expr:
        return text(name, str(default)).cast(pl.Int64, strict=False)

    year = number("y", 1970)
    century = pl.when(text("y").str.len_chars() > 2).then(0).when(year < FIRST_OF_CENTURY).then(2000).otherwise(1900)
    named = text("name").str.head(3).replace_strict(MONTHS, range(1, 13), default=None, return_dtype=pl.Int64)
    hour, half = number("h", 0), text("half")
    of_twelve = pl.when(hour.is_between(1, 12)).then(hour % 12 + 12 * (half == "p").cast(pl.Int64))
    when = pl.format(
        "{}-{}-{} {}:{}:{}.{}",
        year + century if "y" in there else year,
        named if "name" in there else number("m", 1),
        number("d", 1),
        pl.when(half == "").then(hour).otherwise(of_twelve),
        number("min", 0),
        number("s", 0),
        text("f", "0"),
    ).str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")
    sign, *offset = (text("zone").str.extract(r"^([+-])(\d{2}):?(\d{2})?$", i) for i in (1, 2, 3))
    hours, minutes = (part.fill_null("0").cast(pl.Int64) for part in offset)
    shift = pl.duration(minutes=(60 * hours + minutes) * pl.when(sign == "-").then(-1).otherwise(1))
    return pl.when(parts.struct.field("h" if "y" not in there else "y").is_not_null()).then(when - shift)
