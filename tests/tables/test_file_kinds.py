"""What a file is, is seen in its first bytes, and nothing that is packed in it takes memory that is not there."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.helpers.processes import Run
from tests.helpers.table_files import archive, workbook, zstd, zstd_bomb
from twolayer.errors import DataError
from twolayer.system import available_memory
from twolayer.tables import excel, unpacking
from twolayer.tables.file_kind import kind_of, url_of
from twolayer.tables.options import is_table
from twolayer.tables.readers import collect
from twolayer.tables.sources import open_table

TEXT = 'a,b\r\n1,"x, ""y"""\r\n2.5,ö\r\n'.encode()
CELLS = {"a": [1.0, 2.5], "b": ['x, "y"', "ö"]}
JSON = '[{"a": 1.0, "b": "x, \\"y\\""}, {"a": 2.5, "b": "ö"}]'.encode()


def load(path: Path, content: bytes | None = None, **options: Any) -> dict[str, list[Any]]:
    if content is not None:
        path.write_bytes(content)
    source = open_table(path, path.name, **options)
    return collect(source, list(source.names)).to_dict(as_series=False)


def refusal(path: Path, content: bytes | None = None, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        load(path, content, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


KINDS = {
    "gzip": gzip.compress(TEXT),
    "bz2": bz2.compress(TEXT),
    "two streams of bz2": bz2.compress(TEXT[:9]) + bz2.compress(TEXT[9:]),
    "xz": lzma.compress(TEXT),
    "two streams of xz, padded": lzma.compress(TEXT[:9]) + bytes(8) + lzma.compress(TEXT[9:]),
    "zstd": zstd(TEXT),
    "zstd behind a frame to be skipped": b"\x52\x2a\x4d\x18\x03\x00\x00\x00abc" + zstd(TEXT),
    "two frames of zstd": zstd(TEXT[:9]) + zstd(TEXT[9:]),
    "zip": archive({"x.csv": TEXT}),
    "zip of a Mac": archive({"x.csv": TEXT, "__MACOSX/._x.csv": b"\x00\x05", ".DS_Store": b"\x00"}),
    "a packed table in an archive": archive({"x.csv.gz": gzip.compress(TEXT)}),
    "UTF-16": TEXT.decode().encode("utf-16"),
    "UTF-16, big-endian": b"\xfe\xff" + TEXT.decode().encode("utf-16-be"),
    "UTF-16 without a mark": TEXT.decode().encode("utf-16-le"),
    "UTF-32": TEXT.decode().encode("utf-32"),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + TEXT,
    "CR alone": TEXT.replace(b"\r\n", b"\r"),
    "a workbook": workbook({"one": [["a", "b"], [1, 'x, "y"'], [2.5, "ö"]], "empty": []}),
    "an array of objects": JSON,
    "objects, a line each": JSON[1:-1].replace(b"}, {", b"}\n{"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_what_its_first_bytes_say_also_if_it_is_called_csv(kind: str, tmp_path: Path) -> None:
    assert load(tmp_path / "t.csv", KINDS[kind]) == CELLS


@pytest.mark.parametrize("kind", ["gzip", "zstd", "UTF-16", "a workbook", "objects, a line each"])
def test_stdin_is_what_its_first_bytes_say(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(KINDS[kind])
    with (tmp_path / "in").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": file}))
        source = open_table("-", "stdin")
    assert collect(source, list(source.names)).to_dict(as_series=False) == CELLS


def test_parquet_and_arrow_are_read_under_the_name_of_a_csv(tmp_path: Path) -> None:
    frame = pl.DataFrame(CELLS)
    frame.write_parquet(tmp_path / "p.csv")
    frame.write_ipc(tmp_path / "i.csv")
    assert load(tmp_path / "p.csv") == load(tmp_path / "i.csv") == CELLS


REFUSED = {
    "HTML": (b"\n<!DOCTYPE html><html>", "is a web page (HTML), not a table: download the file itself"),
    "PDF": (b"%PDF-1.7\n", "is a PDF, not a table: save its table as CSV or Parquet"),
    "SQLite": (b"SQLite format 3\x00", "is an SQLite database: save its table as CSV or Parquet"),
    "a pickle": (b"\x80\x04\x95", "is a Python pickle, which can run any program and is never read: save its table"),
    "two tables": (
        archive({"a.csv": TEXT, "b.csv": TEXT}),
        "is a zip archive that holds 2 files (a.csv, b.csv);",
    ),
    "no table": (archive({}), "is a zip archive that holds no file"),
    "cut gzip": (gzip.compress(TEXT)[:-9], "cannot be read: Compressed file ended"),
    "cut bz2": (bz2.compress(TEXT)[:-9], "cannot be read: Compressed file ended"),
    "cut xz": (lzma.compress(TEXT)[:-9], "cannot be read: the file ends before its compressed data do"),
    "cut zstd": (zstd(TEXT)[:-9], "cannot be read: "),
    "zstd, no more": (b"\x28\xb5\x2f\xfda,y\n1,2\n", "cannot be read: "),
    "thrice": (gzip.compress(gzip.compress(gzip.compress(TEXT))), "is compressed several times; unpack it"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_named(kind: str, tmp_path: Path) -> None:
    content, message = REFUSED[kind]
    assert refusal(tmp_path / "t.csv", content).startswith(f"t.csv: {message}")


def test_text_whose_first_letters_begin_like_a_compression_is_text() -> None:
    assert kind_of(b"BZh,y\n1,2\n") == kind_of(b"x\x9c"[:1] + b",y\n1,2\n") == kind_of("xŜ,y\n1,2\n".encode()) == ""


# --- memory

SIZE = 2**24
BOMBS: dict[str, Callable[[], bytes]] = {  # packed by the test that needs it, since that takes seconds
    "t.csv.bz2": lambda: bz2.compress(b"1,2\n" * (SIZE // 4)),
    "t.csv.xz": lambda: lzma.compress(b"1,2\n" * (SIZE // 4)),
    "t.csv.zip": lambda: archive({"t.csv": b"1,2\n" * (SIZE // 4)}),
    "t.ndjson.gz": lambda: gzip.compress(b"{}\n" * (SIZE // 3)),
    "t.csv.zst": lambda: zstd_bomb(SIZE),
    "u16.csv": lambda: "1,2\n".encode("utf-16") * (SIZE // 10),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_unpacks_to_more_than_there_is_memory_for_is_refused_before_it_is_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    monkeypatch.setattr(available_memory, "available", lambda: SIZE - 2**17)
    told = refusal(tmp_path / name)
    assert "need" in told
    assert "of memory, and 15.9 MiB is available" in told


def test_the_size_of_zstd_data_is_known_from_the_headers_of_its_blocks() -> None:
    assert unpacking.zstd_bytes(zstd(TEXT * 1000)) == len(TEXT) * 1000
    assert unpacking.zstd_bytes(zstd_bomb(2**30)) == 2**30
    assert unpacking.zstd_bytes(zstd(TEXT) + zstd(TEXT)) == 2 * len(TEXT)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_workbook_that_claims_billions_of_cells_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(available_memory, "available", lambda: 2**30)
    told = refusal(tmp_path / "t.xlsx", workbook_with_a_far_cell())
    assert told == "t.xlsx: is damaged, or needs more memory than is available (1 GiB); save its sheet as CSV"


def workbook_with_a_far_cell() -> bytes:
    with zipfile.ZipFile(io.BytesIO(workbook({"one": [["a", "b"], [1, 2]]}))) as book:
        members = {name: book.read(name) for name in book.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    far = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'
    members[sheet] = members[sheet].replace(b"</sheetData>", far)
    return archive(members)


# --- Excel


def test_a_workbook_with_several_sheets_needs_the_name_of_one(tmp_path: Path) -> None:
    book = workbook({"one": [["a"], [1], [2]], "two": [["b"], [3], [4]]})
    assert refusal(tmp_path / "t.xlsx", book) == "t.xlsx: has 2 sheets (one, two); set data.sheet to one of them"
    assert load(tmp_path / "t.xlsx", sheet="two") == {"b": [3, 4]}
    assert refusal(tmp_path / "t.xlsx", sheet="three") == "t.xlsx: has no sheet three; its sheets are one, two"


def test_the_columns_of_a_sheet_have_the_names_of_its_first_row(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    assert load(path, workbook({"s": [[" a ", None, "b"], [1, None, "x"], [None, None, "y"]]})) == {
        "a": [1, None],
        "b": ["x", "y"],
    }
    assert "several columns have the same name: a" in refusal(path, workbook({"s": [["a", "a"], [1, 2]]}))
    rows: list[list[str | float | None]] = [[5.1, "s"], [4.9, "t"], [5.1, "s"], [4.0, "t"]]
    assert "the first row (5.1, s) looks like data" in refusal(path, workbook({"s": rows}))
    assert load(path, header="none") == {"0": [5.1, 4.9, 5.1, 4.0], "1": ["s", "t", "s", "t"]}
    assert list(load(path, header=["u", "v"])) == ["u", "v"]
    assert "data.header has 1 name, and the first row 2 cells" in refusal(path, header=["u"])


def test_without_the_extra_excel_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excel, "find_spec", lambda name: None)
    told = refusal(tmp_path / "t.xlsx", workbook({"s": [["a"], [1]]}))
    assert told == "t.xlsx: is an Excel file, and this needs fastexcel: pip install 'twolayer[excel]'"


# --- JSON


def test_ndjson_with_nan_or_a_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.ndjson"
    assert load(path, b'{"a": NaN, "b": "NaN, NaN"}\n\n{"a": 2.5}\n') == {"a": [None, 2.5], "b": ["NaN, NaN", None]}
    assert load(path, b'\xef\xbb\xbf{"a": 1}\n{"a": NaN}\n') == {"a": [1, None]}
    assert load(path, b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n') == {"a": [1, 2]}


@pytest.mark.parametrize("cell", ["Infinity", "-Infinity", "1e999"])
def test_infinity_in_json_is_refused_with_its_row_and_column(cell: str, tmp_path: Path) -> None:
    lines = f'{{"a": 1, "b": 2}}\n{{"a": 1, "b": {cell}}}\n'
    assert refusal(tmp_path / "t.ndjson", lines.encode()) == "t.ndjson: row 2, column b: is infinite"
    array = f"[{','.join(lines.splitlines())}]"
    assert refusal(tmp_path / "t.json", array.encode()) == "t.json: row 2, column b: is infinite"


def test_a_json_file_is_a_table_if_it_is_an_array_or_has_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    assert load(path, b' [{"a": 1, "b": NaN}, {"a": 2, "b": 0.5}]') == {"a": [1, 2], "b": [None, 0.5]}
    assert is_table(path)
    assert load(path, b'{"a": 1}\n{"a": 2}\n') == {"a": [1, 2]}
    assert is_table(path)
    path.write_text('{"epochs": 3,\n "lr": 0.1}\n')
    assert not is_table(path)
    assert refusal(path, b'[{"a": 1}, 2]') == "t.json: row 2: is not a JSON object"
    assert refusal(path, b'[{"a": 1}') == "t.json: is not JSON"
    assert refusal(path, b"[]") == "t.json: has no columns"


# --- names


def test_a_url_is_called_one(tmp_path: Path, twolayer: Run) -> None:
    told = "is a URL, and twolayer reads files only: download it first, such as with curl -LO"
    for command in (["data"], ["train"], ["check"]):
        done = twolayer(*command, "https://example.com/t.csv")
        assert done.returncode in (1, 2)
        assert f"https://example.com/t.csv: {told}" in done.stderr
    assert told in twolayer("train", "https://example.com/get?id=3").stderr
    assert url_of("a/https:/t.csv") is url_of("t.csv") is None
    assert url_of("s3:/bucket/t.csv") == "s3://bucket/t.csv"


def test_a_file_that_is_neither_config_nor_table_is_told_so(tmp_path: Path, twolayer: Run) -> None:
    (tmp_path / "t.dat").write_text("a,y\n1,2\n2,4\n")
    (tmp_path / "w.asc").write_text("a  y\n1  2\n2  4\n")
    (tmp_path / "t.foo").write_bytes(gzip.compress(TEXT))
    (tmp_path / "t.bin").write_bytes(b"\x80\x04\x95")
    (tmp_path / "c.conf").write_text("N: 3\nlr: [1, 2]\n")
    assert "looks like a table, but its suffix is not one of a table: name it t.csv" in twolayer("data", "t.dat").stderr
    assert "name it w.csv" in twolayer("train", "w.asc").stderr
    assert "is packed with gzip: name it as the table in it" in twolayer("data", "t.foo").stderr
    assert "is no table that twolayer reads, and no config: it is a Python pickle" in twolayer("check", "t.bin").stderr
    assert "c.conf:2:5: lr: must be a positive number" in twolayer("check", "c.conf").stderr


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the program zstd is not here")
def test_what_the_program_zstd_packs_is_read(tmp_path: Path) -> None:
    text = "a,b\n" + "".join(f"{i},{i * 7919 % 1000}\n" for i in range(50_000))
    (tmp_path / "t.csv").write_text(text)
    subprocess.run(["zstd", "-q", "t.csv"], cwd=tmp_path, check=True)
    frame = pl.DataFrame(load(tmp_path / "t.csv.zst"))
    assert (frame.height, frame["b"].sum()) == (50_000, sum(i * 7919 % 1000 for i in range(50_000)))
    assert len(text) <= unpacking.zstd_bytes(tmp_path / "t.csv.zst") < len(text) + 2**17
