from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from twolayer.errors import DataError
from twolayer.tables import row_errors
from twolayer.tables.json_files import check_ndjson
from twolayer.tables.row_errors import check_csv
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


@pytest.mark.parametrize("start", [1, 2**25 - 1, 2**25, 2**25 + 5])
@pytest.mark.parametrize(("length", "is_too_long"), [(row_errors.MAX_LINE, False), (row_errors.MAX_LINE + 1, True)])
@pytest.mark.parametrize("end", [b"", b"\nx\n"])
def test_the_longest_line_that_is_taken_has_64_mib_wherever_it_begins(
    start: int, length: int, is_too_long: bool, end: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.seek(start - 1)
        file.write(b"\n")
        file.seek(length, 1)
        file.write(end)
        file.truncate()
    with path.open("rb") as file:
        if is_too_long:
            with pytest.raises(row_errors.LineTooLongError, match=r"^line 2 is"):
                row_errors.check_lines(file)
        else:
            row_errors.check_lines(file)


def test_of_a_sound_file_the_start_of_every_32_mib_is_read_and_no_more(tmp_path: Path) -> None:
    class Counted(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            found = super().read(size)
            self.count += len(found)
            return found

    file = Counted(b"1,2\n" * 2**25)
    row_errors.check_lines(file)
    assert file.count == 4 * 2**20
