"""Words and numbers as people are shown them: on a terminal, in a chart, in a report."""

from __future__ import annotations


def safe(text: object) -> str:
    """The text with every character that a terminal could act on, or that cannot be seen, written as an escape.

    Covers the control characters (C0, C1, DEL), line breaks, bidirectional overrides, zero-width characters
    and lone surrogates: all that Python does not call printable.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def duration(seconds: float, micro: str = "µs") -> str:
    """A time in the unit that suits it, to three digits."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.3g} {micro}"
    if seconds < 0.9995:  # more would be 1e+03 ms
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, what: str) -> str:
    """How many there are of something: `1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'s' * (number != 1)}"
