"""Numbers in text as people write them: currencies, per cent, units, thousands, decimal commas, other digits."""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import polars as pl

from twolayer.tables.features import THOUSANDS, Notation

_CODES = (  # of currencies
    "USD|EUR|GBP|JPY|CHF|CAD|AUD|NZD|SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON|BGN|RUB|UAH|TRY|CNY|RMB|INR|PKR|BRL|MXN"
    "|CLP|COP|ARS|PEN|ZAR|NGN|KES|EGP|KRW|TWD|SGD|HKD|MYR|IDR|PHP|THB|VND|ILS|AED|SAR|Rs|Fr|kr|Kč|zł|Ft"
)
_CURRENCY = rf"\p{{L}}{{0,3}}\p{{Sc}}|(?:{_CODES})\.?"
# Currencies of places where the comma separates thousands: $1,500 has no three decimals.
_COMMA_THOUSANDS = (
    "$",
    "US$",
    "USD",
    "A$",
    "AUD",
    "C$",
    "CAD",
    "NZ$",
    "NZD",
    "HK$",
    "HKD",
    "\u00a3",
    "GBP",
    "\u20b9",
    "INR",
)
_UNIT = r"[%‰'\"]|°?\p{L}[\p{L}\p{M}0-9²³/°·.*^-]{0,15}|°"
_BODY = r"(?:[0-9](?:[0-9.,'_ ]*[0-9])?[.,]?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?"
_CELL = (
    rf"^(?P<open>\()? *(?P<sign>[+-])? *(?P<prefix>{_CURRENCY})? *(?P<inner>[+-])? *"
    rf"(?P<body>{_BODY}) *(?P<suffix>{_CURRENCY}|{_UNIT})? *(?P<close>\))?$"
)
_LEADING_ZERO = r"^[+-]?0[0-9]+$"
_DIGITS = r"^[+-]?[0-9]+$"
_POINTS = r"^(?:[1-9][0-9]{0,2}|0[0-9]{1,2})\.[0-9]{3}$"  # thousands, or a number with three decimals
_BELOW_1000 = r"^[0-9]{1,3}$"

