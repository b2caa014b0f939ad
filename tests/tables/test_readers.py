from __future__ import annotations

import gzip
import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.numpy

from tests.helpers.table_files import packed, workbook
from twolayer.errors import DataError
from twolayer.runs import names
from twolayer.tables import dataset, describe, readers, writers
from twolayer.tables.file_checks import reworded
from twolayer.tables.options import EXCEL, TABLES, FileData, is_table, table_suffix
from twolayer.tables.readers import collect
from twolayer.tables.sources import open_table

ROWS = {"a": [1, 2, 3], "b": ["x", "y", "z"]}
QUERIES: list[tuple[Any, str]] = [
    (pl, "select"), (pl.LazyFrame, "collect"), *((pl.DataFrame, n) for n in ("select", "select_seq", "with_columns"))
]  # fmt: skip


def load(path: Path, **options: Any) -> dict[str, list[Any]]:
    source = open_table(path, path.name, **options)
    return collect(source, list(source.names)).to_dict(as_series=False)


def refusal(path: Path, content: bytes | None = None, **options: Any) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        load(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_format_of_frames_holds_the_same(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS)
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    frame.write_csv(tmp_path / "t.TXT", separator="|")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    frame.write_parquet(tmp_path / "t.parquet")
    for name in ("t.arrow", "t.feather", "t.ipc"):
        frame.write_ipc(tmp_path / name)
    for name in ("t.ndjson", "t.jsonl"):
        frame.write_ndjson(tmp_path / name)
    paths = list(tmp_path.iterdir())
    assert len(paths) == 10
    assert all(load(path) == ROWS for path in paths)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_in_the_first_line_outside_of_quotes(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'"a,b;c|d\te,,,;;;|||\t\t\t"{separator}b\n1{separator}2\n')
    assert list(load(path).values()) == [[1], [2]]
    assert list(load(path, separator=separator).values()) == [[1], [2]]


def test_a_mark_of_byte_order_and_lines_inside_of_quotes_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfa;b\r\n1;"x\r\ny"\r\n2;z\r\n')
    assert load(path) == {"a": [1, 2], "b": ["x\r\ny", "z"]}


def test_what_stands_far_below_the_first_rows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 20_000 + "3,NA\n")
    assert {column: cells[-1] for column, cells in load(path).items()} == {"a": 3, "b": None}
    path.write_text("a,b\n" + "1,2\n" * 20_000 + "0.5,x\n")
    assert {column: cells[-1] for column, cells in load(path).items()} == {"a": "0.5", "b": "x"}


def test_a_csv_as_text_stands_there_as_it_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1.50, x\n007,NA\n")
    assert load(path, text=True) == {"a": ["1.50", "007"], "b": [" x", "NA"]}


def test_a_csv_comes_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a,b\n1,2\n")))
    source = open_table("-", "stdin")
    assert collect(source, ["b"]).to_dict(as_series=False) == {"b": [2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.csv: is empty"),
        (b" \n", "t.csv: is empty"),
        (b"a,a,b\n1,2,3\n", "t.csv: several columns have the same name: a"),
        (b"a,b\n1,2\n1,2,3\n", "t.csv: row 2 has 3 cells, and the first line has 2"),
        (b"a,b\n1,2\n\n3\n4,5\n", "t.csv: row 2 has 1 cell, and the first line has 2"),
        (b"\n\na,b\n1,2\n1,2,3\n", "t.csv: row 2 has 3 cells, and the first line has 2"),
        (b"a,b\n1,2\r3,4\r5,6\n", "t.csv: row 1: has a CR without an LF, outside quotes"),
        (b'a,b\n1,"q"\n1,x"y\n2,z\n', "t.csv: row 2: a cell has a quote inside it, but does not begin with one"),
        (b"a,b\n1,x\n2,\xff\xfe\n", "t.csv: row 2, column b: is not UTF-8; save the file as UTF-8"),
        (b"\xff,b\n1,2\n", "t.csv: is not UTF-8, in its first line; save it as UTF-8"),
        (b'a,b\n1,2\n1,"x\n', "t.csv: row 2: a quote is opened and not closed"),
        (
            b'a;b\n1;2\n"1,5",3\n',
            't.csv: row 2: after a quoted cell comes no ";"; if another sign separates the cells, set data.separator',
        ),
    ],
)
def test_a_damaged_csv_is_refused_with_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    assert refusal(tmp_path / "t.csv", content) == message


