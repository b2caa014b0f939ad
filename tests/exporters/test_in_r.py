"""The lines of R in docs/export.md read a JSON and predict what `predict` does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.helpers.tablerun import make_run
from twolayer.evaluation.predictor import load_model, predict
from twolayer.exporters import json_file
from twolayer.exporters.network import load
from twolayer.tables.encoding import encode

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
CSV = "id,a size,colour,when,on,flag,price,kind\n" + "".join(
    f"{i},{'' if i % 7 == 3 else i * 37 % 101 / 4 - 9},{('red', 'green', '', 'blue')[i % 4]},"
    f"2024-{1 + i % 12:02d}-{1 + i % 28:02d} {i % 24:02d}:{i * 7 % 60:02d}:00,2001-0{1 + i % 9}-11,"
    f"{'true' if i % 3 else 'false'},{i * i % 31},{('x', 'y y', 'z')[i % 3]}\n"
    for i in range(60)
)


def has_jsonlite() -> bool:
    command = ["Rscript", "-e", 'quit(status = !requireNamespace("jsonlite"))']
    return bool(shutil.which("Rscript")) and not subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("target", "dtype", "bound"),
    [(["price"], "float64", 1e-11), (["price", "a size"], "float32", 1e-5), ("kind", "float32", 1e-5)],
)
def test_the_lines_in_the_docs_predict_what_predict_does(
    target: str | list[str], dtype: str, bound: float, tmp_path: Path
) -> None:
    if not has_jsonlite():
        pytest.skip("there is no R with jsonlite here")
    make_run(tmp_path / "run", CSV, target=target, dtype=dtype)
    (tmp_path / "model.json").write_bytes(json_file.dump(load(tmp_path / "run")))
    (tmp_path / "new.csv").write_text(CSV)
    lines = re.search(r"<!-- r -->\n```r\n(.*?)```", DOCS.read_text(), flags=re.S)
    assert lines is not None
    program = lines[1].replace("predict_twolayer(model, data)\n", "found <- predict_twolayer(model, data)\n")
    program += "found <- format(found, digits = 17, trim = TRUE)\n"
    program += 'write.table(found, "found.csv", sep = ",", row.names = FALSE, quote = FALSE)\n'
    (tmp_path / "p.R").write_text(program)
    done = subprocess.run(["Rscript", "p.R"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = pl.read_csv(tmp_path / "found.csv")
    model = load_model(tmp_path / "run")
    frame = pl.read_csv(tmp_path / "new.csv", infer_schema=False)
    known = predict(model, encode(frame, model.columns, "new.csv")).numpy()
    assert found.columns == list(model.columns.classes or [target.column for target in model.columns.targets])
    difference = np.abs(found.cast(pl.Float64).to_numpy() - known) / model.target_deviation.numpy()
    assert difference.max() <= bound


def test_the_history_of_a_run_is_read_as_the_readme_shows() -> None:
    if not shutil.which("Rscript"):
        pytest.skip("there is no R here")
    run = Path(__file__).parents[1] / "runs-0.1.0" / "drawn"
    program = 'h <- read.csv("history.csv"); cat(names(h), nrow(h), format(h$loss, digits = 17), sep = "\\n")'
    done = subprocess.run(["Rscript", "-e", program], cwd=run, capture_output=True, text=True, check=True)
    known = pl.read_csv(run / "history.csv")
    width = len(known.columns)
    lines = done.stdout.split()
    assert lines[: width + 1] == [*known.columns, str(known.height)]
    assert [float(line) for line in lines[width + 1 :]] == known["loss"].to_list()
