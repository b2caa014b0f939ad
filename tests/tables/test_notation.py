from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.processes import examples
from twolayer.tables.features import Notation
from twolayer.tables.notation import find, has_leading_zeros, parse


def values(cells: list[str], notation: Notation | None) -> list[float | None]:
    return pl.DataFrame({"cell": cells}).select(parse(pl.col("cell"), notation)).to_series().to_list()


@pytest.mark.parametrize(
    ("cells", "notation", "numbers"),
    [
        (["$5.90", "$-1,234.50", "-$3", "($7)"], Notation(".", ",", "$", ""), [5.9, -1234.5, -3, -7]),
        (["$1,500", "$2,500"], Notation(".", ",", "$", ""), [1500, 2500]),
        (["5,90 €", "1.234,50 €"], Notation(",", ".", "", "€"), [5.9, 1234.5]),
        (["23%", "-5 %"], Notation(".", "", "", "%"), [23, -5]),
        (["28 kg", "3kg"], Notation(".", "", "", "kg"), [28, 3]),
        (["5 m²", "7.5 m²"], Notation(".", "", "", "m²"), [5, 7.5]),
        (["US$ 5", "US$ 7.5"], Notation(".", "", "US$", ""), [5, 7.5]),
        (["EUR 5", "EUR 1,234,567"], Notation(".", ",", "EUR", ""), [5, 1234567]),
        (["1'234.5", "3"], Notation(".", "'", "", ""), [1234.5, 3]),
        (["1\u202f234", "\u22125"], Notation(".", " ", "", ""), [1234, -5]),
        (["1\u00a0234,5", "3"], Notation(",", " ", "", ""), [1234.5, 3]),
        (["12,34,567", "3"], Notation(".", ",", "", ""), [1234567, 3]),
        (["1_000", "2"], Notation(".", "_", "", ""), [1000, 2]),
        (["\u0663\u066b\u0665", "\u0667"], Notation(), [3.5, 7]),
        (["+5", "(3)", "1e3", "5."], Notation(), [5, -3, 1000, 5]),
        (["1,5", "2"], Notation(",", "", "", ""), [1.5, 2]),
        (["0,234", "1,234"], Notation(",", "", "", ""), [0.234, 1.234]),
        (["1.234", "1.234.567"], Notation(",", ".", "", ""), [1234, 1234567]),
        (["7.760", "2.542"], Notation(), [7.76, 2.542]),
        (["776", "2.5"], Notation(), [776, 2.5]),
        (["1776", "2.542"], Notation(), [1776, 2.542]),
        (["0.776", "2.542", "3"], Notation(), [0.776, 2.542, 3]),
    ],
)
def test_a_notation_that_all_cells_follow_is_found_and_read(
    cells: list[str], notation: Notation, numbers: list[float]
) -> None:
    found = find(pl.Series("cell", cells))
    assert (found.notation, found.unclear) == (notation, False)
    assert values(cells, notation) == numbers


@pytest.mark.parametrize(
    ("cells", "thousands", "decimals"),
    [
        (["1,234", "999"], [1234, 999], [1.234, 999]),
        (["2.542", "776"], [2542, 776], [2.542, 776]),
        (["1,500 €", "2,500 €"], [1500, 2500], [1.5, 2.5]),
    ],
)
def test_two_readings_are_unclear_until_an_option_decides(
    cells: list[str], thousands: list[float], decimals: list[float]
) -> None:
    series = pl.Series("cell", cells)
    mark = "," if "," in cells[0] else "."
    assert find(series).unclear
    for options, numbers in (
        ({"thousands": mark}, thousands),
        ({"decimal": mark}, decimals),
        ({"thousands": "none"}, decimals),
        ({"decimal": "," if mark == "." else "."}, thousands),
    ):
        found = find(series, **options)
        assert not found.unclear
        assert values(cells, found.notation) == numbers


