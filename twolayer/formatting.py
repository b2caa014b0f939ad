"""Durations, byte sizes, plurals, text that is safe to print, and the name that is meant by a mistyped one."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

_MOST, _SOME = 9, 7  # digits of a number beside a standard error; where it would take more, 7 are shown
_NEAR = 0.75  # the least share of equal letters between a name and the one that is meant, as difflib counts them


def safe(text: object) -> str:
    """The text, with an escape for every character that a terminal could act on or that is invisible.

    Covers the control characters (C0, C1, DEL), line breaks, bidirectional overrides, zero-width characters
    and lone surrogates: everything that Python does not call printable.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# What a spreadsheet may take for a formula when it opens a CSV: = + - @, also in their other forms (NFKC makes them
# one), after any blanks and invisible characters, at least one of which is not a space. `tables.writers` has the rule
# for columns of a table.
_SIGNS = frozenset("=+-@\u207a\u207c\u208a\u208c\ufb29\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")


def no_formula(text: str) -> str:
    """The text for a cell of a CSV: led by a single quote where a spreadsheet could take it for a formula."""
    rest = text.lstrip(" ")
    start = next((i for i, letter in enumerate(rest) if not _is_unseen(letter)), len(rest))
    is_formula = text[:1] in {*_SIGNS, "\t", "\r", "\n"} or (start > 0 and rest[start : start + 1] in _SIGNS)
    return f"'{text}" if is_formula and not _NUMBER.fullmatch(text) else text


def _is_unseen(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Zs", "Zl", "Zp") or bool(_INVISIBLE.match(letter))


def duration(seconds: float, micro: str = "µs") -> str:
    """A time in a suitable unit, with three digits."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.3g} {micro}"
    if seconds < 0.9995:  # more would be 1e+03 ms
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def microseconds_unit(ascii_only: bool) -> str:
    """The sign for microseconds, for `duration`: `µs`, or `us` where the console can only show ASCII."""
    return "us" if ascii_only else "µs"


def json_number(value: float) -> float | None:
    """The number as JSON can hold it: None (`null`) for nan and the infinities."""
    return value if math.isfinite(value) else None


def counted(number: int, what: str) -> str:
    """A number with its noun in the singular or plural: `1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def size(count: int) -> str:
    """A number of bytes in a suitable unit, with three digits."""
    amount, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.3g} {units[0]}" if amount < 1000 else f"{amount:.0f} {units[0]}"


def with_error(value: float, error: float | None, plus_minus: str = "±") -> str:
    """A number with its standard error: `0.535 ± 0.063`. The error has two digits, and the number none beyond them.

    Beside an error that is mere rounding the number has seven digits: `1.000000 ± 2.2e-16`.
    """
    if error is None:
        return f"{value:.6g}"
    if not error or not math.isfinite(value) or not math.isfinite(error):
        return f"{value:.6g} {plus_minus} {error:.2g}"
    place, size = _place(float(f"{error:.1e}")), max(abs(value), error)
    if not 1e-4 <= size < 1e9:
        digits = max(1, _place(size) - place + 2)
        return f"{value:.{(digits if digits <= _MOST else _SOME) - 1}e} {plus_minus} {error:.1e}"
    decimals = 1 - place
    if decimals + _place(size) >= _MOST:
        size = float(f"{size:.{_SOME - 1}e}")
        return f"{value:.{max(0, _SOME - 1 - _place(size))}f} {plus_minus} {error:.1e}"
    if decimals <= 0:
        value, error, decimals = round(value, decimals), round(error, decimals), 0
    return f"{value:.{decimals}f} {plus_minus} {error:.{decimals}f}"


def alike(numbers: Sequence[float], digits: Sequence[int]) -> list[str]:
    """Numbers that stand in one line, in one notation, each rounded to its number of significant digits.

    If the largest number, the sign aside, is from 0.001 to 1e12, they are decimals, and a whole part keeps all its
    digits; else they have exponents. A number below 1e-6 has one always: as a decimal it would be mostly zeros.
    """
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    decimals = 1e-3 <= largest < 1e12
    return [
        _decimal(number, some) if decimals and not 0 < abs(number) < 1e-6 else f"{number:.{some}g}"
        for number, some in zip(numbers, digits, strict=True)
    ]


def _decimal(number: float, digits: int) -> str:
    """A number without an exponent, to a number of significant digits, and no zeros at the end."""
    if not number or not math.isfinite(number):
        return f"{number:g}"
    text = f"{number:.{max(0, digits - 1 - _place(number))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _place(number: float) -> int:
    """The power of ten of a number's first digit."""
    return math.floor(math.log10(abs(number)))


def shown(value: Any) -> str:
    """A value of a config as YAML writes it, with every digit, and safe to print.

    Text has quotes only if it is in a list and contains a comma or a bracket.
    """
    if isinstance(value, (list, tuple)):
        quoted = (json.dumps(item) if isinstance(item, str) and set(item) & set(",[]") else item for item in value)
        return "[" + ", ".join(map(shown, quoted)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else safe(value)


_NAMED = ("device", "epochs", "lr", "seed", "engine", "threads", "data.target")  # keys with options of their own
_speech = {"options": False}


def speak_of_options() -> None:
    """From now on messages name the options of the command line, and not the arguments of Python's functions."""
    _speech["options"] = True


def setting(key: str, value: object) -> str:
    """What the user types to set a key of the config: `--set data.decimal=,` or `data={"decimal": ","}`."""
    *inside, name = key.split(".")
    if _speech["options"]:
        option = f"--{name} {value}" if key in _NAMED else f"--set {key}={value}"
        return f'--set "{key}={value}"' if " " in str(value) else option
    plain = json.dumps(value)
    return f'{inside[0]}={{"{name}": {plain}}}' if inside else f"{name}={plain}"


def flag(name: str) -> str:
    """What the user types to say yes: `--force` or `force=True`."""
    return f"--{name}" if _speech["options"] else f"{name}=True"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The known name nearest to this one, upper and lower case aside; None if none is near.

    Near is what has most of its letters in the same order, or the same letters in another order.
    """
    lowered = {known.lower(): known for known in names}
    given = name[:100].lower()
    if near := get_close_matches(given, lowered, n=1, cutoff=_NEAR):
        return lowered[near[0]]
    return next((known for low, known in lowered.items() if sorted(low) == sorted(given)), None)
