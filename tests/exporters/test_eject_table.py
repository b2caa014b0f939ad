"""Ejected scripts of tables: their history is that of the engine autograd, and their weights are the run's."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import lzma
import math
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from tests.helpers.forking import run
from tests.helpers.scripts import run_scripts
from tests.helpers.table_files import workbook, zstd
from twolayer.exporters.functions import eject

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
        # Constants stand from the name of the file to the first function.
        constants = text[text.index("\nTABLE = ") : text.index("\n\n\ndef ")]
        assert len(text.splitlines()) - constants.count("\n") < 120, path
        assert "import twolayer" not in text


def test_a_run_whose_table_has_changed_is_not_ejected(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,y\n" + "".join(f"{i},{i * i % 7}\n" for i in range(40)))
    run(["train", "table.csv", "--target", "y", "--lr", "0.1", "--epochs", "1", "-q", "--out", "run"], tmp_path)
    table.write_text(table.read_text().replace("39,", "38,", 1))
    done = run(["eject", "run"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    path = tmp_path / "table.csv"
    assert done.stderr == (
        f"error: run: {path} has changed since the run was trained on it; put back the old one, or train again: "
        "twolayer train run/config.yaml\n"
    )


DAYS = [f"2024-01-{i + 1:02}" if i % 2 else f"{i + 1} Jan 2024" for i in range(28)]
PLAIN = "a,y,c\n" + "".join(f"{i},{i * i % 7},x{i % 3}\n" for i in range(30))


def write_arrays(path: Path) -> None:
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(20, 3)), draw.normal(size=20)
    x[4, 1] = np.nan
    if path.suffix == ".npz":
        np.savez(path, x=x, y=y)
    elif path.suffix == ".safetensors":
        safetensors.numpy.save_file({"x": x.astype("float32"), "y": y.astype("float32")}, path)
    else:
        np.save(path, np.column_stack([y, x]))


# Files of many kinds, how each is made, and a line of its script.
FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "plain.csv.gz": (lambda path: path.write_bytes(gzip.compress(PLAIN.encode())), "pl.read_csv(path, infer"),
    "plain.csv.xz": (lambda path: path.write_bytes(lzma.compress(PLAIN.encode())), "pl.read_csv(lzma.open(path), "),
    "plain.csv.zst": (lambda path: path.write_bytes(zstd(PLAIN.encode())), "pl.read_csv(path, infer"),
    "plain.csv.bz2": (lambda path: path.write_bytes(bz2.compress(PLAIN.encode())), "pl.read_csv(bz2.open(path), "),
    "utf16.csv": (lambda path: path.write_bytes(PLAIN.encode("utf-16")), 'encoding="utf-16"'),
    "rows.ndjson.gz": (
        lambda path: path.write_bytes(gzip.compress(pl.read_csv(io.StringIO(PLAIN)).write_ndjson().encode())),
        "pl.read_ndjson(gzip.open(path))",
    ),
    "rows.json": (lambda path: pl.read_csv(io.StringIO(PLAIN)).write_json(path), "pl.read_json(path)"),
    "nan.parquet": (
        lambda path: pl.DataFrame({"a": [1.0, math.nan, 3.0, 5.0] * 5, "y": range(20)}).write_parquet(path),
        "table.fill_nan(None)",
    ),
    "mixed.csv": (
        lambda path: path.write_text("a,y\n" + "".join(f"{day},{i % 5}\n" for i, day in enumerate(DAYS))),
        "pl.coalesce(",
    ),
    "mark.csv": (
        lambda path: path.write_text(
            "a,c,y\n" + "".join(f"{i if i % 5 else '?'},{'?x'[i % 2]},{i}\n" for i in range(20))
        ),
        "pl.col(MARKED).replace(MARKS, None)",
    ),
    "book.xlsx": (
        lambda path: path.write_bytes(workbook({"one": [["a", "y"], *([i * i % 11 + 0.5, i] for i in range(20))]})),
        "pl.read_excel(path)",
    ),
    "array.npy": (write_arrays, "np.load(path)"),
    "arrays.npz": (write_arrays, "np.load(path).items()"),
    "arrays.safetensors": (write_arrays, "load_file(path).items()"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_script_opens_files_of_many_kinds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write, line = FILES[name]
    write(Path(name))
    target = "0" if name == "array.npy" else "y"
    # What it makes of the file is compared with the training's tensors before it is written.
    source = eject(name, data={"target": target}, lr=0.01, epochs=2)
    assert line in source
    ruff = [str(Path(sys.executable).with_name("ruff")), "format", "--check", "--isolated", "-"]
    assert subprocess.run(ruff, input=source, text=True, capture_output=True, check=False).returncode == 0


def test_a_script_fills_missing_values_where_nothing_is_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gaps.csv").write_text("a,b,y\n" + "".join(f"{'' if i % 4 == 1 else i},{i % 3},{i}\n" for i in range(20)))
    source = eject("gaps.csv", data={"target": "y", "scale": False}, lr=0.01, validation=None, patience=None)
    assert "np.where(np.isnan(x), " in source
    found: dict[str, Any] = {"__name__": "script"}
    exec(source.partition("torch.manual_seed")[0], found)
    assert found["x"][1].tolist() == [pytest.approx(sum(i for i in range(20) if i % 4 != 1) / 15), 1, 1]


WRONG = {
    "negative.csv": "a plain script cannot read this table as the training does",
    "clock.csv": 'column a: a plain script cannot read dates such as "',
    "rows.ndjson.zst": "a plain script has no line that opens such a file; unpack it, or save it as CSV or Parquet",
    "packed.zip": "a plain script has no line that opens such a file; unpack it, or save it as CSV or Parquet",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_table_that_a_script_would_read_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "negative.csv").write_text("a,y\n" + "".join(f"({i}€),{i % 5}\n" for i in range(28)))
    (tmp_path / "clock.csv").write_text("a,y\n" + "".join(f"{i % 24}:{2 * i:02},{i % 5}\n" for i in range(28)))
    (tmp_path / "rows.ndjson.zst").write_bytes(zstd(pl.read_csv(io.StringIO(PLAIN)).write_ndjson().encode()))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("plain.csv", PLAIN)
    done = run(["eject", name, "--target", "y", "--lr", "0.1", "-o", "x.py"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert WRONG[name] in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x.py").exists()
