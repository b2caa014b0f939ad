from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import unicodedata
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from tests.helpers import forking
from tests.helpers.forking import Forked, clean_environment
from tests.helpers.processes import COMMAND, Run
from tests.helpers.tablerun import CSV, NEW, make_run
from twolayer.cli import main
from twolayer.tables import readers, writers

CLASSES = CSV.replace("price", "kind").replace("\n", "\n", 1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that predicts numbers."""
    make_run(tmp_path / "run")
    return tmp_path / "run"


def piped(data: str | bytes, *arguments: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    given = data.encode() if isinstance(data, str) else data
    return forking.run(arguments, cwd, given=given, text=False, **options)


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def by_hand(run: Path, table: str) -> np.ndarray[Any, Any]:
    """What a run's model predicts for a table: its file, numpy and Python's csv, and nothing of ours."""
    with safe_open(run / "model.safetensors", framework="np") as file:
        tensor = {name: file.get_tensor(name).astype("float64") for name in file.keys()}  # noqa: SIM118
        columns = json.loads(file.metadata()["twolayer"])["columns"]
    raw = [
        [
            float(row[feature["column"]] == feature["category"])
            if feature["kind"] == "category"
            else float(row[feature["column"]])
            for feature in columns["features"]
        ]
        for row in parsed(table)
    ]
    x = (np.array(raw) - tensor["inputs.mean"]) / tensor["inputs.deviation"]
    hidden = np.maximum(0, x @ tensor["0.weight"].T + tensor["0.bias"])
    output = hidden @ tensor["2.weight"].T + tensor["2.bias"]
    if columns["classes"] is None:
        return np.asarray(output * tensor["targets.deviation"] + tensor["targets.mean"])
    powers = np.exp(output - output.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def test_predictions_are_those_of_the_model_file_by_hand(run: Path, twolayer: Run) -> None:
    (run.parent / "new.csv").write_text(NEW)
    done = twolayer("predict", "run", "new.csv")
    assert (done.returncode, done.stderr) == (0, "")
    rows = parsed(done.stdout)
    assert list(rows[0]) == ["size", "colour", "weight", "price_predicted"]
    assert [row["weight"] for row in rows] == ["3", "4e1", "-5"]
    np.testing.assert_allclose([float(row["price_predicted"]) for row in rows], by_hand(run, NEW)[:, 0], rtol=1e-5)


def test_classes_come_with_their_probabilities(tmp_path: Path, twolayer: Run) -> None:
    text = "size,weight,=colour\n" + "".join(
        ",".join((row["size"], row["weight"], row["colour"])) + "\n" for row in parsed(CSV)
    )
    make_run(tmp_path / "run", text, target="=colour", exclude=[])
    (tmp_path / "new.csv").write_text(NEW)
    done = twolayer("predict", "run", "new.csv", "--format", "ndjson")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["=colour_p_blue", "=colour_p_green", "=colour_p_red"]
    assert list(rows[0]) == ["size", "colour", "weight", "=colour_predicted", *names]
    shares = np.array([[row[name] for name in names] for row in rows])
    np.testing.assert_allclose(shares, by_hand(tmp_path / "run", NEW), rtol=1e-5)
    assert [row["=colour_predicted"] for row in rows] == [("blue", "green", "red")[k] for k in shares.argmax(1)]
    header = twolayer("predict", "run", "new.csv").stdout.splitlines()[0]
    assert header == "size,colour,weight," + ",".join(f"'{name}" for name in ["=colour_predicted", *names])


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_with_an_error_in_the_first_rows_nothing_is_printed(form: str, run: Path) -> None:
    done = piped("size,colour,weight\nx,red,1\n", "predict", "run", "-", "--format", form, cwd=run.parent)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"stdin: row 1, column size: 'x' is not a number" in done.stderr


def test_with_an_error_in_later_rows_the_output_is_said_to_be_a_part(run: Path) -> None:
    rows = "1,red,1\n" * 30_000
    text = f"size,colour,weight\n{rows}x,red,1\n"
    done = piped(text, "predict", "run", "-", cwd=run.parent)
    assert done.returncode == 1
    assert done.stdout.startswith(b"size,colour,weight,price_predicted\n1,red,1,")
    assert done.stdout.count(b"\n") <= 30_001
    assert b"the rows above are not all: the next ones cannot be predicted" in done.stderr
    assert b"row 30001, column size: 'x' is not a number" in done.stderr
    piped(text, "predict", "run", "-", "-o", "p.csv", cwd=run.parent)
    assert not (run.parent / "p.csv").exists()


def test_other_columns_are_carried_along_to_the_letter(run: Path) -> None:
    text = 'colour,id,size,text,weight\nred,007, 1.50,"a ""b"",\nc;",3\n blue ,1e3,-2,,40\n'
    done = piped(text, "predict", "run", "-", cwd=run.parent)
    before, after = parsed(text), parsed(done.stdout.decode())
    assert [{key: row[key] for key in row if key != "price_predicted"} for row in after] == before
    assert done.returncode == 0


def test_no_cell_becomes_a_formula_and_numbers_stay(run: Path) -> None:
    cells = [
        "=1+1",
        "+cmd",
        "-x",
        "@a",
        "\tb",
        "\rc",
        "-5",
        "+3.2",
        "-1e-3",
        "a=1",
        "'=1",
        "-1+1",
        "",
        "-",
        ".5",
        "-.5",
    ]
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["+n", "size", "colour", "weight"], *([cell, 1, "red", 2] for cell in cells)])
    done = piped(buffer.getvalue(), "predict", "run", "-", cwd=run.parent)
    # "'=1" is what a CSV of ours says for "=1": it is read as that.
    harmless = ["'=1+1", "'+cmd", "'-x", "'@a", "'\tb", "'\rc", "-5", "+3.2", "-1e-3", "a=1", "'=1", "'-1+1", "", "'-"]
    assert [row["'+n"] for row in parsed(done.stdout.decode())] == [*harmless, ".5", "-.5"]
    done = piped(buffer.getvalue(), "predict", "run", "-", "--format", "ndjson", cwd=run.parent)
    assert [json.loads(line)["+n"] for line in done.stdout.splitlines()] == [
        {"": None, "'=1": "=1"}.get(cell, cell) for cell in cells
    ]


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet may take a cell for a formula, by Python's own tables of Unicode."""
    if cell[:1] in ("\t", "\r", "\n"):
        return True
    blanks = 0
    while blanks < len(cell) and (
        unicodedata.category(cell[blanks])[0] in "CZ" or cell[blanks] in "\u034f\u115f\u1160\u3164\ufe0f"
    ):
        blanks += 1
    rest = unicodedata.normalize("NFKC", cell[blanks : blanks + 1])
    if cell[:blanks].strip(" ") == "":  # blanks that every spreadsheet keeps
        blanks = 0
        rest = unicodedata.normalize("NFKC", cell[:1])
    is_number = blanks == 0 and re.fullmatch(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", cell, re.ASCII)
    return rest in ("=", "+", "-", "@") and not is_number


SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20\ufe62\ufe63\ufe66\ufe6b\u207a\u2212"
UNSEEN = " \t\r\n\ufeff\u00a0\u200b\u200c\u200d\u2060\u00ad\u2028\u3000\u202e\u0000\u034f\u3164\ufe0f"
CELL = st.tuples(
    st.text(UNSEEN, max_size=3), st.text(SIGNS, max_size=2), st.sampled_from(["", "1", "-1e5", "SUM(A1)", "a"])
)
# Where Unicode's tables are of one mind in all versions; of those that join others UNSEEN has some.
ASSIGNED = st.characters(exclude_categories=["Cn", "Co", "Cs", "Mn"], exclude_characters="\uffa0")


@given(st.lists(CELL.map("".join) | st.text(ASSIGNED, max_size=5), min_size=1, unique=True))
@settings(deadline=None)
def test_a_cell_or_a_column_that_may_be_a_formula_is_led_by_a_quote_and_no_other(cells: list[str]) -> None:
    frame = pl.DataFrame({"text": cells})
    written = b"".join(writers.parts([frame], frame.schema, "csv")).decode()
    rows = list(csv.reader(io.StringIO(written, newline="")))[1:]
    assert [row[0] if row else "" for row in rows] == ["'" * is_formula(cell) + cell for cell in cells]
    wide = pl.DataFrame({cell: [1] for cell in cells})
    header = b"".join(writers.parts([wide], wide.schema, "csv")).decode()
    (names, _) = csv.reader(io.StringIO(header, newline=""))
    assert names == ["'" * is_formula(cell) + cell for cell in cells]


@pytest.mark.sample(4)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".arrow", ".feather", ".ndjson", ".jsonl"])
def test_a_file_of_any_format_holds_the_same(suffix: str, run: Path, twolayer: Run) -> None:
    table = pl.read_csv(io.StringIO(NEW)).with_columns(id=pl.Series(["a", None, "=é"]))
    table.write_parquet(run.parent / "new.parquet")
    file = run.parent / f"out{suffix}"
    file.write_text("old")
    done = twolayer("predict", "run", "new.parquet", "-o", file.name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"wrote 3 rows to {file.name}\n")
    reading: dict[str, Any] = {
        ".parquet": pl.read_parquet,
        ".arrow": pl.read_ipc,
        ".feather": pl.read_ipc,
        ".csv": pl.read_csv,
        ".tsv": lambda path: pl.read_csv(path, separator="\t"),
    }
    found = reading.get(suffix, pl.read_ndjson)(file)
    id_ = ["a", None, "'=é" if suffix in (".csv", ".tsv") else "=é"]
    assert found.drop("price_predicted").equals(table.with_columns(id=pl.Series(id_)))
    np.testing.assert_allclose(found["price_predicted"], by_hand(run, NEW)[:, 0], rtol=1e-5)
    assert sorted(path.name for path in run.parent.iterdir()) == sorted(["run", "run.csv", "new.parquet", file.name])


