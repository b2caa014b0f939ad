"""A file is read for a model as that of the training was, or in the way that fits, and the user is told."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.helpers import forking
from tests.helpers.processes import Run
from tests.helpers.table_files import workbook
from tests.helpers.tablerun import make_run
from twolayer.runs.model_file import encoding_of
from twolayer.tables.features import Encoding

ROOMS = [(i * 37 % 101 / 100, i * 53 % 97 / 100) for i in range(40)]
NAMES = ("size, in m, net", "weight, in kg", "price, in EUR")


def table(separator: str, decimal: str = ".", *, names: bool = True, target: bool = True) -> str:
    """The rooms as a CSV; a name is quoted where it holds the separator."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator="\n")
    width = 3 if target else 2
    if names:
        writer.writerow(NAMES[:width])
    for size, weight in ROOMS:
        cells = [f"{number:.3f}".replace(".", decimal) for number in (size, weight, 3 * size + weight)]
        writer.writerow(cells[:width])
    return file.getvalue()


def predicted(text: str) -> list[float]:
    rows = list(csv.reader(io.StringIO(text)))
    return [float(row[-1]) for row in rows[1:]]


@pytest.fixture
def german(tmp_path: Path) -> Path:
    """A run on a table with semicolons and decimal commas."""
    make_run(tmp_path / "run", table(";", ","), target=NAMES[2], exclude=[], separator=";", decimal=",")
    return tmp_path


def test_a_run_reads_its_own_file_without_being_told_how(german: Path, twolayer: Run) -> None:
    done = twolayer("evaluate", "run", "run.csv")
    assert (done.returncode, "run.csv: " in done.stderr) == (0, False)  # nothing about how it is read
    done = twolayer("predict", "run", "run.csv")
    assert (done.returncode, done.stderr, len(predicted(done.stdout))) == (0, "", 40)
    columns = encoding_of(german / "run")
    assert (columns.separator, columns.decimal, columns.header, columns.sheet) == (";", ",", "auto", None)


def test_another_separator_is_found_and_told(german: Path, twolayer: Run) -> None:
    own = predicted(twolayer("predict", "run", "run.csv").stdout)
    (german / "new.csv").write_text(table(","))
    for command in ("evaluate", "predict"):
        done = twolayer(command, "run", "new.csv")
        assert done.returncode == 0
        assert 'new.csv: the separator is ",", and was ";" in training' in done.stderr
        assert 'the decimal point is read as ".", and was "," in training' in done.stderr
    assert predicted(done.stdout) == own
    (german / "new.csv").write_text(table("\t", ","))
    done = twolayer("predict", "run", "new.csv")
    assert (predicted(done.stdout), done.stderr.count("\n")) == (own, 1)
    assert "the separator is a tab" in done.stderr


def test_what_is_set_is_done_and_nothing_else_is_tried(german: Path, twolayer: Run) -> None:
    own = predicted(twolayer("predict", "run", "run.csv").stdout)
    (german / "new.csv").write_text(table("|"))
    done = twolayer("predict", "run", "new.csv", "--set", "data.separator='|'", "--set", "data.decimal=.")
    assert (predicted(done.stdout), done.stderr) == (own, "")
    done = twolayer("evaluate", "run", "new.csv", "--set", "data.separator=;")
    assert done.returncode == 1
    assert "are missing, and the model needs them" in done.stderr
    done = twolayer("predict", "run", "new.csv", "--set", "data.target=x")
    assert done.returncode == 2
    assert "must be one of data.separator, data.decimal, data.header, data.sheet" in done.stderr
    done = twolayer("predict", "run", "new.csv", "--set", "data.decimal=x")
    assert done.returncode == 2
    assert '--set data.decimal=x: must be auto, "." or ","' in done.stderr


def test_missing_columns_are_told_as_the_run_reads_the_file(german: Path, twolayer: Run) -> None:
    (german / "new.csv").write_text("size, in m, net;other\n1;2\n")
    done = twolayer("predict", "run", "new.csv")
    assert done.stderr == "error: new.csv: column weight, in kg is missing, and the model needs it\n"


def test_a_run_on_a_file_without_names_keeps_the_names_it_made(tmp_path: Path, twolayer: Run) -> None:
    whole = table(",", names=False)
    make_run(tmp_path / "run", whole, target="2", exclude=[], header="none")
    assert encoding_of(tmp_path / "run").header == ("0", "1", "2")
    done = twolayer("evaluate", "run", "run.csv")
    assert (done.returncode, "run.csv: " in done.stderr) == (0, False)  # nothing about how it is read
    own = twolayer("predict", "run", "run.csv").stdout
    assert own.splitlines()[0] == "0,1,2,2_predicted"
    (tmp_path / "new.csv").write_text(table(",", names=False, target=False))
    done = twolayer("predict", "run", "new.csv")
    assert predicted(done.stdout) == predicted(own)
    assert done.stderr == "new.csv: has no header and no target; its columns are 0, 1, in order\n"
    (tmp_path / "new.csv").write_text("0,1,2\n" + whole)
    done = twolayer("predict", "run", "new.csv")
    assert done.stderr == "new.csv: has its names in the first line; the file of the training had none\n"
    assert predicted(done.stdout) == predicted(own)
    (tmp_path / "new.csv").write_text("1.5\n0.7\n")
    done = twolayer("predict", "run", "new.csv")
    assert done.stderr == "error: new.csv: data.header has 3 names, and the first row 1 cell\n"