@pytest.mark.parametrize(
    "cells",
    [
        ["$5", "5"],
        ["5 kg", "6 g"],
        ["5-6"],
        ["1st", "2nd"],
        ["3+", "2"],
        ["(5"],
        ["-(5)"],
        ["1.2.3"],
        ["1,23"[::-1] + ",4"],
        ["001 234", "012 345"],
    ],
)
def test_what_follows_no_notation_is_no_number(cells: list[str]) -> None:
    assert find(pl.Series("cell", cells)).notation is None


def test_a_plain_number_is_read_in_every_notation_unless_its_point_could_be_the_thousands() -> None:
    assert values(["5.9", "1200", "1,200.5", "$5", "5 €"], Notation(".", ",", "$", "")) == [5.9, 1200, None, 5, None]
    assert values(["5.95", "1.234", "1,5"], Notation(",", "", "", "")) == [5.95, None, 1.5]
    assert values(["5.95", "1.234", "12"], Notation(",", ".", "", "")) == [None, 1234, 12]


def test_digits_with_zeros_in_front_are_a_code() -> None:
    assert has_leading_zeros(pl.Series(["02134", "10001"]))
    assert not has_leading_zeros(pl.Series(["0", "10001"]))
    assert not has_leading_zeros(pl.Series(["02134", "0.5"]))


MARKS = st.sampled_from(
    [(",", "."), (".", ","), ("'", "."), ("\u2019", ","), (" ", ","), ("\u202f", "."), ("", "."), ("", ","), ("_", ".")]
)
AFFIXES = st.sampled_from([("", ""), ("$", ""), ("US$ ", ""), ("", " €"), ("", "%"), ("", " kg"), ("CHF ", "")])
DIGITS = st.sampled_from(["".join(chr(zero + i) for i in range(10)) for zero in (0x30, 0x660, 0x966, 0xFF10, 0x11066)])


def written(number: float, thousands: str, decimal: str, digits: str, negative: str) -> str:
    """An independent writer: Python's own groups, with other signs."""
    text = f"{abs(number):,.2f}".replace(",", "\0").replace(".", decimal).replace("\0", thousands)
    text = text.translate(str.maketrans("0123456789", digits))
    return negative.format(text) if number < 0 else text


@examples(50)
@given(
    numbers=st.lists(st.integers(-(10**9), 10**9).map(lambda n: n / 100), min_size=1, max_size=8),
    marks=MARKS,
    affixes=AFFIXES,
    digits=DIGITS,
    negative=st.sampled_from(["-{}", "({})", "\u2212{}"]),
)  # fmt: skip
def test_any_number_in_any_notation_comes_back_or_is_unclear(
    numbers: list[float], marks: tuple[str, str], affixes: tuple[str, str], digits: str, negative: str
) -> None:
    cells = [affixes[0] + written(number, *marks, digits, negative) + affixes[1] for number in numbers]
    cells = [cell if "(" not in cell else "(" + cell.replace("(", "").replace(")", "") + ")" for cell in cells]
    found = find(pl.Series("cell", cells))
    assert found.notation is not None
    assert not found.unclear  # two decimals decide
    assert values(cells, found.notation) == pytest.approx(numbers)


@examples(100)
@given(
    numbers=st.lists(st.integers(0, 10**7), min_size=1, max_size=6),
    mark=st.sampled_from([",", ".", "'", " "]),
    affixes=AFFIXES,
)
def test_whole_numbers_with_thousands_come_back_or_are_unclear(
    numbers: list[int], mark: str, affixes: tuple[str, str]
) -> None:
    cells = [affixes[0] + f"{number:,}".replace(",", mark) + affixes[1] for number in numbers]
    found = find(pl.Series("cell", cells))
    assert found.notation is not None
    decimals = mark == "." and all(1000 <= number < 10**6 for number in numbers)  # as a table of three decimals
    assert found.unclear or decimals or values(cells, found.notation) == numbers
