from __future__ import annotations

import ipaddress
from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.processes import examples
from twolayer.tables.codes import find
from twolayer.tables.column_types import Column, decide
from twolayer.tables.options import FileData


def column(cells: list[str], **options: Any) -> Column:
    return decide(pl.Series("a", cells), FileData(path="t.csv", target=["y"], **options))


@pytest.mark.parametrize(
    ("cells", "code"),
    [
        (["02134", "10001"], "digits with zeros in front"),
        (["01", "02", "12"], "digits with zeros in front"),
        (["10.0.0.1", "192.168.100.101"], "IPv4 addresses"),
        (["192.168.100.101", "192.168.100.102"], "IPv4 addresses"),  # could be thousands, of billions
        (["1.2.3", "1.2.10"], "versions or the like"),  # the second alone could be a date
        (["8.0.100", "8.0.200", "10.0.19041"], "versions or the like"),
        (["20.04.1", "22.04.3"], "versions or the like"),
        (["555.123.4567", "555.123.4568"], "versions or the like"),
        (["+44 20 7946 0958", "+442079460959"], "phone numbers"),
        (["+49 301 234 567", "+49 301 234 568"], "phone numbers"),  # could be thousands
        (["+1 (555) 123-4567", "+1-555-123-4567"], "phone numbers"),
    ],
)
def test_a_code_stays_text_and_is_told(cells: list[str], code: str) -> None:
    found = column(cells)
    assert (found.kind, found.cells.to_list(), found.code, found.refused) == ("category", cells, code, "")


@pytest.mark.parametrize(
    "cells",
    [
        ["(555) 123-4567", "555-1234", "+44 20 7946 0958"],
        ["(555) 123-4567", "(555) 123-4568"],
        ["555-1234", "555-9999"],
        ["030 123 456", "0171 2345678"],
        ["01 23 45 67 89", "01 23 45 67 90"],
        ["555 1234", "555 9999"],
        ["10.0.0.1", "10.0.0.2", "gateway"],
        ["001 234", "012 345"],
    ],
)
def test_digits_that_follow_no_notation_are_text(cells: list[str]) -> None:
    found = column(cells)
    assert (found.kind, found.cells.to_list(), found.refused) == ("category", cells, "")


@pytest.mark.parametrize(
    ("cells", "refused", "decide"),
    [
        (["1.2.10", "1.2.11"], "what may be dates or versions, such as 1.2.10", '"date_order": "dmy"'),
        (["1.2.10", "2.4.11", "3.1.12", "4.4.10", "13.1.12"], "what may be dates or versions", '"date_order": "dmy"'),
        (["21.3.24", "3.21.24"], "what may be dates or versions", '"date_order": "dmy"'),
        (["1.13.10", "1.14.11"], "what may be dates or versions, such as 1.13.10", "add {it} to data.categories"),
        (["555 123 456", "555 123 457"], "phone numbers and codes, such as 555 123 456", '{"thousands": " "}'),
        (["001,234", "012,345"], "ways, such as 001,234", '","} (for 1234) or data={"decimal": ","} (for 1.234)'),
        (["001.234", "345"], "ways, such as 001.234", '"."} (for 1234) or data={"decimal": "."} (for 1.234)'),
    ],
)  # fmt: skip
def test_what_may_be_a_code_or_a_value_is_refused_with_the_keys(cells: list[str], refused: str, decide: str) -> None:
    found = column(cells)
    assert refused in found.refused
    assert decide in found.decide


@pytest.mark.parametrize(
    ("cells", "options", "values"),
    [
        (["001,234", "012,345"], {"thousands": ","}, [1234, 12345]),
        (["001,234", "012,345"], {"decimal": ","}, [1.234, 12.345]),
        (["001,234", "1,234,567"], {}, [1234, 1234567]),
        (["$001,234", "$012,345"], {}, [1234, 12345]),
        (["001,5", "012,25"], {}, [1.5, 12.25]),
        (["001.234", "012.345"], {}, [1.234, 12.345]),
        (["555 123 456"], {"thousands": " "}, [555123456]),
        (["1 234", "567"], {}, [1234, 567]),
        (["1.234.567", "2.345"], {}, [1234567, 2345]),
        (["+1234.567", "+2345.678"], {}, [1234.567, 2345.678]),
        (["+5", "-3"], {}, [5, -3]),
        (["01", "12"], {"numbers": "a"}, [1, 12]),
        (["+442079460958"], {"numbers": ["a"]}, [442079460958]),
    ],
)
def test_numbers_that_look_like_codes_are_numbers(
    cells: list[str], options: dict[str, Any], values: list[float]
) -> None:
    found = column(cells, **options)
    assert (found.kind, found.cells.to_list(), found.refused) == ("number", values, "")


def test_a_date_order_or_a_sure_date_makes_dates_of_them() -> None:
    assert column(["1.2.10", "3.4.11"], date_order="dmy").kind == "date"
    assert column(["01.02.10", "13.5.11"]).kind == "date"
    assert column(["13.2.2010", "14.3.2011"]).kind == "date"


@examples(60)
@given(
    st.lists(st.dates(date(1970, 1, 1), date(2068, 12, 31)), min_size=1, max_size=8), st.sampled_from([".", "/", "-"])
)
def test_dates_without_zeros_in_front_come_back_or_are_refused(days: list[date], sign: str) -> None:
    for order, form in (("dmy", "{0.day}{1}{0.month}{1}{2}"), ("mdy", "{0.month}{1}{0.day}{1}{2}")):
        for years in (4, 2):
            cells = [form.format(day, sign, f"{day:%Y}"[-years:]) for day in days]
            found = column(cells)
            assert found.refused or [when.date() for when in found.cells] == days
            if order == "dmy" and sign == "." and all(day.day > 12 for day in days):
                assert not found.refused
            decided = column(cells, date_order=order)
            assert [when.date() for when in decided.cells] == days


def test_a_column_named_as_numbers_that_holds_others_is_refused() -> None:
    found = column(["x", "02"], numbers=["a"])
    assert (found.refused, found.decide) == (
        "{is} in data.numbers, but {holds} other values", "take {it} out of that list"
    )  # fmt: skip


@examples(60)
@given(st.lists(st.integers(0, 2**32 - 1).map(lambda n: str(ipaddress.IPv4Address(n))), min_size=1, max_size=6))
def test_every_ipv4_address_is_one(cells: list[str]) -> None:
    found = find(pl.Series("a", cells))
    assert found is not None
    assert found.what == "IPv4 addresses"


@examples(60)
@given(
    st.lists(
        st.tuples(st.integers(1, 999), st.lists(st.integers(0, 9999).map("{:04}".format), min_size=1, max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_a_phone_number_with_the_code_of_its_country_is_never_a_number(parts: list[tuple[int, list[str]]]) -> None:
    cells = [f"+{code}{''.join(f' {part}' for part in groups)}" for code, groups in parts]
    assert column(cells).kind == "category"