@pytest.mark.parametrize("first", ["1,0", "0,1"])
def test_a_first_row_of_the_numbers_that_name_columns_is_no_guess(first: str, tmp_path: Path, twolayer: Run) -> None:
    rows = "".join(f"{i % 2},{i // 2 % 2},{i % 2 + 3 * (i // 2 % 2)}\n" for i in range(40))
    make_run(tmp_path / "run", rows, target="2", exclude=[], header="none")
    (tmp_path / "new.csv").write_text(f"{first}\n1,1\n0,0\n")
    for command in ("predict", "data"):
        done = twolayer(command, *(["run", "new.csv"] if command == "predict" else ["new.csv", "--run", "run"]))
        assert (done.returncode, done.stdout) == (1, "")
        told = f"new.csv: the first row ({first.replace(',', ', ')}) may hold the names of the columns, or data; add"
        assert told in done.stderr
    for header, count in (("none", 3), ("first", 2)):
        done = twolayer("predict", "run", "new.csv", "--set", f"data.header={header}")
        assert (done.returncode, len(predicted(done.stdout))) == (0, count)
    (tmp_path / "new.csv").write_text(f"{first},2\n" + rows)  # 0,1,2 counts up; 1,0,2 is what a row may be
    done = twolayer("predict", "run", "new.csv")
    assert (done.returncode, "may hold the names" in done.stderr) == ((0, False) if first == "0,1" else (1, True))
    (tmp_path / "new.csv").write_text("2,1,0\n" + "".join(f"{i}.5,{i % 2},{i % 2}\n" for i in range(5)))
    assert "may hold the names" in twolayer("predict", "run", "new.csv").stderr
    for header, count in (("none", 6), ("first", 5)):
        done = twolayer("predict", "run", "new.csv", "--set", f"data.header={header}")
        assert len(predicted(done.stdout)) == count


def test_names_in_another_order_are_names_where_they_are_no_cells(tmp_path: Path, twolayer: Run) -> None:
    rows = [(i % 5 / 2, "ab"[i % 2], i % 5 + i % 2) for i in range(40)]
    make_run(tmp_path / "run", "".join(f"{x},{c},{y}\n" for x, c, y in rows), target="2", exclude=[], header="none")
    own = predicted(twolayer("predict", "run", "run.csv").stdout)
    (tmp_path / "new.csv").write_text("2,1,0\n" + "".join(f"{y},{c},{x}\n" for x, c, y in rows))
    assert predicted(twolayer("predict", "run", "new.csv").stdout) == own


@pytest.mark.parametrize("name", ["t.npy", "t.parquet", "t.csv"])
def test_a_header_or_a_sheet_that_the_format_does_not_have_is_refused(name: str, tmp_path: Path, twolayer: Run) -> None:
    cells = np.arange(40.0).reshape(20, 2) ** 1.5
    if name == "t.npy":
        np.save(tmp_path / name, cells)
    else:
        frame = pl.DataFrame(cells, ["0", "1"])
        frame.write_parquet(tmp_path / name) if name == "t.parquet" else frame.write_csv(tmp_path / name)
    train = ["train", name, "--target", "1", "--epochs", "2", "-q", "--set", "H=2"]
    assert twolayer(*train, "--out", "run").returncode == 0
    keys = [("sheet", "one", "Excel files"), ("header", "none", "CSV and Excel files")][: 1 if name == "t.csv" else 2]
    for key, value, formats in keys:
        commands = ([*train, "--no-save"], ["data", name], ["predict", "run", name], ["data", name, "--run", "run"])
        for command in commands:
            done = twolayer(*command, "--set", f"data.{key}={value}")
            assert (done.returncode, done.stdout) == (1, "")
            assert f"{name}: data.{key} is for {formats} alone; leave it out" in done.stderr