@pytest.mark.parametrize("row", ["1,2", "1,2,3,4"])
def test_a_row_of_other_width_is_refused_whatever_columns_are_read(tmp_path: Path, row: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n" + "1,2,3\n" * 1000 + row + "\n")
    count = row.count(",") + 1
    for columns in ("a", "b", "c", "ab", "abc"):
        for text in (True, False):
            source = open_table(path, "t.csv", text=text)
            with pytest.raises(DataError, match=rf"^t\.csv: row 1001 has {count} cells, and the first line has 3$"):
                collect(source, list(columns))
            with pytest.raises(DataError, match=rf"^t\.csv: row 1001 has {count} cells, and the first line has 3$"):
                list(readers.batches(source, list(columns), 100))


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\n\r\na,b\n\n1,"x\n\ny"\r\n\r\n  \n,\n2,z\n\t\n\n')
    cells = {"a": [1, None, 2], "b": ["x\n\ny", None, "z"]}
    assert load(path, text=True) == {"a": ["1", None, "2"], "b": cells["b"]}
    source = open_table(path, "t.csv", text=True)
    for size in (1, 2, 100):
        assert pl.concat(readers.batches(source, ["b"], size))["b"].to_list() == cells["b"]
    path.write_bytes(b"a,b\n1,2\n\n3,4\n\n")
    assert load(path) == {"a": [1, 3], "b": [2, 4]}
    path.write_bytes(b"a\n1\n\n3\n")
    assert load(path) == {"a": [1, None, 3]}  # of one column, it is a missing value


def test_text_in_a_column_that_is_not_read_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 1000 + "3,text\n")
    assert collect(open_table(path, "t"), ["a"]).schema == {"a": pl.Int64}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a":1,"b":2}\n\n{"a":2,"b"\n', "row 2: is not JSON"),
        (b'{"a":1}\n' + b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "row 2: is not JSON"),
        (b'{"a":1}\n[1]\n', "row 2: is not a JSON object"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
    ],
)
def test_broken_ndjson_is_refused_with_the_row(tmp_path: Path, content: bytes, message: str) -> None:
    assert refusal(tmp_path / "t.ndjson", content) == f"t.ndjson: {message}"


@pytest.mark.parametrize("suffix", TABLES)
def test_every_suffix_of_a_table_is_read_named_and_known(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"some{suffix}"
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    columns = {name: frame[name].to_numpy() for name in "ab"}
    kind = (table_suffix(f"some{suffix}") or "").lstrip(".")
    if kind in ("csv", "tsv", "txt", "zip"):
        path.write_bytes(packed(frame.write_csv(separator="\t" if kind == "tsv" else ",").encode(), suffix))
    elif kind in ("ndjson", "jsonl"):
        path.write_bytes(packed(frame.write_ndjson().encode(), suffix))
    elif kind == "npy":
        np.save(path, frame.to_numpy())
    elif kind == "npz":
        np.savez(path, **columns)  # type: ignore[arg-type]
    elif kind == "safetensors":
        safetensors.numpy.save_file(columns, path)
    elif f".{kind}" in EXCEL:
        path.write_bytes(workbook({"one": [["a", "b"], [1.0, 3.0], [2.0, 4.0]]}))
    else:
        {"parquet": frame.write_parquet}.get(kind, frame.write_ipc)(path)
    assert list(load(path).values()) == [[1, 2], [3, 4]]
    assert is_table(path)
    assert names.safe_name(str(path)) == "some"
    assert set(writers.FORMATS) <= set(TABLES)


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "ndjson", "npy", "npz", "safetensors", "csv.gz"])
@pytest.mark.parametrize("content", [b"PAR1", b"\x93NUMPY\x01\x00", b"ARROW1\x00\x00", b"PK\x03\x04"])
def test_what_is_not_of_its_format_is_refused_in_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    assert refusal(tmp_path / f"t.{suffix}", content).startswith(f"t.{suffix}: ")


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "t.csv") == "t.csv: no such file"
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert refusal(tmp_path / "loop.csv") == "loop.csv: cannot be read: Too many levels of symbolic links"
    os.mkfifo(tmp_path / "pipe.csv")
    assert refusal(tmp_path / "pipe.csv") == "pipe.csv: is not a regular file, which can be read twice"
    assert refusal(tmp_path) == f"{tmp_path.name}: is a folder"
    assert "the suffix must be one of .csv .tsv" in refusal(tmp_path / "t.dat", b"")
    path = tmp_path / "t.csv.gz"
    assert refusal(path, gzip.compress(b"a,b\n1,2\n")[:-6]).startswith("t.csv.gz: cannot be read: ")


def test_nothing_of_polars_gets_out() -> None:
    with pytest.raises(DataError, match=r"^t\.csv: cannot be read: one$"), reworded("t.csv"):
        raise pl.exceptions.ComputeError("one\n\nConsider two")
    with pytest.raises(DataError, match=r"^t\.csv: cannot be read: Input/output error$"), reworded("t.csv"):
        raise OSError(5, "Input/output error")


# --- arrays


def test_arrays_are_columns(tmp_path: Path) -> None:
    x, y = np.arange(6.0).reshape(3, 2), np.arange(3)
    columns = {"x.0": [0, 2, 4], "x.1": [1, 3, 5], "y": [0, 1, 2]}
    np.savez(tmp_path / "t.npz", x=x, y=y)
    np.savez_compressed(tmp_path / "z.npz", x=x, y=y)
    safetensors.numpy.save_file({"x": x, "y": y}, tmp_path / "t.safetensors")
    for name in ("t.npz", "z.npz", "t.safetensors"):
        assert load(tmp_path / name) == columns
        assert open_table(tmp_path / name, name).groups == {"x": ("x.0", "x.1")}
    for array in (x, np.asfortranarray(x), x.astype(">f4"), x.astype("f2"), x.astype("u1")):
        np.save(tmp_path / "t.npy", array)
        assert load(tmp_path / "t.npy") == {"0": [0, 2, 4], "1": [1, 3, 5]}
    np.save(tmp_path / "t.npy", y)
    assert load(tmp_path / "t.npy") == {"0": [0, 1, 2]}