# What stands for an ASCII blank, sign, point, comma or apostrophe.
SAME = {
    **dict.fromkeys("\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " "),
    **dict.fromkeys("\u2212\u2012\u2013\ufe63\uff0d", "-"),
    **dict.fromkeys("\ufe62\uff0b", "+"),
    **dict.fromkeys("\u2019\u02bc\u2032\uff07\u066c", "'"),
    **dict.fromkeys("\uff0e\u066b", "."),
    **dict.fromkeys("\uff05\ufe6a\u066a", "%"),
    "\uff0c": ",",
    "\u2033": '"',
}


@dataclass(frozen=True)
class Found:
    """What `find` found: the notation of all cells, or None; `unclear` if two fit, and would give other numbers."""

    notation: Notation | None
    unclear: bool = False


def find(cells: pl.Series, decimal: str = "auto", thousands: str = "auto") -> Found:
    """The notation that all cells follow, of text without blanks around it and without missing values.

    `decimal` and `thousands` are those of the config: "auto", or the one that decides; `thousands` may be "none".
    """
    parts = _parts(cells)
    if not len(cells) or parts["body"].null_count() or (_signs(parts) > 1).any():
        return Found(None)
    affixes = parts.select(pl.col("prefix", "suffix").fill_null("")).unique()
    if affixes.height > 1:
        return Found(None)
    prefix, suffix = affixes.row(0)
    bodies = parts["body"].unique()
    marks = ("", *THOUSANDS) if thousands == "auto" else ("",) if thousands == "none" else (thousands,)
    decimals = (".", ",") if decimal == "auto" else (decimal,)
    fits = [pair for pair in product(decimals, marks) if pair[0] != pair[1] and _all(bodies, body_pattern(*pair))]
    if not fits:
        return Found(None)
    chosen = Notation(*fits[0], prefix, suffix)
    if fits[0] == (".", ""):  # numbers with decimals, unless they are such as 2.542 beside 776
        whole = bodies.str.contains(_DIGITS)
        return Found(
            chosen,
            (",", ".") in fits
            and bool(whole.any())
            and not whole.all()
            and _all(bodies.filter(whole), _BELOW_1000)
            and _all(bodies.filter(~whole), _POINTS),
        )
    if (".", ",") in fits and prefix in _COMMA_THOUSANDS:
        return Found(Notation(".", ",", prefix, suffix))
    values = [bodies.to_frame("body").select(_value(pl.col("body"), *pair)).to_series() for pair in fits]
    return Found(chosen, any(not other.equals(values[0]) for other in values[1:]))


def parse(cell: pl.Expr, notation: Notation | None) -> pl.Expr:
    """Stripped text in a notation (None: plain) as float64; null if it is not such a number.

    Plain numbers are read, too, except where their point could be the thousands separator of this notation.
    """
    if notation is None:
        return cell.cast(pl.Float64, strict=False)
    cell = canonical(cell)
    parts = cell.str.extract_groups(_CELL)
    part = parts.struct.field
    fits = (
        part("body").str.contains(body_pattern(notation.decimal, notation.thousands))
        & (part("prefix").fill_null("") == notation.prefix)
        & (part("suffix").fill_null("") == notation.suffix)
        & (_signs(parts.struct) <= 1)
    )
    number = _value(part("body"), notation.decimal, notation.thousands)
    is_negative = (
        (part("sign").fill_null("") == "-") | (part("inner").fill_null("") == "-") | part("open").is_not_null()
    )
    value = pl.when(fits).then(pl.when(is_negative).then(-number).otherwise(number))
    return pl.coalesce(
        value, pl.when(cell.str.contains(plain_pattern(notation))).then(cell.cast(pl.Float64, strict=False))
    )


def like_number(cells: pl.Series) -> pl.Series:
    """Which cells (text) are numbers in some notation: booleans."""
    found = canonical(pl.col("cell")).str.contains(_every_notation())
    return cells.to_frame("cell").select(found.fill_null(value=False)).to_series()


@cache
def _every_notation() -> str:
    """The pattern of a cell whose digits are a number in one notation or another."""
    pairs = (pair for pair in product((".", ","), ("", *THOUSANDS)) if pair[0] != pair[1])
    return _CELL.replace(_BODY, "|".join(body_pattern(*pair)[1:-1] for pair in pairs))


def has_leading_zeros(cells: pl.Series) -> bool:
    """Whether all cells (text) are digits, some of them with a zero in front, as zip codes are."""
    return bool(_all(cells, _DIGITS) and cells.str.contains(_LEADING_ZERO).any())


def canonical(cell: pl.Expr) -> pl.Expr:
    """Text with ASCII digits, signs, points, commas, apostrophes and blanks in place of those that mean the same."""
    return pl.when(cell.str.contains(r"[^\x00-\x7f]")).then(cell.str.replace_many(*_same())).otherwise(cell)


@cache
def _same() -> tuple[list[str], list[str]]:
    """Letters, and those that stand for them in ASCII."""
    letters = map(chr, range(128, sys.maxunicode))
    digits = {letter: str(unicodedata.decimal(letter)) for letter in letters if letter.isdecimal()}
    table = digits | SAME
    return list(table), list(table.values())


def _parts(cells: pl.Series) -> pl.DataFrame:
    parts = cells.to_frame("cell").select(canonical(pl.col("cell")).str.extract_groups(_CELL).alias("part"))
    return parts.unnest("part")


def _signs(parts: Any) -> Any:
    """How many signs of a negative or positive number a cell has; 2 for a parenthesis that is alone."""
    alone = parts["open"].is_null() != parts["close"].is_null()
    count = sum(parts[name].is_not_null().cast(pl.Int8) for name in ("sign", "inner", "open"))
    return count + 2 * alone.cast(pl.Int8)


def _all(cells: pl.Series, pattern: str) -> bool:
    return bool(cells.str.contains(pattern).all())


def body_pattern(decimal: str, thousands: str) -> str:
    """Numbers without a sign: digits, in groups of three (or, as in India, two) if they are grouped at all.

    With points and commas the first group may have zeros in front: 001,234.
    """
    point, mark = re.escape(decimal), re.escape(thousands)
    first = "(?:[1-9][0-9]{0,2}|0[0-9]{1,2})" if thousands in (",", ".") else "[1-9][0-9]{0,2}"
    groups = rf"|{first}(?:{mark}[0-9]{{3}})+|[1-9][0-9]?(?:{mark}[0-9]{{2}})+{mark}[0-9]{{3}}" if mark else ""
    return rf"^(?:(?:[0-9]+{groups})(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?$"


def _value(body: pl.Expr, decimal: str, thousands: str) -> pl.Expr:
    """A number without a sign, as float64."""
    if thousands:
        body = body.str.replace_all(thousands, "", literal=True)
    return body.str.replace(decimal, ".", literal=True).cast(pl.Float64, strict=False)


def plain_pattern(notation: Notation) -> str:
    """Plain numbers in a column of this notation."""
    if notation.thousands == ".":
        return r"^[+-]?[0-9]+$"
    if notation.decimal == ",":  # with three decimals, the point could be the thousands'
        return r"^[+-]?(?:[0-9]+|[0-9]*\.(?:[0-9]{1,2}|[0-9]{4,}))(?:[eE][+-]?[0-9]+)?$"
    return r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
