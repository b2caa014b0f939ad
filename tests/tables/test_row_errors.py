from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from twolayer.errors import DataError
from twolayer.tables.row_errors import check_csv, check_ndjson
from twolayer.tables.sources import open_table


def csv_error(path: Path) -> str:
    return check_csv(path, ",", ["a", "b"])[0]


@pytest.mark.parametrize(("check", "start"), [(csv_error, b"a,b\n1,2\n"), (check_ndjson, b'{"a":1}\n{"a":2}\n')])
def test_a_line_of_gigabytes_is_named_and_not_read_to_its_end(
    check: Callable[[Path], str], start: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(2**32)  # sparse: zeros that take no place
    tracemalloc.start()
    try:
        assert check(path) == "line 3 is longer than 64 MiB"
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()


def test_a_first_line_of_gigabytes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(DataError, match=r"^t\.csv: line 1 is longer than 64 MiB$"):
        open_table(path, "t.csv")
