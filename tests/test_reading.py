from __future__ import annotations

import gzip
import io
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.numpy

from twolayer.errors import DataError
from twolayer.reading import collect, open_table, reworded

ROWS = {"a": [1, 2, 3], "b": ["x", "y", "z"]}


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
        (b"a,a,b\n1,2,3\n", "t.csv: every column needs a name of its own, and there are several of: a"),
        (b"a,b\n1,2\n1,2,3\n", "t.csv: row 2 has 3 cells, and the first line 2"),
        (b"a,b\n1,2\n\n3\n4,5\n", "t.csv: row 2 has 1 cells, and the first line 2"),
        (b"a,b\n1,x\n2,\xff\xfe\n", "t.csv: row 2, column b: is not UTF-8; save the file as UTF-8"),
        (b"\xff,b\n1,2\n", "t.csv: is not UTF-8, in its first line"),
        (b'a,b\n1,2\n1,"x\n', "t.csv: row 2: a quote is opened and not closed"),
    ],
)
def test_a_damaged_csv_is_refused_with_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    assert refusal(tmp_path / "t.csv", content) == message


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "ndjson", "npy", "npz", "safetensors", "csv.gz"])
@pytest.mark.parametrize("content", [b"nonsense", b"PAR1", b"\x93NUMPY\x01\x00", b"ARROW1\x00\x00", b"PK\x03\x04"])
def test_what_is_not_of_its_format_is_refused_in_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    assert refusal(tmp_path / f"t.{suffix}", content).startswith(f"t.{suffix}: ")


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "t.csv") == "t.csv: no such file"
    assert refusal(tmp_path) == f"{tmp_path.name}: is a folder"
    assert "the format is told by the suffix, one of .csv .tsv" in refusal(tmp_path / "t.xlsx", b"")
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
    assert "the array x holds complex128, not numbers" in refusal(path)
    np.savez(path, **{"x": np.zeros((3, 1)), "x.0": np.zeros(3)})  # type: ignore[arg-type]
    assert "there are several of: x.0" in refusal(path)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    array = np.array([{}, 1], dtype=object)
    np.save(tmp_path / "t.npy", array)
    np.savez(tmp_path / "t.npz", x=array)
    for name in ("t.npy", "t.npz"):
        assert refusal(tmp_path / name).endswith("it holds Python objects, which are never read: save numbers")


def test_a_header_that_claims_more_than_there_is_costs_nothing(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
    claims = file.getvalue() + bytes(100)
    told = "its header claims 24000000000000 bytes of numbers, and there are 100"
    assert refusal(tmp_path / "t.npy", claims) == f"t.npy: cannot be read: {told}"
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("x.npy", claims)
    assert refusal(tmp_path / "t.npz") == f"t.npz: cannot be read: {told}"
    whole = (tmp_path / "w.npy", np.zeros(9))
    np.save(*whole)
    assert "claims 72 bytes of numbers, and there are 70" in refusal(whole[0], whole[0].read_bytes()[:-2])
