from __future__ import annotations

import math
import re
import subprocess
import sys
import warnings
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.processes import examples
from twolayer.reporting.downsampling import spans_decades
from twolayer.reporting.text_chart import draw

DOTS = re.compile(r"[\u2801-\u28ff]")


def plain(
    values: Sequence[float], width: int = 60, height: int = 12, *, log: bool = False, ascii_only: bool = False
) -> list[str]:
    return draw({"loss": values}, width, height, log=log, colour=False, ascii_only=ascii_only)


def heights(lines: list[str]) -> list[float]:
    """For each column of the frame that has dots, the line of its highest one, from below (a dot is a quarter)."""
    left = lines[0].index("┌") + 1
    found = []
    for column in range(left, len(lines[0]) - 1):
        for number, line in enumerate(lines[1:-2]):
            if column < len(line) and (bits := ord(line[column]) - 0x2800) > 0 and DOTS.match(line[column]):
                top = next(row for row, mask in enumerate((0x09, 0x12, 0x24, 0xC0)) if bits & mask)
                found.append(len(lines) - 4 - number + (3 - top) / 4)
                break
    return found


@examples(50)
@given(
    st.lists(st.floats(), max_size=300),
    st.lists(st.floats(), max_size=300),
    st.integers(40, 130),
    st.integers(5, 30),
    st.booleans(),
    st.booleans(),
)
@example(a=[], b=[1.7976931348623157e308, -2.0230686713768455e307], width=40, height=5, log=False, ascii_only=False)
def test_whatever_the_numbers_the_curve_has_its_size(
    a: list[float], b: list[float], width: int, height: int, log: bool, ascii_only: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines = draw({"loss": a, "val_loss": b}, width, height, log=log, colour=False, ascii_only=ascii_only)
    drawable = [value for value in [*a, *b] if math.isfinite(value) and (value > 0 or not log)]
    assert len(lines) == (height + 3 if drawable else 0)
    assert all(len(line) <= width for line in lines)
    assert not lines or len(lines[0]) == width
    if ascii_only:
        assert all(line.isascii() and line.isprintable() for line in lines)


def test_a_chart_waits_for_no_compiler() -> None:
    program = (
        "import sys\n"
        "from twolayer.reporting.text_chart import draw\n"
        "draw({'loss': [1, 2, 3]}, 40, 8, log=False, colour=False, ascii_only=True)\n"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_line_is_drawn_as_a_line() -> None:
    found = heights(plain([float(t) for t in range(1, 201)]))
    assert len(found) == 60 - 5
    expected = [12 * (i + 0.5) / len(found) for i in range(len(found))]
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 0.6


def test_on_a_log_scale_an_exponential_is_a_line() -> None:
    falling = [1000 * math.exp(-t / 20) for t in range(200)]
    found = heights(plain(falling, log=True))
    expected = [12 * (1 - (i + 0.5) / len(found)) for i in range(len(found))]
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 0.6
    bent = heights(plain(falling))
    assert bent[len(bent) // 2] < 1


def test_a_spike_of_one_in_a_hundred_thousand_is_seen() -> None:
    values = [1.0] * 100_000
    values[70_123] = 2.0
    lines = plain(values)
    place = lines[0].index("┌") + 1 + round(0.70123 * (60 - 5))
    assert DOTS.search(lines[1][place - 2 : place + 3])


@pytest.mark.parametrize(
    ("values", "log", "expected"),
    [
        ([0.0, 500.0], False, ["0", "100", "200", "300", "400", "500"]),
        ([1e-5, 650.0], True, ["0.0001", "0.01", "1", "100"]),
        ([20.0, 30.0], True, ["20", "22", "24", "26", "28", "30"]),
        ([3.0, 3.0], False, ["3"]),
        ([3.00000001, 3.00000002], False, ["3.00000001", "3.000000014", "3.00000002"]),
        ([1e300, 1e308], False, ["2e+307", "4e+307", "6e+307", "8e+307", "1e+308"]),
    ],
)
def test_the_ticks_are_round_numbers(values: list[float], log: bool, expected: list[str]) -> None:
    found = [line.partition("┤")[0].strip() for line in plain(values, log=log) if "┤" in line]
    assert [label for label in expected if label not in found] == []


@given(st.floats(-1e300, 1e300), st.floats(1e-290, 1e300), st.booleans())
def test_a_tick_stands_where_its_number_is(low: float, span: float, log: bool) -> None:
    low, high = (abs(low) + 1e-290, abs(low) + span) if log else (low, low + span)
    scale = math.log10 if log else float
    if not low < high or (high - low) / max(abs(low), abs(high)) < 1e-9:
        return
    for row, line in enumerate(plain([low, high], height=20, log=log)[1:-2]):
        if "┤" in line:
            value = float(line.partition("┤")[0])
            if log and value <= 0:
                raise AssertionError("a log scale has no such number")
            share = (scale(value) / 2 - scale(low) / 2) / (scale(high) / 2 - scale(low) / 2)
            assert abs((1 - share) * 19 - row) < 0.6


@pytest.mark.parametrize("last", [1, 2, 3, 10, 500, 99_999, 1_000_000])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_numbers_below_stand_at_their_rows(last: int, width: int) -> None:
    *_, side, below = plain([1.0] * last, width, 5)
    left = side.index("└") + 1
    inner = len(side) - left - 1
    numbers = [(match.start() + len(match[0]) // 2, int(match[0])) for match in re.finditer(r"\d+", below)]
    ticks = [match.start() for match in re.finditer("┬", side)]
    assert len(numbers) == len(ticks) >= (1 if last == 1 or width == 40 else 2)
    for (middle, number), tick in zip(numbers, ticks, strict=True):
        assert abs(left + (number - 1) / max(1, last - 1) * (inner - 1) - tick) < 1
        assert abs(middle - tick) <= len(str(number)) / 2 + 1  # clear of the edge, perhaps
    assert len(below) <= width


def test_two_curves_are_told_apart_by_colour_or_else_by_marks() -> None:
    curves = {"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 2.9, 2.8]}
    coloured = "\n".join(draw(curves, 60, 8, log=False, colour=True, ascii_only=False))
    assert "\x1b[34m" in coloured
    assert "\x1b[33m" in coloured
    plainly = "\n".join(draw(curves, 60, 8, log=False, colour=False, ascii_only=False))
    assert ("•" in plainly, "∘" in plainly, "\x1b" in plainly) == (True, True, False)
    ascii_ = "\n".join(draw(curves, 60, 8, log=False, colour=False, ascii_only=True))
    assert ("*" in ascii_, "o" in ascii_, ascii_.isascii()) == (True, True, True)


@pytest.mark.parametrize(
    ("values", "spans"),
    [
        ([], False),
        ([1.0, 100.0], False),
        ([1.0, 100.1], True),
        ([0.0, 1.0, 2.0], False),
        ([-5.0, 1.0, math.nan, math.inf], False),
        ([5e-324, 1.7e308], True),
    ],
)
def test_a_log_scale_is_for_more_than_two_decades(values: list[float], spans: bool) -> None:
    assert spans_decades(values) is spans