def test_a_target_in_the_first_column_shifts_no_other(tmp_path: Path, twolayer: Run) -> None:
    text = "".join(",".join(reversed(line.split(","))) + "\n" for line in table(",", names=False).splitlines())
    make_run(tmp_path / "run", text, target="y", exclude=[], header=["y", "b", "a"])
    own = predicted(twolayer("predict", "run", "run.csv").stdout)
    (tmp_path / "new.csv").write_text("".join(line.partition(",")[2] + "\n" for line in text.splitlines()))
    assert predicted(twolayer("predict", "run", "new.csv").stdout) == own
    (tmp_path / "new.csv").write_text("a,b,y\n" + table(",", names=False))  # names in another order
    assert predicted(twolayer("predict", "run", "new.csv").stdout) == own


def test_a_sheet_that_was_named_is_read_again(tmp_path: Path, twolayer: Run) -> None:
    rows: list[list[str | float | None]] = [["a", "b", "y"]]
    rows += [[size, weight, 3 * size + weight] for size, weight in ROOMS]
    (tmp_path / "t.xlsx").write_bytes(workbook({"one": rows, "two": [["c"], [1]]}))
    done = twolayer("train", "t.xlsx", "--target", "y", "--set", "data.sheet=one", "--epochs", "2", "--out", "r", "-q")
    assert done.returncode == 0, done.stderr
    assert len(predicted(twolayer("predict", "r", "t.xlsx").stdout)) == 40


def test_a_validation_file_is_read_in_the_way_that_fits_and_its_categories_are_told(
    tmp_path: Path, twolayer: Run
) -> None:
    rows = [(i, "ab"[i % 2], 3 * i % 7) for i in range(40)]
    (tmp_path / "t.csv").write_text("n,c,y\n" + "".join(f"{n},{c},{y}\n" for n, c, y in rows))
    (tmp_path / "v.csv").write_text("n;c;y\n" + "".join(f"{n};z;{y}\n" for n, c, y in rows[:5]))
    done = twolayer("train", "t.csv", "--target", "y", "--set", "validation=v.csv", "--epochs", "2", "-q", "--no-save")
    assert done.returncode == 0, done.stderr
    assert "v.csv: column c: 5 rows have a category that the model does not know" in done.stderr
    assert 'v.csv: the separator is ";", and was "," in training' in done.stderr


def test_what_predict_wrote_can_be_read_back(tmp_path: Path, twolayer: Run) -> None:
    bins = ["-5 to 0", "+49 30 1", "@home", "plain", "'tis"]
    text = "=n,bin,y\n" + "".join(f"{2 * i},{bins[i % 5]},{i % 5 * 2 + i / 9:.2f}\n" for i in range(60))
    make_run(tmp_path / "run", text, target="y", exclude=[])
    assert encoding_of(tmp_path / "run").inputs == ("=n", "bin")
    assert twolayer("predict", "run", "run.csv", "-o", "p.csv").returncode == 0
    assert (tmp_path / "p.csv").read_text().startswith("'=n,bin,y,y_predicted\n0,'-5 to 0,")
    back = "".join(",".join(line.split(",")[:3]) + "\n" for line in (tmp_path / "p.csv").read_text().splitlines())
    (tmp_path / "back.csv").write_text(back)
    first, again = (twolayer("evaluate", "run", name, "--format", "jsonl") for name in ("run.csv", "back.csv"))
    assert (again.stdout, again.stderr) == (first.stdout, first.stderr)


def test_data_shows_a_table_as_a_run_reads_it(german: Path, twolayer: Run) -> None:
    done = twolayer("data", "run.csv", "--run", "run", "--format", "jsonl")
    found = {row["column"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert [row["used as"] for row in found.values()] == ["number", "number", "target"]
    mean = sum(round(size, 3) for size, _ in ROOMS) / 40
    assert found[NAMES[0]]["mean"] == pytest.approx(mean)
    assert found[NAMES[0]]["mean in training"] == pytest.approx(mean)
    (german / "new.csv").write_text("weight, in kg;other\n1,5;2\n")
    done = twolayer("data", "new.csv", "--run", "run")
    assert done.returncode == 1
    assert [line.split()[-2:] for line in done.stdout.splitlines() if "other" in line] == [["used", "yes"]]
    assert done.stderr.endswith("column size, in m, net is missing, and the model needs it\n")
    done = twolayer("data", "new.csv", "--run", "run", "--target", "x")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_an_encoding_of_an_older_version_has_no_way_of_reading() -> None:
    document = {
        "features": [{"name": "a", "column": "a", "kind": "number"}],
        "targets": [{"column": "y"}],
        "classes": None,
        "kinds": {"a": "number"},
        "decimal": ".",
    }
    columns = Encoding.of(document)
    assert (columns.separator, columns.header, columns.sheet) == ("auto", "auto", None)
    assert Encoding.of(json.loads(json.dumps(columns.document()))) == columns


def test_a_run_from_stdin_finds_the_separator(german: Path) -> None:
    done = forking.run(["predict", "run", "-"], german, given=table(","))
    assert done.returncode == 0
    assert 'stdin: the separator is ","' in done.stderr
