"""Durations, byte sizes, plurals, and text that is safe to print."""

from __future__ import annotations

import json
import math
from typing import Any


def safe(text: object) -> str:
    """The text, with an escape for every character that a terminal could act on or that is invisible.

    Covers the control characters (C0, C1, DEL), line breaks, bidirectional overrides, zero-width characters
    and lone surrogates: everything that Python does not call printable.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


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
