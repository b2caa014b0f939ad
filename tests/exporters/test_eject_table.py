"""Ejected scripts of tables: their history is that of the engine autograd, and their weights are the run's."""

from __future__ import annotations

import ast
import datetime
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import safetensors.torch
import torch

from tests.helpers.forking import run
from tests.helpers.scripts import run_scripts

FIXED = "--lr 0.001 --epochs 4"
CASES = {
    "diabetes loop": f"diabetes {FIXED}",
    "diabetes optim": f"diabetes --style optim {FIXED} --set init=normal",
    "numbers, dates, gaps": f"shop.csv --target stock {FIXED}",
    "classes, by class": f"shop.csv --target class {FIXED} --set patience=1",
    "boolean target": f"shop.csv --target sold {FIXED} --set data.stratify=false --style optim",
    "two targets, all rows": f"shop.csv --target stock,price {FIXED} --set batch_size=null --set dtype=float64",
    "targets missing": f"shop.csv --target size {FIXED} --set reduction=sum --lr 1e-4",
    "validation file": f"shop.csv --target class {FIXED} --set validation=other.csv --set average=null",
    "parquet": f"shop.parquet --target price {FIXED} --set validation=null",
    "no header": f"bare.csv --target 1 {FIXED} --set data.header=none --set data.scale=false --lr 1e-4",
    "ndjson": f"shop.ndjson --target class {FIXED} --exclude when",
    # Runs are ejected with the learning rates that they took.
    "run of numbers": "diabetes --style optim",
    "run of classes": "shop.csv --target class --style optim",
}
SHORT = ["numbers, dates, gaps", "classes, by class", "two targets, all rows", "run of numbers"]


def shop() -> str:
    """A table with all that columns can be."""
    draw = random.Random(3)
    lines = ["id;price;when;sold;size;colour;stock;class"]
    for i in range(80):
        day = datetime.date(2024, 1, 1) + datetime.timedelta(days=draw.randrange(600))
        size = "" if i % 9 == 4 else "?" if i == 11 else f"{10 * draw.random():.2f}".replace(".", ",")
        colour = draw.choice(["red", "  green", 'it\'s "blue"', "NA"])
        cells = [i + 100, f"${draw.randrange(1000, 9000):,}", f"{day:%d.%m.%Y}", draw.choice(["True", "false"]), size]
        lines.append(
            ";".join(map(str, [*cells, colour.replace('"', '""').join('""'), draw.randrange(50), draw.choice("abc")]))
        )
    return "\n".join(lines) + "\n"


def write_tables(folder: Path) -> None:
    (folder / "shop.csv").write_text(shop())
    (folder / "other.csv").write_text("".join(shop().splitlines(keepends=True)[:30]))
    frame = pl.read_csv(folder / "shop.csv", separator=";", infer_schema=False, null_values=["?", "", "NA"])
    number = pl.col("price").str.strip_prefix("$").str.replace(",", "").cast(pl.Float64)
    frame = frame.with_columns(
        number,
        pl.col("id", "stock").cast(pl.Int64),
        pl.col("when").str.to_date("%d.%m.%Y"), pl.col("size").str.replace(",", ".").cast(pl.Float64),
        pl.col("sold").str.to_lowercase() == "true", pl.col("colour").str.strip_chars(),
    )  # fmt: skip
    frame.write_parquet(folder / "shop.parquet")
    frame.write_ndjson(folder / "shop.ndjson")
    (folder / "bare.csv").write_text("".join(f"{i % 7},{i},{i * i % 5}\n" for i in range(40)))


@dataclass(frozen=True)
class Ejected:
    """A folder with tables and, by the numbers of the cases, the runs and the scripts; what each script prints."""

    folder: Path
    names: list[str]
    printed: list[str]


@pytest.fixture(scope="module", params=["short", pytest.param("long", marks=pytest.mark.deep)])
def ejected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ejected:
    names = SHORT if request.param == "short" else [name for name in CASES if name not in SHORT]
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder)
    for number, name in enumerate(names):
        config, style, more = CASES[name].partition(" --style optim")
        words = f"{config}{more}".split()
        done = run(["train", *words, "--engine", "autograd", "-q", "--out", f"runs/{number}"], folder)
        assert done.returncode == 0, done.stderr
        source = [f"runs/{number}"] if name.startswith("run of") else words
        done = run(["eject", *source, *style.split(), "-o", f"case{number}.py"], folder)
        assert (done.returncode, done.stdout) == (0, ""), (name, done.stderr)
    printed = run_scripts([folder / f"case{number}.py" for number in range(len(names))], folder)
    return Ejected(folder, names, printed)


def test_scripts_have_the_history_and_the_weights_of_the_runs(ejected: Ejected) -> None:
    for number, name in enumerate(ejected.names):
        run_folder = ejected.folder / "runs" / str(number)
        assert ejected.printed[number] == (run_folder / "history.csv").read_text(), name
        ours = safetensors.torch.load_file(ejected.folder / f"case{number}.py.safetensors")
        theirs = safetensors.torch.load_file(run_folder / "model.safetensors")
        assert all(torch.equal(ours[key], theirs[key]) for key in ("0.weight", "0.bias", "2.weight", "2.bias")), name


def test_the_scripts_are_formatted_and_short(ejected: Ejected) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [ruff, *command, "--isolated", ejected.folder], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    for path in ejected.folder.glob("*.py"):
        text = path.read_text()
        named = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
        constants = [node for node in named if ast.unparse(node.targets[0]).isupper()]
        size = len(text.splitlines()) - sum((node.end_lineno or 0) - node.lineno + 1 for node in constants)
        assert size < (165 if "part_of_date" in text else 120), path  # dates, notations and classes all at once
        assert "import twolayer" not in text


def test_a_run_whose_table_has_changed_is_not_ejected(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,y\n" + "".join(f"{i},{i * i % 7}\n" for i in range(40)))
    run(["train", "table.csv", "--target", "y", "--lr", "0.1", "--epochs", "1", "-q", "--out", "run"], tmp_path)
    table.write_text(table.read_text().replace("39,", "38,", 1))
    done = run(["eject", "run"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: run: the data are other ones now than when it was started\n"


WRONG = {
    "packed.csv.xz": "a plain script cannot read this table as the training does",
    "mixed.csv": "its dates are not all in one format",
    "negative.csv": "a plain script cannot read this table as the training does",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_table_that_a_script_would_read_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    import lzma

    rows = [f"{i},{i * i % 7},x{i % 3}" for i in range(30)]
    plain = "a,y,c\n" + "\n".join(rows) + "\n"
    (tmp_path / "packed.csv.xz").write_bytes(lzma.compress(plain.encode()))
    days = [f"2024-01-{i + 1:02}" if i % 2 else f"{i + 1} Jan 2024" for i in range(28)]
    (tmp_path / "mixed.csv").write_text("a,y\n" + "".join(f"{day},{i % 5}\n" for i, day in enumerate(days)))
    (tmp_path / "negative.csv").write_text("a,y\n" + "".join(f"({i}€),{i % 5}\n" for i in range(28)))
    done = run(["eject", name, "--target", "y", "--lr", "0.1", "-o", "x.py"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert WRONG[name] in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x.py").exists()
