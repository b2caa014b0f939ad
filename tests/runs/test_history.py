from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twolayer.runs.history import Block, Reader, csv_header, csv_row, jsonl_row, scan


@given(st.integers(1, 10**6), st.integers(1, 200), st.integers(1, 50))
def test_every_takes_the_iterations_that_are_multiples(first: int, count: int, step: int) -> None:
    block = Block(first, tuple(float(first + i) for i in range(count)), 0.0)
    assert block.last == first + count - 1
    assert list(block.every(step)) == [(t, float(t)) for t in range(first, first + count) if t % step == 0]


def test_a_loss_that_is_not_finite_is_among_them_whatever_its_number() -> None:
    for step in (1, 2, 4):
        assert list(Block(1, (1.0, 2.0, math.inf), 0.0).every(step))[-1] == (3, math.inf)
        assert list(Block(1, (1.0, 2.0, 3.0, math.inf), 0.0).every(step))[-1] == (4, math.inf)


@given(st.floats(allow_nan=False))
def test_a_csv_row_reads_back_as_the_very_number(loss: float) -> None:
    iteration, text = csv_row((7, loss)).rstrip("\n").split(",")
    assert (int(iteration), float(text)) == (7, loss)


@given(st.floats())
def test_a_jsonl_row_is_json_and_null_where_json_has_no_number(loss: float) -> None:
    row = json.loads(jsonl_row(("iteration", "loss"), (7, loss)), parse_constant=lambda name: f"not JSON: {name}")
    assert row == {"iteration": 7, "loss": loss if math.isfinite(loss) else None}


# --- Reading


def read(path: Path) -> Reader:
    reader = Reader(path)
    reader.read()
    return reader


ROWS = st.lists(st.tuples(st.floats(), st.floats()), max_size=50)


def written(rows: Sequence[Sequence[float]], columns: Sequence[str] = ("epoch", "loss", "val_loss")) -> bytes:
    return (csv_header(columns) + "".join(csv_row((t, *row)) for t, row in enumerate(rows, 1))).encode()


def same(a: Sequence[float], b: Sequence[float]) -> bool:
    return list(map(repr, a)) == list(map(repr, b))  # nan, and the sign of 0, too


