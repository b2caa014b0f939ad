"""predict.py reads cells as tables are read: numbers in their notations, and dates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.processes import examples
from twolayer.exporters import script, script_parts
from twolayer.tables import dates, notation
from twolayer.tables.features import Notation, Order

FORMS = [
    Notation(".", ",", "$"),
    Notation(",", ".", "", "€"),
    Notation(",", ""),
    Notation(".", "'", "CHF", ""),
    Notation(".", " ", "", "km"),
    Notation(".", "", "", "%"),
    Notation(",", "", "kr.", ""),
    Notation(".", "_", "", "m²"),
]
ODD = [
    "1,234",
    "(1,234.5)",
    "-(5)",
    "+-5",
    "- $ 5",
    "$-5",
    "1.234,50 €",
    "1 234 km",
    "12,34,567",
    "1'234.5",
    "\u22125",
    "٣",
    "5 %",
]
ODD += [
    "1e3 km",
    "1.5e-3€",
    "(5",
    "5)",
    ".5",
    "5.",
    "1,2",
    "1.234",
    "1.23",
    "kr. 5",
    "kr 5",
    "$ 1,234.5e2",
    "",
    "km",
    "1__2",
]
cells = st.one_of(
    st.sampled_from(ODD),
    st.text("0123456789", min_size=1, max_size=4).flatmap(
        lambda digits: st.tuples(
            st.sampled_from(["", "-", "+", "(", "$", "-$", "$-", "CHF ", "kr."]),
            st.just(digits),
            st.sampled_from(["", ",", ".", "'", " ", "\u00a0", "_"]),
            st.text("0123456789", max_size=3),
            st.sampled_from(["", ".5", ",50", "e2"]),
            st.sampled_from(["", "%", " €", "km", ")", " m²"]),
        ).map("".join)
    ),
)


def tried(read: Callable[[str, str], object], cell: str) -> object:
    """What a cell is read as; None if it is refused."""
    try:
        return read(cell, "c")
    except ValueError:
        return None


@pytest.mark.sample(4)
@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_read_as_in_tables(form: Notation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_parts, "NOTATIONS", {"c": script.patterns(form)})
    monkeypatch.setattr(script_parts, "SAME", notation.SAME)

    @examples(40)
    @given(cells)
    def check(cell: str) -> None:
        cell = cell.strip()
        known = pl.DataFrame({"cell": [cell]}).select(notation.parse(pl.col("cell"), form)).item()
        assert tried(script_parts.number, cell) == known, cell

    check()


@examples(40)
@given(cells)
def test_plain_numbers_are_read_as_in_tables(cell: str) -> None:
    cell = cell.strip()
    known = pl.DataFrame({"cell": [cell]}).select(notation.parse(pl.col("cell"), None)).item()
    assert tried(script_parts.number, cell) == known


days = st.tuples(
    st.sampled_from(["", "Mon, ", "tuesday "]), st.integers(0, 32).map(str), st.sampled_from(["", "st", "th"]),
    st.sampled_from(["/", "-", ".", " ", ""]), st.sampled_from(["1", "02", "13", "Feb", "march", "Sept.", "dec"]),
    st.sampled_from(["/", "-", ".", " ", ", "]), st.sampled_from(["1999", "2024", "68", "69", "24"]),
).map("".join)  # fmt: skip
ISO = ["2024-02-29", "2023-02-29", "2024-1-2", "2024/12/31", "2024-06", "24-01-02", "March 5, 2024", "2024-01-02T"]
clock = st.sampled_from(["10:20", "10:20:30", "0:05:59.25", "12:00 am", "12:30 p.m.", "13:00 pm", "25:00", "7:5"])
zones = st.sampled_from(["", "Z", " UTC", "+02:00", "-0530", "+14", "+15"])
moments = st.one_of(
    days, clock, st.sampled_from(ISO),
    st.tuples(st.one_of(days, st.sampled_from(ISO)), st.sampled_from([" ", "T", ", "]), clock, zones).map("".join),
)  # fmt: skip


@pytest.mark.parametrize("order", dates.ORDERS)
def test_dates_are_read_as_in_tables(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_parts, "DATES", {"c": dates.patterns(order)})
    monkeypatch.setattr(script_parts, "MONTHS", list(dates.MONTHS))
    parts = ("elapsed", "month sin", "weekday cos", "hour sin")

    @examples(40)
    @given(moments)
    def check(cell: str) -> None:
        cell = cell.strip()
        known = pl.DataFrame({"cell": [cell]}).select(dates.parse(pl.col("cell"), order))
        found = tried(script_parts.date, cell)
        assert found == known.item(), cell
        if isinstance(found, datetime):
            numbers = [script_parts.part_of(found, part) for part in parts]
            assert numbers == pytest.approx([dates.part_of(known.to_series(), part)[0] for part in parts], abs=1e-9)

    check()