def test_a_pipe_of_ndjson_is_read(run: Path) -> None:
    lines = "".join(json.dumps({**row, "size": float(row["size"]), "weight": 2}) + "\n" for row in parsed(NEW))
    done = piped(lines, "predict", "run", "-", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert [row["colour"] for row in parsed(done.stdout.decode())] == ["red", "blue", "green"]


def test_many_rows_come_in_their_order_and_each_as_it_would_alone(run: Path) -> None:
    rows = [f"{i % 977 / 7},{('red', 'blue', 'green')[i % 3]},{i % 31},{i}" for i in range(30_000)]
    text = "size,colour,weight,n\n" + "\n".join(rows) + "\n"
    done = piped(text, "predict", "run", "-", cwd=run.parent)
    found = parsed(done.stdout.decode())
    assert [row["n"] for row in found] == [str(i) for i in range(30_000)]
    predicted = np.array([float(row["price_predicted"]) for row in found])
    np.testing.assert_allclose(predicted, by_hand(run, text)[:, 0], rtol=1e-5, atol=1e-5)
    assert piped(text, "predict", "run", "-", cwd=run.parent).stdout == done.stdout


def test_a_reader_that_has_enough_is_no_error(run: Path) -> None:
    text = "size,colour,weight\n" + "1,red,2\n" * 100_000
    (run.parent / "new.csv").write_text(text)
    with Forked(["predict", "run", "new.csv"], run.parent) as process:
        assert process.stdout.readline() == "size,colour,weight,price_predicted\n"
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (0, "")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_error_far_down_leaves_the_file_as_it_was(suffix: str, run: Path, twolayer: Run) -> None:
    text = "size,colour,weight\n" + "1,red,2\n" * 50_000 + "1,red,many\n"
    (run.parent / "new.csv").write_text(text)
    out = run.parent / f"out{suffix}"
    out.write_text("old")
    before = sorted(run.parent.iterdir())
    done = twolayer("predict", "run", "new.csv", "-o", out.name)
    assert done.returncode == 1
    assert done.stderr == "error: new.csv: row 50001, column weight: 'many' is not a number\n"
    assert out.read_text() == "old"
    assert sorted(run.parent.iterdir()) == before


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_is_one_line_and_leaves_nothing(suffix: str, run: Path) -> None:
    (run.parent / "new.csv").write_text(
        "size,colour,weight\n" + "".join(f"{i * i % 9973 / 7},red,{i % 7}\n" for i in range(50_000))
    )
    before = sorted(run.parent.iterdir())
    limit = f"ulimit -f 100; exec {COMMAND} predict run new.csv -o out{suffix}"
    done = subprocess.run(
        ["bash", "-c", limit], cwd=run.parent, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"error: out{suffix}: cannot be written: File too large\n"
    assert sorted(run.parent.iterdir()) == before


def test_unknown_categories_are_counted(run: Path, twolayer: Run) -> None:
    (run.parent / "new.csv").write_text("size,colour,weight\n1,pink,2\n1,red,2\n1,mauve,2\n")
    done = twolayer("predict", "run", "new.csv")
    assert len(parsed(done.stdout)) == 3
    assert done.returncode == 0
    assert done.stderr == (
        "new.csv: column colour: 2 rows have a category that the model does not know; it is treated as no category\n"
    )


def test_no_rows_are_no_error(run: Path) -> None:
    done = piped("size,colour,weight,x\n", "predict", "run", "-", cwd=run.parent)
    assert (done.returncode, done.stdout) == (0, b"size,colour,weight,x,price_predicted\n")


def test_data_keep_their_letters_in_any_locale(run: Path) -> None:
    text = "size,colour,weight,ö\n1,red,2,naïve\n"
    environment = clean_environment(LC_ALL="C", PYTHONCOERCECLOCALE="0")
    done = subprocess.run(
        [COMMAND, "predict", "run", "-"],
        cwd=run.parent,
        env=environment,
        input=text.encode(),
        capture_output=True,
        check=True,
    )
    assert "weight,ö,price" in done.stdout.decode()
    assert ",naïve," in done.stdout.decode()


REFUSED: dict[str, tuple[str, list[str], int, str]] = {
    "missing columns": ("size\n1\n", [], 1, "stdin: columns colour, weight are missing, and the model needs them"),
    "collision": ("size,colour,weight,price_predicted\n1,red,2,3\n", [], 1, "already has a column price_predicted"),
    "infinite": ("size,colour,weight\n1,red,inf\n", [], 1, "row 1, column weight: is infinite"),
    "nothing": ("", [], 1, "stdin: is empty"),
    "broken NDJSON": ('{"size": 1', [], 1, "stdin: row 1: is not JSON"),
    "empty NDJSON line": ('{"size": 1}\n\n[1]\n', [], 1, "stdin: row 2: is not a JSON object"),
    "not UTF-8": ("size,colour,weight\n1,\udcff,2\n", [], 1, "stdin: row 1, column colour: is not UTF-8; save"),
    "too many cells": ("size,colour,weight\n1,red,2,3\n", [], 1, "stdin: row 1 has 4 cells, and the first line has 3"),
    "too few cells": (NEW + "1,red\n", [], 1, "stdin: row 4 has 2 cells, and the first line has 3"),
    "an open quote": (NEW + '1,"red,2\n', [], 1, "stdin: row 4: a quote is opened and not closed"),
    "unknown suffix": (NEW, ["-o", "out.xlsx"], 2, "out.xlsx: the suffix names no known format; use one of .csv"),
    "no file": (NEW, ["-o", "run", "--format", "csv"], 2, "run: exists and is not a file"),
    "a device": (NEW, ["-o", "/dev/null", "--format", "csv"], 2, "/dev/null: exists and is not a file"),
    "no folder": (NEW, ["-o", "no/out.csv"], 1, "no/out.csv: cannot be written: No such file or directory"),
    "parquet to stdout": (NEW, ["--format", "parquet"], 2, "--format parquet: is not text and cannot be printed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_predicted_is_one_line(what: str, run: Path) -> None:
    text, arguments, code, message = REFUSED[what]
    done = piped(text.encode(errors="surrogateescape"), "predict", "run", "-", *arguments, cwd=run.parent)
    error = done.stderr.decode()
    assert (done.returncode, error.count("\n"), error[:7]) == (code, 1, "error: "), error
    assert message in error
    assert done.stdout.count(b"\n") <= 1  # the header


@pytest.mark.parametrize("row", ["1", "1,red", "1,red,2", "1,red,2,3,4,5"])
def test_a_row_of_other_width_is_refused_where_missing_values_are_not(tmp_path: Path, twolayer: Run, row: str) -> None:
    make_run(tmp_path / "run", CSV + "100,,,,7\n", missing="mean")
    (tmp_path / "new.csv").write_text("size,colour,weight,carried\n" + "1,red,2,x\n\n" * 20_000 + row + "\n")
    done = twolayer("predict", "run", "new.csv")
    count = row.count(",") + 1
    assert done.returncode == 1
    assert done.stderr == f"error: new.csv: row 20001 has {count} cell{'s' * (count > 1)}, and the first line has 4\n"


def test_blank_lines_are_no_rows(run: Path, twolayer: Run) -> None:
    lines = NEW.splitlines()
    (run.parent / "new.csv").write_text("\n".join(["", *lines[:2], "", "  ", *lines[2:], "", "\t", ""]))
    done = twolayer("predict", "run", "new.csv")
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_allclose(
        [float(row["price_predicted"]) for row in parsed(done.stdout)], by_hand(run, NEW)[:, 0], rtol=1e-5
    )
    (run.parent / "new.csv").write_text("size,colour,weight\n" + "1,red,2\n\n" * 20_000 + "1,red,x\n")
    done = twolayer("predict", "run", "new.csv")
    assert done.stderr.splitlines() == [
        "the rows above are not all: the next ones cannot be predicted",
        "error: new.csv: row 20001, column weight: 'x' is not a number",
    ]
    assert 0 < len(parsed(done.stdout)) <= 20_000


def test_a_row_of_separators_is_a_row_whose_values_are_missing(tmp_path: Path, twolayer: Run) -> None:
    make_run(tmp_path / "run", CSV + "100,,,,7\n", missing="mean")
    (tmp_path / "new.csv").write_text(NEW + ",,\n\n")
    assert len(parsed(twolayer("predict", "run", "new.csv").stdout)) == 4


def test_numbers_of_any_type_are_predicted_from(run: Path, twolayer: Run) -> None:
    frame = pl.read_csv(io.StringIO(NEW))
    for dtype in (pl.Decimal(20, 2), pl.Int128):
        cast = frame.with_columns(pl.col("weight").cast(dtype))
        cast.write_parquet(run.parent / "new.parquet")
        done = twolayer("predict", "run", "new.parquet", "--format", "ndjson")
        assert (done.returncode, done.stderr) == (0, "")
        found = [json.loads(line)["price_predicted"] for line in done.stdout.splitlines()]
        np.testing.assert_allclose(found, by_hand(run, NEW)[:, 0], rtol=1e-5)


def test_a_prediction_that_is_no_number_is_told(run: Path, twolayer: Run) -> None:
    (run.parent / "new.csv").write_text(NEW + "1e300,red,2\n")
    done = twolayer("predict", "run", "new.csv")
    assert done.returncode == 0
    assert done.stderr == "new.csv: price_predicted is not a finite number in 1 row: its inputs are too large\n"


def test_the_input_is_never_written_over(run: Path, twolayer: Run) -> None:
    file = run.parent / "new.csv"
    file.write_text(NEW)
    (run.parent / "link.csv").symlink_to("new.csv")
    for name in ("new.csv", "./new.csv", "link.csv"):
        done = twolayer("predict", "run", "new.csv", "-o", name)
        assert (done.returncode, done.stderr) == (2, f"error: {Path(name)}: is the input; choose another name\n")
    assert file.read_text() == NEW


def test_what_is_no_run_of_a_table_is_refused(run: Path, twolayer: Run) -> None:
    folder = run.parent
    (folder / "new.csv").write_text(NEW)
    twolayer("train", "scratch", "--quiet", "--out", "drawn")
    make_run(folder / "stopped", status="interrupted")
    model = run / "model.safetensors"
    data = bytearray(model.read_bytes())
    data[-5] ^= 1
    model.write_bytes(data)
    for name, code, message in (
        ("no-such", 2, "no-such: no such run folder; `twolayer runs` lists all runs"),
        ("drawn", 2, "drawn: was trained on random data, not on a table"),
        (
            "stopped",
            1,
            "stopped: has no model yet: its training was interrupted; resume it with: twolayer train --resume stopped",
        ),
        ("run", 1, "run/model.safetensors: is damaged: its checksum does not match"),
    ):
        for command in ("predict", "evaluate"):
            done = twolayer(command, name, "new.csv")
            assert (done.returncode, done.stdout, done.stderr) == (code, "", f"error: {message}\n")
    model.unlink()
    assert twolayer("predict", "run", "new.csv").stderr == "error: run/model.safetensors: is missing\n"


def test_a_model_file_alone_is_all_that_predictions_and_scores_need(run: Path, twolayer: Run) -> None:
    folder = run.parent
    (folder / "elsewhere").mkdir()
    alone = folder / "elsewhere" / "ours.safetensors"
    alone.write_bytes((run / "model.safetensors").read_bytes())
    (folder / "link").symlink_to(alone)
    (folder / "new.csv").write_text(NEW)
    for words in (("predict", "{}", "new.csv"), ("evaluate", "{}", "run.csv"), ("data", "new.csv", "--run", "{}")):
        of_run, of_file, of_link = (
            twolayer(*(word.format(name) for word in words)) for name in ("run", "elsewhere/ours.safetensors", "link")
        )
        assert (of_run.returncode, of_run.stdout) == (0, of_file.stdout), of_file.stderr
        assert of_file.stdout == of_link.stdout != ""
    alone.write_bytes(alone.read_bytes()[:-1] + b"?")
    for name, message in (
        ("elsewhere/ours.safetensors", "is damaged: its checksum does not match"),
        ("new.csv", "is not a safetensors file, or is damaged"),
    ):
        done = twolayer("predict", name, "new.csv")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {name}: {message}\n")


def test_without_polars_one_line_says_what_to_install(run: Path) -> None:
    program = (
        "import sys; sys.modules['polars'] = None; from twolayer.__main__ import main; sys.argv[0] = 'twolayer'; "
        "sys.exit(main())"
    )
    for command in ("predict", "evaluate"):
        done = subprocess.run(
            [sys.executable, "-c", program, command, "run", "run.csv"],
            cwd=run.parent,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error: reading tables needs polars: pip install 'twolayer[data]'\n"


def test_of_any_number_of_rows_some_thousands_are_in_memory_at_a_time(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    Path("new.csv").write_text("size,colour,weight\n" + "1,red,2\n" * 100_000)
    heights, most = [], 0
    parts: list[weakref.ref[pl.DataFrame]] = []
    batches = readers.batches

    def counted(*arguments: Any) -> Iterator[pl.DataFrame]:
        nonlocal most
        for part in batches(*arguments):
            heights.append(part.height)
            parts.append(weakref.ref(part))
            most = max(most, sum(other() is not None for other in parts))
            yield part

    monkeypatch.setattr(readers, "batches", counted)
    assert main.run(["predict", "run", "new.csv", "-o", "out.csv"]) == 0
    assert Path("out.csv").read_text().count("\n") == 1 + sum(heights) == 100_001
    assert max(heights) <= 8192
    assert most <= 2
