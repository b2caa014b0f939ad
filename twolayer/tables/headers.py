"""The names of a table's columns: cleaned, or found to be a row of data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import pairwise

from twolayer.errors import DataError
from twolayer.formatting import counted, setting
from twolayer.tables.formulas import unquoted_names

_GAPS = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?", "-", "."})  # in lower case
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_WITH_DIGITS = re.compile(r"\d+")


def cleaned(names: Sequence[str], wanted: Collection[str] = ()) -> list[str]:
    """Names without blanks around them and without the quotes of `formulas`, as cells lose them.

    A name that is `wanted` exactly as it stands in the file stays so.
    """
    texts = unquoted_names([name.strip() for name in names])
    return [name if name in wanted else text for name, text in zip(names, texts, strict=True)]


def refuse_twice(name: str, columns: Sequence[str]) -> None:
    """Raise DataError if several columns have the same name."""
    if twice := [column for column, count in Counter(columns).items() if count > 1]:
        shown = ", ".join(twice[:10]) + (f" and {len(twice) - 10} more" if len(twice) > 10 else "")
        raise DataError(f"{name}: several columns have the same name: {shown}")


def about_width(header: Sequence[str], cells: int) -> str:
    """What is wrong where the names that are given are not as many as the cells of a row."""
    return f"data.header has {counted(len(header), 'name')}, and the first row {counted(cells, 'cell')}"


def refuse_data(name: str, first: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Raise DataError if the first row of a file could be a row of data, as the `rows` below it are."""
    if not could_be_data(first, rows):
        return
    shown = ", ".join(cell.strip()[:20] for cell in first[:4]) + (", ..." if len(first) > 4 else "")
    raise DataError(
        f"{name}: the first row ({shown}) looks like data: are the names of the columns missing? then set "
        "data.header: none, or data.header: [name, name, ...]; if it holds the names, set data.header: first"
    )


class UndecidedError(DataError):
    """The first row of a file may be its names or a row of data, and only the user knows which."""


def repeats_names(name: str, own: Sequence[str], header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a file's first row, cleaned, has the names that a file without names was given before, in any order.

    Numbers, as `data.header: none` makes names, may also be a row of data as the `rows` below it are. They are names
    where one of them does not fit its column, and where they count up from 0 to 2 or more. Raises UndecidedError.
    """
    if sorted(own) != sorted(header):
        return False
    columns = list(zip(*(row for row in rows if len(row) == len(own)), strict=True))
    odd = (_fits(cell, [text.strip() for text in column]) is False for cell, column in zip(own, columns, strict=False))
    if not all(map(str.isdecimal, header)) or any(odd) or (list(own) == list(header) and len(own) > 2):
        return True
    raise UndecidedError(
        f"{name}: the first row ({', '.join(own[:10])}) may hold the names of the columns, or data; add "
        f"{setting('data.header', 'first')} (for names) or {setting('data.header', 'none')} (for data)"
    )


def could_be_data(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether each cell of the first row could be a value of its column.

    Not if its numbers count up by one, as 0, 1, 2 and years do when they are names. A number fits a column of numbers;
    text fits a column in which it occurs, or whose cells have the same form, with digits (a date, a code). Text in a
    column of ever different texts decides nothing.
    """
    cells = [cell.strip() for cell in first]
    columns = list(zip(*(row for row in rows if len(row) == len(cells)), strict=True))
    numbers = [float(cell.replace(",", ".")) for cell in cells if _NUMBER.fullmatch(cell)]
    steps = [after - before for before, after in pairwise(numbers)]
    if not columns or (steps and set(steps) == {1.0}):
        return False
    found: set[bool | None] = set()
    for cell, column in zip(cells, columns, strict=True):
        found.add(_fits(cell, [text.strip() for text in column]))
        if False in found:  # of nearly every table with names the first column shows it
            return False
    # Where text decides nothing, the numbers are the only sign, and 1990, 2000, 2010 are names as well.
    are_even = len(steps) > 1 and len(set(steps)) == 1 and steps[0] != 0
    return True in found and not (None in found and are_even)


def _fits(cell: str, column: Sequence[str]) -> bool | None:
    """Whether a cell could be a value of a column; None if that is not clear."""
    filled = [text for text in column if text.lower() not in _GAPS]
    numbers = sum(_NUMBER.fullmatch(text) is not None for text in filled)
    if not filled:
        return None if cell.lower() in _GAPS or _NUMBER.fullmatch(cell) else False
    if 2 * numbers > len(filled):
        return _NUMBER.fullmatch(cell) is not None or (None if cell.lower() in _GAPS else False)
    if cell in filled:
        return True
    forms = {_form(text) for text in filled}
    if _WITH_DIGITS.search(cell) and _form(cell) in forms:
        return True
    if cell.lower() in _GAPS:
        return None
    return None if 2 * len(set(filled)) > len(filled) > 2 and not cell.isidentifier() else False


def _form(text: str) -> str:
    """The form of a text: its digits and letters stand for all others."""
    return re.sub(r"[^\W\d_]+", "a", _WITH_DIGITS.sub("9", text))
