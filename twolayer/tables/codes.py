"""Text made of digits that is no quantity: codes with zeros in front, IPv4 addresses, versions, phone numbers."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from twolayer.formatting import setting
from twolayer.tables import dates, notation

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"^{_BYTE}(?:\.{_BYTE}){{3}}$"
_VERSION = r"^[0-9]+(?:\.[0-9]+){2,}$"
_THOUSANDS = r"^[1-9][0-9]{0,2}(?:\.[0-9]{3})+$"
_SURE_DATE = r"[0-9]{4}|(?:^|\.)0[0-9]"  # a year in full, or a zero in front, which versions do not have
_DAY = r"^(?:1[3-9]|2[0-9]|3[01])\."  # no month
_PHONE = r"^\+[1-9][0-9 ()./-]*[0-9]$"  # with the code of a country
_DECIMAL = r"^\+[0-9]*\.[0-9]*$"
_THREES = r"^[1-9][0-9]{2}(?: [0-9]{3}){2,}$"  # 555 123 456: a phone number, a code, or a number with thousands


@dataclass(frozen=True)
class Code:
    """What a column of such text is; `refused` says that it may also be something else, and `decide` which keys do."""

    what: str = ""
    refused: str = ""
    decide: str = ""


def find(cells: pl.Series, *, thousands: str = "auto", date_order: str = "auto") -> Code | None:
    """What all cells are, of text without blanks around it and without missing values; None if it is no code.

    `thousands` and `date_order` are those of the config.
    """
    if not len(cells):
        return None
    if notation.has_leading_zeros(cells):
        return Code("digits with zeros in front")
    cells = cells.to_frame("cell").select(notation.canonical(pl.col("cell"))).to_series()
    if _all(cells, _IPV4) and thousands != ".":
        return Code("IPv4 addresses")
    if _all(cells, _PHONE) and not cells.str.contains(_DECIMAL).any():
        digits = cells.str.count_matches("[0-9]")
        if digits.is_between(7, 15).all():
            return Code("phone numbers")
    if _all(cells, _THREES) and thousands != " ":
        why = f"{{holds}} what may be numbers with thousands, or phone numbers and codes, such as {cells[0]}"
        return Code("", why, f"add {setting('data.thousands', ' ')} (for numbers) or add {{it}} to data.categories")
    return _version(cells, date_order) if _all(cells, _VERSION) else None


def _version(cells: pl.Series, date_order: str) -> Code | None:
    """Numbers with points between them, such as 1.2.10: versions, unless they are dates, or have thousands."""
    are_dates = dates.like_date(cells)
    is_sure = (are_dates & cells.str.contains(_SURE_DATE)).any()
    if is_sure or 2 * int(cells.str.contains(_THOUSANDS).sum()) > len(cells):
        return None
    if not are_dates.all():
        return Code("versions or the like")
    if date_order != "auto" or _are_days_first(cells):
        return None
    why = f"{{holds}} what may be dates or versions, such as {cells[0]}"
    return Code(
        "", why, f"add {setting('data.date_order', 'dmy')} or mdy (for dates), or add {{it}} to data.categories"
    )


def _are_days_first(cells: pl.Series) -> bool:
    """Whether all are dates such as 21.3.24, and enough days are no months: few versions begin with 13 to 31."""
    return 4 * int(cells.str.contains(_DAY).sum()) >= len(cells) and dates.find(cells) == ("dmy", False)


def _all(cells: pl.Series, pattern: str) -> bool:
    return bool(cells.str.contains(pattern).all())
