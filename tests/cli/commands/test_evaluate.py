"""twolayer evaluate: three models on the rows of a file."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.helpers.processes import Run
from tests.helpers.tablerun import CSV, make_run, numbers_of
from twolayer.evaluation.predictor import load_model
from twolayer.evaluation.scores import Scores


def test_evaluate_prints_three_models_in_each_format(tmp_path: Path, twolayer: Run) -> None:
    make_run(tmp_path / "run")
    model = load_model(tmp_path / "run")
    scores = Scores(model)
    scores.add(*numbers_of(tmp_path / "run.csv", model))
    done = twolayer("evaluate", "run", "run.csv")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    models = ["network", "linear", "constant", "network - linear", "network - constant"]
    assert lines[:2] == ["60 rows", ""]
    assert lines[2].split() == ["target", "model", "R2", "RMSE", "MAE", "loss"]
    assert [re.split(" {2,}", line)[:2] for line in lines[3:8]] == [["price", name] for name in models]
    names = ["target", "model", "loss", "R2", "RMSE", "MAE", "loss se", "R2 se", "RMSE se", "MAE se", "rows"]
    rows = [
        (row.target, row.model, *(f.value for f in row.figures.values()), *(f.error for f in row.figures.values()), 60)
        for row in scores.table()
    ]
    found = list(csv.reader(io.StringIO(twolayer("evaluate", "run", "run.csv", "--format", "csv").stdout)))
    assert found == [names, *([str(cell) for cell in row] for row in rows)]
    lines_ = twolayer("evaluate", "run", "run.csv", "--format", "jsonl").stdout.splitlines()
    assert [tuple(json.loads(line).items()) for line in lines_] == [tuple(zip(names, row, strict=True)) for row in rows]


def test_evaluate_prints_who_is_taken_for_whom(tmp_path: Path, twolayer: Run) -> None:
    make_run(tmp_path / "run", target="colour")
    done = twolayer("evaluate", "run", "run.csv")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[2] == ["model", "accuracy", "log", "loss"]
    assert " ".join(lines[9]) == "colour: true classes in rows, predicted ones in columns"
    assert lines[10] == ["blue", "green", "red"]
    assert [line[0] for line in lines[11:14]] == ["blue", "green", "red"]
    assert sum(int(count) for line in lines[11:14] for count in line[1:]) == 60


def test_many_classes_have_no_table(tmp_path: Path, twolayer: Run) -> None:
    text = "x,t\n" + "".join(f"{i * 7 % 63},c{i % 21}\n" for i in range(63))
    make_run(tmp_path / "run", text, target="t", exclude=[])
    done = twolayer("evaluate", "run", "run.csv")
    assert (done.returncode, len(done.stdout.strip().splitlines())) == (0, 8)
    assert done.stderr.startswith("no confusion matrix: there are 21 classes, more than 20\n")


def test_evaluate_reads_a_pipes_one_row(tmp_path: Path, twolayer: Run) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "one.csv").write_text("weight,size,colour,price,more\n1,2,pink,3,4\n")
    done = twolayer("evaluate", "run", "one.csv", "--format", "jsonl")
    assert [json.loads(line)["R2"] for line in done.stdout.splitlines()] == [None] * 5
    assert [json.loads(line)["MAE se"] for line in done.stdout.splitlines()] == [None] * 5
    assert done.stderr == (
        "one.csv: column colour: 1 row has a category that the model does not know; it is treated as no category\n"
        "1 row is few: on others the scores may differ much\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size,colour\n1,red\n", "needs it; column price is missing: the target, which predictions are compared with"),
        ("size,colour,weight,price\n", "data.csv: has no rows"),
        ("size,colour,weight,price\n1,red,2,\n", "data.csv: has no rows with a target"),
        ("size,colour,weight,price\n1,red,2,cheap\n", "data.csv: row 1, column price: 'cheap' is not a number"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(text: str, message: str, tmp_path: Path, twolayer: Run) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "data.csv").write_text(text)
    done = twolayer("evaluate", "run", "data.csv")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert message in done.stderr


def test_a_class_that_the_model_does_not_know_is_refused(tmp_path: Path, twolayer: Run) -> None:
    make_run(tmp_path / "run", target="colour")
    (tmp_path / "data.csv").write_text(CSV.replace("green", "pink"))
    done = twolayer("evaluate", "run", "data.csv")
    assert done.returncode == 1
    assert "'pink' is not a class that the model knows" in done.stderr


def test_figures_that_overflow_are_null_in_json(tmp_path: Path, twolayer: Run) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "data.csv").write_text(CSV + "1,1e300,red,5,6\n2,1e308,red,5,1e300\n")
    done = twolayer("evaluate", "run", "data.csv", "--format", "jsonl")
    assert (done.returncode, done.stderr) == (0, "")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    rows = [json.loads(line, parse_constant=refuse) for line in done.stdout.splitlines()]
    assert [row["RMSE"] for row in rows] == [None] * 5
    done = twolayer("evaluate", "run", "data.csv")
    assert (done.returncode, done.stderr) == (0, "")
