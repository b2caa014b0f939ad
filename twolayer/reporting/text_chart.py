"""A chart of characters, for terminals. Imports numpy through uniplot."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from twolayer.reporting.downsampling import downsample


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Inside, a module cannot be imported, unless it has been already."""
    modules = cast(dict[str, Any], sys.modules)
    hidden = name not in modules
    if hidden:
        modules[name] = None
    try:
        yield
    finally:
        if hidden:
            del modules[name]


# Where numba is, uniplot compiles with it what draws lines: five seconds for the first chart, and half of one for each
# other. numpy draws them in less than a millisecond.
with _without("numba"):
    import uniplot

MARKS, ASCII_MARKS = ("•", "∘"), ("*", "o")  # of two curves without colour
COLOURS = ("blue", "yellow")
_ASCII = str.maketrans("┌┐└┘─│┤┬", "++++-|++")


def draw(
    curves: Mapping[str, Sequence[float]], width: int, height: int, *, log: bool, colour: bool, ascii_only: bool
) -> list[str]:
    """The curves, at most two, over 1, 2, ... in a frame with ticks: `height` + 3 lines of at most `width` characters.

    Values that are not finite, or with `log` not positive, are left out. Colours are ANSI codes. Empty where there is
    nothing to draw.
    """
    points = {name: _points(values, log, 4 * width) for name, values in curves.items()}
    points = {name: found for name, found in points.items() if found[0]}
    if not points:
        return []
    low = min(min(ys) for _, ys in points.values())
    high = max(max(ys) for _, ys in points.values())
    labels: dict[int, str] = {}
    for value, label in _ticks(low, high, max(2, height // 2), log=log):
        labels[round((1 - _share(value, low, high)) * (height - 1))] = label
    gutter = max(map(len, labels.values()), default=0)
    inner, last = width - gutter - 2, max(2, *(xs[-1] for xs, _ in points.values()))
    lines = uniplot.plot_to_string(
        # As fractions of the height, so that no number is too large or too small.
        [[_share(y, low, high) for y in ys] for _, ys in points.values()],
        [xs for xs, _ in points.values()],
        lines=True,
        width=inner,
        height=height,
        x_min=0.99,
        x_max=last + 0.01,
        y_min=-0.001,
        y_max=1.001,
        x_labels=False,
        y_labels=False,
        x_gridlines=[],
        y_gridlines=[],
        color=list(COLOURS[: len(points)]) if colour else False,
        character_set="ascii" if ascii_only or (len(points) > 1 and not colour) else "braille",
        force_ascii_characters=list(ASCII_MARKS if ascii_only else MARKS),
    ).split("\n")
    body = [
        f"{labels.get(row, ''):>{gutter}}{'┤' if row in labels else '│'}{line[1:].rstrip()}"
        for row, line in enumerate(lines[1 : height + 1])
    ]
    foot = [" " * gutter + line for line in _foot(inner, last)]
    drawn = [" " * gutter + lines[0], *body, *foot]
    return [line.translate(_ASCII) for line in drawn] if ascii_only else drawn


def _points(values: Sequence[float], log: bool, limit: int) -> tuple[list[int], list[float]]:
    """The positions (from 1) and heights of the points that are drawn, downsampled."""
    usable = [value if value > 0 else math.nan for value in values] if log else values
    places = downsample(usable, limit)
    return [place + 1 for place in places], [math.log10(values[i]) if log else values[i] for i in places]


def _share(value: float, low: float, high: float) -> float:
    """The position of a value between `low` and `high`: 0 to 1."""
    span = high / 2 - low / 2  # halves, so that it is finite
    return (value / 2 - low / 2) / span if span else 0.5


def _ticks(low: float, high: float, limit: int, *, log: bool) -> list[tuple[float, str]]:
    """About `limit` round numbers from low to high, with their labels; on a log scale, exponents of ten."""
    if log and math.floor(high) > math.ceil(low):
        first, last = math.ceil(low), math.floor(high)
        every = math.ceil((last - first + 1) / limit)
        return [(float(k), f"{10.0**k:g}") for k in range(first, last + 1) if k % every == 0]
    if log:
        ends = 10.0 ** min(low, 308.25), 10.0 ** min(high, 308.25)  # more would overflow
        return [(math.log10(value), label) for value, label in _ticks(*ends, limit, log=False) if value > 0]
    span = high / limit - low / limit
    power = 10.0 ** math.floor(math.log10(span)) if span > 0 else 0.0
    if not power or not math.isfinite(high / power):
        return [(high, f"{high:.6g}")]
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= span * (1 - 1e-9))
    if step == math.inf:
        return [(high, f"{high:.6g}")]
    digits = min(17, max(6, math.ceil(math.log10(max(abs(low), abs(high)) / step)) + 2))
    near = 1e-6  # the ends may have been rounded
    rounds = [k * step for k in range(math.ceil(low / step - near), math.floor(high / step + near) + 1)]
    return [(value, f"{value:.{digits}g}") for value in rounds]


def _foot(width: int, last: int) -> list[str]:
    """The lower side of the frame, with ticks at round numbers of 1 .. last, and the line of numbers below it."""
    side, below = ["─"] * width, [" "] * (width + 2)
    for value, _ in _ticks(1, last, max(3, width // (2 * len(str(last)) + 4)), log=False):
        label, place = str(round(value)), round((value - 1) / (last - 1) * (width - 1))
        start = max(0, min(place + 1 - len(label) // 2, width + 2 - len(label)))
        if value == round(value) and not "".join(below[max(0, start - 1) : start + len(label) + 1]).strip():
            side[place] = "┬"
            below[start : start + len(label)] = label
    return ["└" + "".join(side) + "┘", "".join(below).rstrip()]
