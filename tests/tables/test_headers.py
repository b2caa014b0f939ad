"""Names of columns, and what stands between cells: found where a file shows them, refused where it could mislead."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.processes import Run
from twolayer.errors import DataError
from twolayer.tables import formulas, readers
from twolayer.tables.csv_layout import find_separator
from twolayer.tables.headers import cleaned, could_be_data
from twolayer.tables.readers import collect
from twolayer.tables.sources import open_table

ABALONE = "M,0.533,11\nI,0.43,2\nI,0.587,10\nM,0.1,3\nF,0.2,4\nF,0.3,5\n"


def load(path: Path, content: str | bytes | None = None, **options: Any) -> dict[str, list[Any]]:
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = open_table(path, path.name, **options)
    return collect(source, list(source.names)).to_dict(as_series=False)


def refusal(path: Path, content: str | None = None, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        load(path, content, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def rows(text: str) -> tuple[list[str], list[list[str]]]:
    first, *others = [line.split(",") for line in text.split()]
    return first, others


@pytest.mark.parametrize(
    "text",
    [
        ABALONE,
        "3,4,5,4\n4,4,9,4\n8,4,5,4",
        "5.1,3.5,1.4,Iris-setosa\n4.9,3.0,1.4,Iris-setosa\n7.0,3.2,4.7,Iris-versicolor",  # iris
        "39,State-gov,77516,Male\n50,Private,83311,Male\n38,Private,215646,Female\n52,State-gov,1,Male",  # adult
        "A11,6,A34,1169\nA12,48,A32,5951\nA14,12,A34,2096",  # german
        "842302,M,17.99\n842517,M,20.57\n84348301,B,11.42",  # wdbc
        "2011-01-01,5,0.3\n2011-01-02,3,0.4\n2011-01-03,4,0.1",
        "1,?,3\n2,4,5\n7,?,1",
        "5.3\n4.2\n4.2",
        "$5.90,4\n$6.10,7\n$7.00,2",
    ],
)
def test_a_first_row_like_those_below_it_looks_like_data(text: str) -> None:
    assert could_be_data(*rows(text))


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4",
        "name,2019,2020\nx,1,2\ny,3,4\nz,3,4",  # years
        "0,1,2\n5.5,3,1\n4,2,2",  # as pandas names columns that have no names
        ",0,1\n0,5,3\n1,4,2",
        "country,1952,1957,1962\nPeru,3,4,5\nChile,4,5,6\nCuba,6,7,8",
        "sex,1.5\nmale,2\nfemale,3\nmale,4",
        "x1,x2\na,b\nc,d\na,d",
        "1,2,3",
    ],
)
def test_names_and_numbers_that_count_up_are_a_header(text: str) -> None:
    assert not could_be_data(*rows(text))


@given(st.lists(st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), min_size=3, max_size=3), min_size=2))
def test_rows_of_numbers_alone_are_data_unless_the_first_counts_up(cells: list[list[float]]) -> None:
    first, *others = [[str(cell) for cell in row] for row in cells]
    numbers = [float(cell) for cell in first]
    counts_up = [after - before for before, after in pairwise(numbers)] == [1.0, 1.0]
    assert could_be_data(first, others) == (not counts_up)


def test_a_file_without_names_is_refused_until_the_header_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    told = refusal(path, ABALONE)
    assert told.startswith("t.csv: the first row (M, 0.533, 11) looks like data: are the names of the columns missing?")
    assert "data.header: none" in told
    assert "data.header: first" in told
    whole = [["M", "I", "I", "M", "F", "F"], [0.533, 0.43, 0.587, 0.1, 0.2, 0.3], [11, 2, 10, 3, 4, 5]]
    assert load(path, header="none") == dict(zip("012", whole, strict=True))
    assert load(path, header=["sex", "long", "rings"]) == dict(zip(("sex", "long", "rings"), whole, strict=True))
    assert list(load(path, header="first")) == ["M", "0.533", "11"]
    assert refusal(path, header=["a", "b"]) == "t.csv: data.header has 2 names, and the first row 3 cells"
    assert "several columns have the same name: a" in refusal(path, header=["a", "b", "a"])
    # Names that stand in the file all the same are its header.
    assert load(path, "sex,long,rings\n" + ABALONE, header=["sex", "long", "rings"])["rings"] == whole[2]


def test_without_a_header_blank_lines_and_damage_are_found_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    cells = {"0": [1, 3, 5], "1": [2, 4, 6]}
    assert load(path, "\n1,2\n\n3,4\n\n5,6\n\n", header="none") == cells
    source = open_table(path, "t.csv", header="none", text=True)
    parts = pl.concat(readers.batches(source, ["0", "1"], 2)).to_dict(as_series=False)
    assert parts == {key: [str(cell) for cell in column] for key, column in cells.items()}
    assert refusal(path, "1,2\n3,4,5\n", header="none") == "t.csv: row 2 has 3 cells, and the first one has 2"
    assert refusal(path, "1,2\n3\n", header="none") == "t.csv: row 2 has 1 cell, and the first one has 2"


def test_names_lose_the_blanks_that_cells_lose_and_doubled_quotes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert load(path, 'a, b,"size ""net"""\n1,2,3\n') == {"a": [1], "b": [2], 'size "net"': [3]}
    assert load(path, '"a\nb","c,d"\n1,2\n') == {"a\nb": [1], "c,d": [2]}
    assert list(load(path, "a, b\n1,2\n", named=[" b"])) == ["a", " b"]
    assert "several columns have the same name: a" in refusal(path, "a, a\n1,2\n")