@given(ROWS)
def test_the_very_rows_that_were_written_are_read(rows: list[tuple[float, float]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "history.csv"
        path.write_bytes(written(rows))
        reader = read(path)
    assert (reader.unit, list(reader.columns), reader.problem, len(reader)) == (
        *("epoch", ["loss", "val_loss"], ""),
        len(rows),
    )
    assert all(same(reader.row(i)[1:], row) for i, row in enumerate(rows))


@given(ROWS, st.lists(st.integers(0, 3000), max_size=8))
def test_a_file_that_grows_by_any_bytes_is_read_row_by_row(rows: list[tuple[float, float]], cuts: list[int]) -> None:
    data = written(rows)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "history.csv"
        path.touch()
        reader = Reader(path)
        for cut in [*sorted(cuts), len(data)]:
            path.write_bytes(data[:cut])
            reader.read()
            assert reader.problem == ""
            assert len(reader) == max(0, data[:cut].count(b"\n") - 1)
    assert all(same(reader.row(i)[1:], row) for i, row in enumerate(rows))


def count(path: Path) -> int:
    with path.open("rb") as file:
        return scan(file).count


def test_a_row_that_is_half_written_is_no_damage_while_the_rest_of_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    rows = [csv_row((i, 1 / i)) for i in range(1, 9001)]

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            for start in range(0, len(rows), 300):
                file.write("".join(rows[start : start + 300]).encode())

    for _ in range(10):
        path.write_bytes(csv_header(["iteration", "loss"]).encode())
        writer, reader = threading.Thread(target=write), Reader(path)
        writer.start()
        while writer.is_alive():
            reader.read()
            assert reader.problem == ""
            count(path)  # raises where it takes half a row for one
        writer.join()
        reader.read()
        assert len(reader) == count(path) == len(rows)


def test_only_what_has_come_since_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_bytes(written([(1.0, 2.0)] * 1000))
    reader = read(path)
    with path.open("r+b") as file:  # in what has been read before: nobody looks there again
        file.seek(40)
        file.write(b"x")
        file.seek(0, os.SEEK_END)
        file.write(b"1001,3.0,4.0\n")
    reader.read()
    assert (len(reader), reader.problem, reader.row(1000)) == (1001, "", (1001, 3.0, 4.0))
    assert read(path).problem


@pytest.mark.parametrize("anew", [[(9.0, 9.0)], [(9.0, 9.0)] * 30, [(1.0, 2.0)] * 19 + [(9.0, 9.0)] * 30, []])
def test_rows_that_were_taken_back_and_written_anew_are_read_anew(
    anew: list[tuple[float, float]], tmp_path: Path
) -> None:
    path = tmp_path / "history.csv"
    path.write_bytes(written([(1.0, 2.0)] * 20))
    reader = read(path)
    path.write_bytes(written(anew))  # shorter, or already longer than it was
    reader.read()
    assert [reader.row(i)[1:] for i in range(len(reader))] == anew


@pytest.mark.parametrize(
    "line", [b"5\n", b"5,1.0\n", b"5,1.0,2.0,3.0\n", b"5,one,2.0\n", b"6,1.0,2.0\n", b"\n", b"5,1.0,2.0,\n", b"\xff\n"]
)
@pytest.mark.parametrize("after", [b"", b"5,1.0,2.0\n", b"6,1.0,2.0\n"])
def test_a_damaged_row_is_named_and_all_before_it_is_there(line: bytes, after: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_bytes(written([(1.0, 2.0)] * 4) + line + after)
    reader = read(path)
    assert (len(reader), reader.problem) == (4, "is damaged after row 4")
    reader.read()
    assert (len(reader), reader.problem) == (4, "is damaged after row 4")
    path.write_bytes(written([(1.0, 2.0)] * 5))  # mended
    reader.read()
    assert (len(reader), reader.problem) == (5, "")


@pytest.mark.parametrize("place", range(0, 120, 7))
def test_a_newline_for_a_comma_and_a_comma_for_a_newline_are_damage(place: int, tmp_path: Path) -> None:
    data = bytearray(written([(1.5, 2.5)] * 10))
    places = [i for i, byte in enumerate(data) if byte in b",\n" and i > data.index(b"\n")]
    data[places[place % len(places)]] ^= ord(",") ^ ord("\n")
    path = tmp_path / "history.csv"
    path.write_bytes(data)
    reader = read(path)
    assert reader.problem.startswith("is damaged after row") or not data.endswith(b"\n")
    assert all(reader.row(i) == (i + 1, 1.5, 2.5) for i in range(len(reader)))


@pytest.mark.parametrize(
    "head", [b"a,b\n", b"iteration\n", b"iteration,lr\n", b"iteration,loss,loss\n", b"iteration,loss,<b>\n", b"\xff\n"]
)
def test_what_is_no_table_of_losses_is_named(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_bytes(head + b"1,2.0\n")
    reader = read(path)
    assert (len(reader), reader.problem) == (0, "is damaged: it is not a table of losses")


def test_a_file_that_is_not_there_yet_is_read_when_it_is(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    reader = read(path)
    assert (len(reader), reader.problem) == (0, "is missing")
    path.write_bytes(written([(1.0, 2.0)]))
    reader.read()
    assert (len(reader), reader.problem) == (1, "")
    path.unlink()
    path.mkdir()
    reader.read()
    assert (len(reader), reader.problem) == (1, "cannot be read: Is a directory")


def test_a_block_shows_itself_in_one_line_however_many_losses_it_has() -> None:
    block = Block(11, tuple(1000.0 / i for i in range(1, 10_001)), 0.05)
    assert repr(block) == "<Block 11 to 10010: loss 1000 to 0.1, 50 ms>"
    assert repr(Block(5, (), 0.002)) == "<Block 5 to 4: no losses, 2 ms>"
