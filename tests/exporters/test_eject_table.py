"""Ejected scripts of tables: their history is that of the engine autograd, and their weights are the run's."""

from __future__ import annotations

import ast
import datetime
import random
import re
import shutil
import subprocess
import sys
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
}


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


@pytest.fixture(scope="module")
def ejected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with tables, runs, and the script of each case; what each script prints."""
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder)
    paths = []
    for number, (name, words) in enumerate(CASES.items()):
        trained = run(
            [
                "train",
                *re.sub(r"--style \w+", "", words).split(),
                "--engine",
                "autograd",
                "-q",
                "--out",
                f"runs/{number}",
            ],
            folder,
        )
        assert trained.returncode == 0, trained.stderr
        paths.append(folder / f"case{number}.py")
        done = run(["eject", *words.split(), "-o", paths[-1]], folder)
        assert (done.returncode, done.stdout) == (0, ""), (name, done.stderr)
    run(["train", "diabetes", "--engine", "autograd", "-q", "--out", "runs/auto"], folder)
    run(["train", "shop.csv", "--target", "class", "--engine", "autograd", "-q", "--out", "runs/auto2"], folder)
    for name in ("auto", "auto2"):
        done = run(["eject", name, "--style", "optim", "-o", f"{name}.py"], folder)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    printed = run_scripts([*paths, folder / "auto.py", folder / "auto2.py"], folder)
    return folder, dict(zip([*CASES, "auto", "auto2"], printed, strict=True))


@pytest.mark.parametrize("name", [*CASES, "auto", "auto2"])
def test_a_script_has_the_history_and_the_weights_of_the_run(name: str, ejected: tuple[Path, dict[str, str]]) -> None:
    folder, printed = ejected
    number = name if name.startswith("auto") else str(list(CASES).index(name))
    assert printed[name] == (folder / "runs" / number / "history.csv").read_text()
    script = folder / f"{number if name.startswith('auto') else f'case{number}'}.py.safetensors"
    ours = safetensors.torch.load_file(script)
    theirs = safetensors.torch.load_file(folder / "runs" / number / "model.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in ("0.weight", "0.bias", "2.weight", "2.bias"))


def test_the_scripts_are_formatted_and_short(ejected: tuple[Path, dict[str, str]]) -> None:
    folder, _ = ejected
    ruff = Path(sys.executable).with_name("ruff")
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run([ruff, *command, "--isolated", folder], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    for path in folder.glob("*.py"):
        text = path.read_text()
        named = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
        constants = [node for node in named if ast.unparse(node.targets[0]).isupper()]
        size = len(text.splitlines()) - sum((node.end_lineno or 0) - node.lineno + 1 for node in constants)
        assert size < (165 if "part_of_date" in text else 120), path  # dates, notations and classes all at once
        assert "import twolayer" not in text


def test_a_run_whose_table_has_changed_is_not_ejected(ejected: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    shutil.copytree(ejected[0] / "runs" / "2", tmp_path / "run")
    shutil.copy(ejected[0] / "shop.csv", tmp_path)
    config = tmp_path / "run" / "config.yaml"
    text = (ejected[0] / "shop.csv").read_text().replace("100;$4", "100;$5", 1)
    before = (ejected[0] / "shop.csv").read_text()
    (ejected[0] / "shop.csv").write_text(text)
    try:
        done = run(["eject", config.parent], tmp_path)
    finally:
        (ejected[0] / "shop.csv").write_text(before)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {config.parent}: the data are other ones now than when it was started\n"


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