# --- separators


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("1,5;2,5\n1,5;3,5\n", ";"),
        ("size, in m, net;weight, in kg;price, in EUR\n1;2;3\n", ";"),
        ("a\tb c\n1\t2\n", "\t"),
        ('"a;b",c\n1,2\n', ","),
        ("a  b\n1  2\n", " "),
        ("first name\nJohn\nMary Ann Lee\n", ","),
        ("a\n1\n", ","),
    ],
)
def test_the_separator_is_the_one_by_which_all_rows_agree(text: str, separator: str) -> None:
    assert find_separator(text) == separator


def test_a_line_that_names_the_separator_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert load(path, "sep=;\na;b\n1,5;2\n", decimal=",", text=True) == {"a": ["1,5"], "b": ["2"]}
    assert load(path, "\ufeffsep=|\r\n\r\na|b\r\n1|2\r\n") == {"a": [1], "b": [2]}
    assert load(path, "sep=;\n1;2\n5;2\n", header="none") == {"0": [1, 5], "1": [2, 2]}
    assert "its first line names the separator" in refusal(path, "sep=~\na~b\n1~2\n")


def test_blanks_separate_cells_where_all_rows_agree(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    assert load(path, "  a    b c\n  1  2.5 x\n\n 10 -3.5 y\n") == {"a": [1, 10], "b": [2.5, -3.5], "c": ["x", "y"]}
    assert load(path, 'a b\n1 "x y"\n2 5\'10"\n') == {"a": [1, 2], "b": ["x y", "5'10\""]}
    # R leaves out the name of the column of row names.
    assert load(path, '"a" "b"\n"1" 5 6\n"2" 7 8\n') == {"": [1, 2], "a": [5, 7], "b": [6, 8]}
    assert refusal(path, "a b\n1 2\n1 2 3\n", separator=" ") == "t.txt: row 2 has 3 cells, and the first line has 2"
    assert load(path, " 0.1  18.0 1\n 0.2  17.0 2\n 0.2  18.0 5\n", header="none") == {
        "0": [0.1, 0.2, 0.2],
        "1": [18.0, 17.0, 18.0],
        "2": [1, 2, 5],
    }


# --- what `predict` wrote


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00")), min_size=1))
def test_text_that_was_quoted_against_formulas_is_read_as_it_was(cells: list[str]) -> None:
    frame = pl.DataFrame({"cell": cells})
    assert formulas.unquoted(frame.select(formulas.quoted("cell")))["cell"].to_list() == [
        # what was there with a quote before a formula already cannot be told from ours
        cell[1:] if formulas.unquoted(pl.DataFrame({"cell": [cell]}))["cell"][0] != cell else cell
        for cell in cells
    ]


def test_only_a_quote_that_we_would_write_is_taken_off() -> None:
    cells = ["'=1", "'-5 to 0", "'@home", "'-5", "'tis", "''=1", "'", "'+49 30 1", "x'=1", "-3%"]
    assert formulas.unquoted(pl.DataFrame({"cell": cells}))["cell"].to_list() == [
        *("=1", "-5 to 0", "@home", "'-5", "'tis", "''=1", "'", "+49 30 1", "x'=1", "-3%")
    ]
    assert cleaned(["'=a", "'b", " c "]) == ["=a", "'b", "c"]


def test_the_header_of_a_config_is_checked(tmp_path: Path, twolayer: Run) -> None:
    (tmp_path / "t.csv").write_text(ABALONE)
    done = twolayer("check", "t.csv", "--target", "2", "--set", "data.header=maybe")
    assert "error: --set data.header=maybe: must be auto, first, none or a list of names, not 'maybe'" in done.stderr
    done = twolayer("data", "t.csv", "--target", "0,2", "--set", "data.header=none", "--format", "jsonl")
    assert [json.loads(line)["used as"].partition(",")[0] for line in done.stdout.splitlines()][::2] == ["target"] * 2
    done = twolayer("data", "t.csv", "--target", "rings", "--set", "data.header=[sex, long, rings]")
    assert done.returncode == 0
    same = twolayer("data", "t.csv", "--target", "rings", "--set", "data.header=sex, long,rings")
    assert (same.stdout, same.stderr) == (done.stdout, done.stderr)
    assert [line.split()[0] for line in done.stdout.splitlines()[3:]] == ["sex", "long", "rings"]