def test_arrays_that_are_no_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, x=np.zeros((3, 2)), y=np.zeros(4))
    assert refusal(path) == "t.npz: the arrays must have the same number of rows: x has 3, y has 4"
    np.savez(path, x=np.zeros((3, 2, 2)))
    assert "the array x has the shape (3, 2, 2)" in refusal(path)
    np.savez(path, x=np.zeros(3, dtype=complex))
    assert "the array x has the dtype complex128, not numbers" in refusal(path)
    np.savez(path, **{"x": np.zeros((3, 1)), "x.0": np.zeros(3)})  # type: ignore[arg-type]
    assert "several columns have the same name: x.0" in refusal(path)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    array = np.array([{}, 1], dtype=object)
    np.save(tmp_path / "t.npy", array)
    np.savez(tmp_path / "t.npz", x=array)
    for name in ("t.npy", "t.npz"):
        assert refusal(tmp_path / name).endswith("it holds Python objects, which are never read; save numbers")


def test_a_header_that_claims_more_than_there_is_costs_nothing(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
    claims = file.getvalue() + bytes(100)
    told = "its header gives 24000000000000 bytes of numbers, and the file has 100"
    assert refusal(tmp_path / "t.npy", claims) == f"t.npy: cannot be read: {told}"
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("x.npy", claims)
    assert refusal(tmp_path / "t.npz") == f"t.npz: cannot be read: {told}"
    whole = (tmp_path / "w.npy", np.zeros(9))
    np.save(*whole)
    assert "gives 72 bytes of numbers, and the file has 70" in refusal(whole[0], whole[0].read_bytes()[:-2])


@pytest.mark.parametrize("shape", [(5, 0), (0, 3), (0, 100_000_000), (10**12, 0), (0,)])
def test_an_array_without_numbers_is_refused_at_once(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "t.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    assert refusal(path) == f"t.npy: cannot be read: the array is empty: its shape is {shape}"
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.write(path, "x.npy")
    assert f"the array x is empty: its shape is {shape}" in refusal(tmp_path / "t.npz")


def test_arrays_that_are_too_many_or_none_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.zeros((1, 200_001), "u1"))
    assert "it has 200001 columns, more than 200000" in refusal(tmp_path / "t.npy")
    np.savez(tmp_path / "t.npz")
    assert "it holds no arrays" in refusal(tmp_path / "t.npz")
    pl.DataFrame().write_parquet(tmp_path / "t.parquet")
    assert refusal(tmp_path / "t.parquet") == "t.parquet: has no columns"


def test_a_damaged_header_is_told_in_words(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,), }".ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    assert refusal(tmp_path / "t.npy", content) == "t.npy: cannot be read: its header is damaged"


def counting(own: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    """The function, which also takes a note of each call."""

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(own.__name__)
        return own(*arguments, **options)

    return counted


@pytest.mark.parametrize("work", [describe.summary, dataset.read])
def test_a_table_of_more_columns_takes_no_more_queries(
    work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query of polars a column made 10,000 columns take ten seconds."""
    counts = []
    for width in (12, 96):
        rng = np.random.default_rng(0)
        columns = {f"c{j}": rng.normal(size=30).round(3) if j % 2 else rng.integers(0, 999, 30) for j in range(width)}
        frame = pl.DataFrame(columns).with_columns(pl.when(pl.col("c3") > 0).then(pl.col("c3")))
        frame.write_csv(tmp_path / "t.csv")
        data = FileData(path=str(tmp_path / "t.csv"), target=["c0"])
        queries: list[str] = []
        with monkeypatch.context() as patch:
            for owner, name in QUERIES:
                patch.setattr(owner, name, counting(getattr(owner, name), queries))
            if work is dataset.read:
                work(data, validation=0.1, seed=0, loss=None)
            else:
                assert len(work(data, "t.csv", targets=["c0"], validation=0.1).columns) == width
        counts.append(len(queries))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["2.542", "776"], "refused"),
        (["2.542", "776", ""], "refused"),
        (["0.776", "2.542", "3"], "number"),
        (["1776", "2.542"], "number"),
        (["2.5", "776"], "number"),
        (["2.542", "7.760"], "number"),
    ],
)
def test_points_that_may_separate_thousands_are_found_wherever_they_stand(
    cells: list[str], kind: str, tmp_path: Path
) -> None:
    for before in (0, 150):  # rows
        rows = [*(["1.234"] * before), *cells]
        (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(rows)))
        data = FileData(path=str(tmp_path / "t.csv"), target=["y"])
        assert describe.summary(data, "t.csv", targets=["y"]).columns[0].used_as == kind
