from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest

from twolayer.tables.column_types import decide, is_row_number, rises_by_one
from twolayer.tables.options import FileData


def column(cells: list[Any], *, as_categories: bool = False, **options: Any) -> Any:
    data = FileData(path="t.csv", target=["y"], **options)
    return decide(pl.Series("a", cells), data, as_categories=as_categories)


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "2.5", None], "number", [1, 2.5, None]),
        (["$5", "?", "$7"], "number", [5, None, 7]),
        (["?", "?", "?", "3"], "number", [None, None, None, 3]),
        (["3", "unknown", "#DIV/0!", "-nan(ind)", "-", "None"], "number", [3, None, None, None, None, None]),
        (["2020-01-02", "-"], "date", [datetime(2020, 1, 2), None]),
        (["True", "FALSE", None], "boolean", [True, False, None]),
        (["02134", "10001"], "category", ["02134", "10001"]),
        (["a", "-", "b"], "category", ["a", "-", "b"]),
        (["1st", "2nd", "1st"], "category", ["1st", "2nd", "1st"]),
        ([1, 2, 3], "number", [1, 2, 3]),
        ([20190428, 20190429], "number", [20190428, 20190429]),
    ],
)
def test_a_column_is_what_its_cells_are(cells: list[Any], kind: str, values: list[Any]) -> None:
    found = column(cells)
    assert (found.kind, found.cells.to_list(), found.refused, found.useless) == (kind, values, "", "")


@pytest.mark.parametrize(
    ("cells", "options", "example"),
    [
        (["2", "30000"], {"decimal": ","}, ""),  # as any number is written: nothing is to be said
        (["30000", "2,5"], {"decimal": ","}, "2,5"),
        (["30000", "1.500"], {"decimal": ","}, "1.500"),  # 1500, and not the number that it would be otherwise
        (["1e3", "5", "-7.25"], {}, ""),
        (["$5", "$1,000"], {}, "$1,000"),
    ],
)
def test_the_example_of_a_notation_is_a_cell_that_is_another_number_or_none_without_it(
    cells: list[str], options: dict[str, Any], example: str
) -> None:
    assert column(cells, **options).example == example


@pytest.mark.parametrize(
    ("cells", "refused", "decide"),
    [
        (["0", "1", "2", "3+"], "1 of 4 values are not numbers; the first is '3+' in row 4", "data.categories"),
        ([*["2020-01-01"] * 3, "later"], "1 of 4 values are not dates; the first is 'later' in row 4", "data.na"),
        (["1,500", "999"], "two ways, such as 1,500", '","} (for 1500) or data={"decimal": ","} (for 1.500)'),
        (["1.500", "999"], "two ways, such as 1.500", '"."} (for 1500) or data={"decimal": "."} (for 1.500)'),
        (["1/2/2020", "3/4/2020"], "can be read in two ways, such as 1/2/2020", '"date_order": "dmy"'),
        (["$5", "10", "$7"], "written in several ways, such as $5, 10", "write all of them in one way"),
        (["1,5", "2.5", "3"], "written in several ways", "data.categories"),
        ([f"{i} {'kg' if i % 2 else 'g'}" for i in range(30)], "written in several ways, such as 0 g", "categories"),
    ],
)  # fmt: skip
def test_what_only_the_user_knows_is_refused_with_the_key_that_decides(
    cells: list[str], refused: str, decide: str
) -> None:
    found = column(cells)
    assert refused in found.refused
    assert decide in found.decide


def test_the_keys_decide() -> None:
    assert column(["1,500", "999"], thousands=",").cells.to_list() == [1500, 999]
    assert column(["1,500", "999"], decimal=",").cells.to_list() == [1.5, 999]
    assert column(["1/2/2020", "3/4/2020"], date_order="mdy").cells.to_list() == [
        datetime(2020, 1, 2),
        datetime(2020, 3, 4),
    ]
    assert column(["3+", "1"], as_categories=True).cells.to_list() == ["3+", "1"]
    assert column([1.0, 2.5], as_categories=True).cells.to_list() == ["1", "2.5"]


def test_a_row_number_is_the_first_column_or_has_the_name_that_tools_give_it() -> None:
    first = pl.Series("id", [1, 2, 3, 4])
    assert is_row_number(first, is_first=True)
    assert is_row_number(pl.Series("id", [0.0, 1.0, 2.0]), is_first=True)
    assert not is_row_number(first, is_first=False)
    assert not is_row_number(first + 1, is_first=True)
    assert not is_row_number(pl.Series("id", [1, 2, 2, 4]), is_first=True)
    for gone in ([5], [0], [7, 20], [39]):  # rows that were removed
        rest = pl.Series("id", [i for i in range(40) if i not in gone])
        assert is_row_number(rest, is_first=True)
        assert is_row_number((rest + 1).cast(pl.Float64), is_first=True)
        assert not is_row_number(rest, is_first=False)
        assert not is_row_number(rest.reverse(), is_first=True)
        assert not is_row_number(rest + 0.5, is_first=True)
        assert not is_row_number(rest + 5, is_first=True)
        assert not is_row_number(pl.concat([rest, rest.tail(1)]), is_first=True)
    assert not is_row_number(pl.Series("dose", [0, 1, 2, 3, 5, 6]), is_first=True)  # too few to know
    assert not is_row_number(pl.Series("x", range(0, 80, 2)), is_first=True)
    for name in ("", "Unnamed: 0", "__index_level_0__"):
        assert is_row_number(pl.Series(name, [7, 3, 5]), is_first=False)
        assert not is_row_number(pl.Series(name, [7, 3, 3]), is_first=False)
        assert not is_row_number(pl.Series(name, [7.5, 3, 5]), is_first=False)
    assert rises_by_one(pl.Series("year", [1990, 1991, 1992]))
    assert not rises_by_one(pl.Series("year", [1990, 1992, 1991, 1993]))
