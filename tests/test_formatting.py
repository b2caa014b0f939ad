from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twolayer import formatting
from twolayer.formatting import duration, json_number, microseconds_unit, nearest, no_formula, safe, size, with_error
from twolayer.tables import formulas


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ([67595.0, 349012.3456, 120034.0, 999743534.123], ["67595", "349012", "120034", "999743534"]),
        ([-1.5, 0.49876, 0.0, 26.34], ["-1.5", "0.4988", "0", "26.34"]),
        ([1000.0, 0.0012345, 99.99999, math.nan], ["1000", "0.001234", "100", "nan"]),
        ([-1e-7, 3.33333e-9, 0.0, 2e-7], ["-1e-07", "3.333e-09", "0", "2e-07"]),
        ([2e12, 0.5, 1e300, math.inf], ["2e+12", "0.5", "1e+300", "inf"]),
        ([300.0, 1e-9, 12.0, 5.0], ["300", "1e-09", "12", "5"]),
    ],
)
def test_numbers_of_a_line_have_one_notation_and_keep_their_whole_parts(numbers: list[float], texts: list[str]) -> None:
    assert formatting.alike(numbers, [6, 4, 4, 6]) == texts


@given(st.lists(st.floats(1e-3, 1e11) | st.floats(-1e11, -1e-3) | st.just(0.0)), st.integers(1, 9))
def test_what_is_rounded_for_a_line_is_off_by_half_a_digit_at_most(numbers: list[float], digits: int) -> None:
    for number, text in zip(numbers, formatting.alike(numbers, [digits] * len(numbers)), strict=True):
        assert "e" not in text
        assert abs(float(text) - number) <= 0.5000001 * abs(number) * 10.0 ** (1 - digits)


@given(st.text())
def test_safe_text_is_printable_and_printable_text_is_left_alone(text: str) -> None:
    assert safe(text).isprintable()
    if text.isprintable():
        assert safe(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m", r"a\x1b[31m"),
        ("a\nb", r"a\nb"),
        ("\x9b", r"\x9b"),
        ("\u202e", r"\u202e"),
        ("\udcff", r"\udcff"),
        ("é[red]", "é[red]"),
    ],
)
def test_what_a_terminal_could_act_on_is_written_as_an_escape(text: str, shown: str) -> None:
    assert safe(text) == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5e-5, "25 µs"),
        (0.0123, "12.3 ms"),
        (0.9996e-3, "1 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (1.5, "1.5 s"),
        (61.0, "61 s"),
        (200.0, "3 min 20 s"),
        (7320.0, "2 h 2 min"),
    ],
)
def test_durations_are_written_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.5352, 0.0631, "0.535 ± 0.063"),
        (541234.567, 0.123, "541234.57 ± 0.12"),
        (1.0, 2.22e-16, "1.000000 ± 2.2e-16"),
        (0.99999999999, 3e-14, "1.000000 ± 3.0e-14"),
        (81.25, 1e-12, "81.25000 ± 1.0e-12"),
        (123456789.0, 1e-6, "123456789 ± 1.0e-06"),
        (2e-15, 1e-16, "2.00e-15 ± 1.0e-16"),
        (3e-5, 1e-19, "3.000000e-05 ± 1.0e-19"),
        (1.0, 0.0, "1 ± 0"),
        (1.5, None, "1.5"),
    ],
)
def test_a_score_has_no_digits_beyond_its_standard_error_nor_beyond_its_rounding(
    value: float, error: float | None, text: str
) -> None:
    assert with_error(value, error) == text


def test_a_console_of_ascii_gets_us_for_microseconds() -> None:
    assert duration(2.5e-5, microseconds_unit(ascii_only=True)) == "25 us"
    assert duration(2.5e-5, microseconds_unit(ascii_only=False)) == "25 µs"


@pytest.mark.parametrize(("value", "number"), [(1.5, 1.5), (float("nan"), None), (float("inf"), None)])
def test_what_json_has_no_number_for_is_null(value: float, number: float | None) -> None:
    assert json_number(value) == number


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2**40, "1 TiB"),
        (2**70, "1048576 PiB"),
    ],
)
def test_sizes_are_written_in_the_unit_that_suits_them(count: int, text: str) -> None:
    assert size(count) == text


def test_a_cell_that_is_printed_and_one_that_is_written_are_formulas_alike() -> None:
    unseen = (chr(number) for number in [*range(0xD800), *range(0xE000, 0x10000), *range(0xE0000, 0xE1001)])
    cells = [text for letter in unseen for text in (letter, f"{letter}=1", f"  {letter}\u200b@x")]
    cells += [
        "",
        " ",
        "  =1",
        "-1",
        "+1.5e-3",
        "-1,5",
        "-",
        "--1",
        "-1%",
        "=1",
        "a=1",
        "\t1",
        "\u00a0\u00a0-x",
        " \n+1",
    ]
    frame = pl.DataFrame({"cell": cells}).select(formulas.quoted("cell"))
    assert [no_formula(cell) for cell in cells] == frame["cell"].to_list()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Prise", "Price"), ("tagret", "target"), ("sxe", "sex"), ("AGE", "age"), ("targe", "target"), ("q", None)],
)
def test_a_name_is_meant_only_where_it_is_near(name: str, meant: str | None) -> None:
    assert nearest(name, ["age", "Price", "target", "sex"]) == meant
    assert nearest("target", ["age", "sex"]) is None


def test_messages_name_arguments_until_the_command_line_asks_for_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [("data.decimal", ","), ("data.thousands", " "), ("data.target", "COLUMN"), ("device", "cpu")]
    assert [formatting.setting(*one) for one in asked] == [
        'data={"decimal": ","}', 'data={"thousands": " "}', 'data={"target": "COLUMN"}', 'device="cpu"',
    ]  # fmt: skip
    assert formatting.flag("force") == "force=True"
    monkeypatch.setattr(formatting, "_speech", {"options": False})
    formatting.speak_of_options()
    assert [formatting.setting(*one) for one in asked] == [
        "--set data.decimal=,", '--set "data.thousands= "', "--target COLUMN", "--device cpu",
    ]  # fmt: skip
    assert formatting.flag("force") == "--force"
