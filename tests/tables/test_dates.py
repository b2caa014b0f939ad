from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.processes import examples
from twolayer.tables.dates import find, parse, part_of, typed
from twolayer.tables.features import Order


def read(cells: list[str], order: Order) -> list[datetime | None]:
    return pl.DataFrame({"cell": cells}).select(parse(pl.col("cell"), order)).to_series().to_list()


@pytest.mark.parametrize(
    ("cells", "order", "first"),
    [
        (["2019-04-28", "2019-04-28T10:00:01.5Z"], "ymd", datetime(2019, 4, 28)),
        (["2019/04/28"], "ymd", datetime(2019, 4, 28)),
        (["2019-04"], "ymd", datetime(2019, 4, 1)),
        (["4/28/2019", "11/5/2019"], "mdy", datetime(2019, 4, 28)),
        (["28.04.2019", "1.5.2019 13:45"], "dmy", datetime(2019, 4, 28)),
        (["28/04/99"], "dmy", datetime(1999, 4, 28)),
        (["21 Feb 2020", "Feb 3, 2020"], "ymd", datetime(2020, 2, 21)),
        (["21-feb-20"], "ymd", datetime(2020, 2, 21)),
        (["Friday, 21st February 2020"], "ymd", datetime(2020, 2, 21)),
        (["Fri, 21 Feb 2020 10:00:00 +0200"], "ymd", datetime(2020, 2, 21, 8)),
        (["2019-12-24 23:00:00-05:00"], "ymd", datetime(2019, 12, 25, 4)),
        (["05:51", "23:10:05"], "time", datetime(1970, 1, 1, 5, 51)),
        (["1:45 PM", "12:00 am"], "time", datetime(1970, 1, 1, 13, 45)),
        (["03/03/2019", "05/05/2019"], "dmy", datetime(2019, 3, 3)),
    ],
)
def test_dates_and_times_as_people_write_them_are_read(cells: list[str], order: Order, first: datetime) -> None:
    assert find(pl.Series("cell", cells)) == (order, False)
    found = read(cells, order)
    assert found[0] == first
    assert None not in found


@pytest.mark.parametrize(
    "cells",
    [
        ["2020-02-30"],
        ["13:70"],
        ["26:10"],
        ["09:00-17:00"],
        ["2009/10"],
        ["2020-01-01 09:00-17:00"],
        ["2019-13-01"],
        ["x"],
        ["32.01.2020"],
        ["1.5"],
        ["5-6"],
    ],
)
def test_what_is_no_date_is_none(cells: list[str]) -> None:
    assert find(pl.Series("cell", cells)) == (None, False)


@pytest.mark.parametrize("cell", ["09:00-17:00", "2020-01-01 09:00-17:00", "2009/10"])
def test_a_range_of_times_and_a_season_are_no_dates(cell: str) -> None:
    assert find(pl.Series("cell", [cell])) == (None, False)


def test_a_date_that_fits_two_orders_is_unclear_until_the_option_decides() -> None:
    cells = pl.Series("cell", ["01/02/2019", "03/04/2019"])
    assert find(cells)[1]
    assert find(cells, "dmy") == ("dmy", False)
    assert find(cells, "mdy") == ("mdy", False)
    assert read(["01/02/2019"], "mdy") == [datetime(2019, 1, 2)]
    assert find(pl.Series("cell", ["01/02/2019", "13/02/2019"])) == ("dmy", False)
    assert find(pl.Series("cell", ["20-02-21", "19-05-13"]))[1]
    assert find(pl.Series("cell", ["99/12/31"])) == ("ymd", False)
    assert read(["20-02-21"], "ymd") == [datetime(2020, 2, 21)]
    assert find(pl.Series("cell", ["13/02/2019", "02/13/2019"])) == (None, False)


FORMATS = {
    "ymd": ["%Y-%m-%d", "%Y/%m/%d %H:%M:%S", "%Y.%m.%dT%H:%M", "%d %B %Y", "%b %d, %Y", "%a, %d %b %Y %H:%M"],
    "dmy": ["%d.%m.%Y", "%d/%m/%Y %H:%M", "%d-%m-%y"],
    "mdy": ["%m/%d/%Y", "%m-%d-%Y %I:%M %p", "%m/%d/%y"],
}


def test_the_order_that_is_given_decides_where_the_year_may_come_first() -> None:
    cells = pl.Series("cell", ["02-01-01"])
    assert find(cells)[1]
    for order, day in (("dmy", datetime(2001, 1, 2)), ("mdy", datetime(2001, 2, 1)), ("ymd", datetime(2002, 1, 1))):
        assert find(cells, order) == (order, False)
        assert read(["02-01-01", "2020-03-04"], order) == [day, datetime(2020, 3, 4)]  # type: ignore[arg-type]


@examples(30)
@given(
    moments=st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31)), min_size=1, max_size=6),
    pair=st.sampled_from([(order, form) for order, forms in FORMATS.items() for form in forms]),
)
def test_any_date_in_any_order_comes_back_or_is_unclear(moments: list[datetime], pair: tuple[Order, str]) -> None:
    order, form = pair
    cells = [moment.strftime(form) for moment in moments]
    expected = [datetime.strptime(cell, form) for cell in cells]
    found, unclear = find(pl.Series("cell", cells))
    assert found is not None
    assert unclear or read(cells, found) == expected
    assert find(pl.Series("cell", cells), order)[1] is False
    assert read(cells, order) == expected


def test_the_parts_of_a_date_are_those_of_the_calendar() -> None:
    moments = [datetime(2019, 1, 7, 6), datetime(2020, 7, 2, 18, 30), None]
    cells = pl.Series(moments, dtype=pl.Datetime("us"))
    days = [(moment - datetime(1970, 1, 1)) / timedelta(days=1) for moment in moments[:2] if moment]
    np.testing.assert_allclose(part_of(cells, "elapsed"), [*days, np.nan])
    turns = {"month": [0, 0.5], "weekday": [0, 3 / 7], "hour": [0.25, 18.5 / 24]}
    for part, share in turns.items():
        for name, function in (("sin", np.sin), ("cos", np.cos)):
            expected = [*function(2 * np.pi * np.array(share)), np.nan]
            np.testing.assert_allclose(part_of(cells, f"{part} {name}"), expected, atol=1e-12)


def test_typed_dates_and_times_are_moments_in_utc() -> None:
    moment = datetime(2020, 2, 21, 10, 30, tzinfo=UTC)
    zoned = pl.Series([moment]).dt.convert_time_zone("Europe/Berlin")
    assert typed(zoned).to_list() == [datetime(2020, 2, 21, 10, 30)]
    assert typed(pl.Series([moment.date()])).to_list() == [datetime(2020, 2, 21)]
    assert typed(pl.Series([moment.time()])).to_list() == [datetime(1970, 1, 1, 10, 30)]
