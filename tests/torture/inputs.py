"""Configs and tables of any content: a right result, or an error that says what is wrong.

python -m tests.torture.inputs [--seed N] [--rounds N] [--minutes M]

Of a table that was made here everything is known: `data` must find its rows, and the mean of each column of numbers.
"""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl

from tests.helpers.processes import BASE
from tests.helpers.table_files import packed, workbook
from tests.torture.driver import Round, Trial, judged, main, run
from tests.torture.flips import DAMAGES
from twolayer.config.bundled import bundled
from twolayer.config.schema import KEYS

# --- configs

SCALARS = ["0", "1", "2", "7", "64", "-1", "0.5", "1e-3", "1e-4", "1e400", ".inf", ".nan", "010", "0x10", "1_000", "~"]
SCALARS += ["true", "yes", "auto", "'7'", '"\\u0000"', "cpu", "mse", "cross_entropy", "normal", "mean", "manual", "x"]
SCALARS += ["1" * 5000, "18446744073709551615", "18446744073709551616", "[]", "{}", "[1, 2]", "{a: 1}", "fused"]
SCALARS += ["&a 1", "*a", "!!python/object/apply:os.system [id]", "<<: 1", "|\n  x", "[" * 40, "float64", "2**3", "é"]
BLOCKS = ["data: {source: random}", "data: {source: linear, weights: [1, 2, 3], noise: 0.1}"]
BLOCKS += ["data: {source: file, path: t.csv, target: y}", "data: {source: file, path: none.csv, target: [y]}"]
BLOCKS += ["data: {source: linear, weights: [1, .nan]}", "data: 7", "data: {source: file, path: /dev/zero}", "- 1"]


# Values that may be right; of sizes, small ones.
LIKELY = {
    **{key: ["1", "2", "3", "7", "70"] for key in ("N", "D_in", "H", "D_out", "batch_size", "patience", "threads")},
    "lr": ["1e-3", "1e-4", "auto", "5", "1e-30", "1e30"],
    "epochs": ["1", "3"],
    "seed": ["0", "18446744073709551615", "7"],
    "device": ["cpu", "auto", "cuda"],
    "init": ["default", "normal"],
    "loss": ["mse", "cross_entropy"],
    "reduction": ["sum", "mean"],
    "validation": ["0.2", "0.99", "t.csv", "~"],
    "average": ["0.5", "0.97", "~"],
    "dtype": ["float32", "float64"],
    "engine": ["auto", "manual", "fused"],
    "form": ["auto", "primal", "dual"],
    "precision": ["full", "tf32"],
    "cuda_graph": ["true", "false"],
    "log_every": ["auto", "1", "9"],
}


def config(chosen: random.Random) -> bytes:
    """The text of a config: keys with likely and with odd values, or one of ours with damage."""
    if chosen.random() < 0.25:
        text = bytearray((bundled()[chosen.choice(list(bundled()))]).read_bytes())
        for _ in range(chosen.choice((1, 1, 2, 5))):
            text = chosen.choice(DAMAGES)(text, chosen) or bytearray(b"\0")
        return bytes(text)
    lines = BASE.splitlines()
    likely = chosen.choice((0.7, 1.0))
    for _ in range(chosen.randint(1, 5)):
        key = chosen.choice(list(KEYS))
        is_likely = chosen.random() < likely
        added = f"{key}: {chosen.choice(LIKELY.get(key, SCALARS) if is_likely else SCALARS)}"
        if key == "data":
            added = chosen.choice(BLOCKS[:3] if is_likely else BLOCKS)
        if is_likely or chosen.random() < 0.7:  # else the key is there twice, perhaps
            lines = [line for line in lines if line.partition(":")[0] != key]
        lines.append(added)
        if "source: file" in added:  # which knows its sizes
            lines = [line for line in lines if line[:2] not in ("N:", "D_")]
    return ("\n".join(lines) + "\n").encode()


def try_config(chosen: random.Random, folder: Path) -> Iterator[Trial]:
    """Check a config, and train it for two epochs with two engines: the first loss, of the same start, must agree."""
    (folder / "my.yaml").write_bytes(config(chosen))
    (folder / "t.csv").write_text("a,b,y\n" + "".join(f"{i},{i * 7 % 5},{i * 3 % 4}\n" for i in range(12)))
    checked = run(["check", "my.yaml", "--format", "jsonl"], folder)
    yield judged("configs", checked)
    options = ["train", "my.yaml", "--epochs", "2", "--log-every", "1", "--no-save", "--format", "csv"]
    losses = []
    for engine in ("auto", "autograd"):
        done = run([*options, "--engine", engine], folder)
        rows = done.stdout.splitlines()
        wrong = "" if len(rows) == 3 or done.returncode else f"it printed {len(rows)} lines: {done.stdout[:500]}"
        again = ["check", "my.yaml", "--set", f"engine={engine}"]  # a wrong engine of the file's does not count then
        if checked.returncode == 2 and done.returncode == 0 and run(again, folder).returncode == 2:
            wrong = f"`check` refuses what `train` trains: {checked.stderr}"
        yield judged("configs", done, wrong)
        if done.returncode == 0 and not wrong:
            losses.append(float(rows[1].split(",")[1]))
    if len(losses) == 2 and not math.isclose(*losses, rel_tol=1e-3):
        yield Trial("configs", "lost", f"the engines begin with {losses}")


# --- tables


def cells(chosen: random.Random, rows: int) -> tuple[list[str], list[Fraction | None] | None]:
    """The cells of a column, and their numbers; None where it is not a column of numbers."""
    kind = chosen.randrange(8)
    if kind in (0, 1, 2):
        places = chosen.choice((0, 1, 2, 5))
        size = 10 ** chosen.choice((1, 3, 8))
        texts = [f"{chosen.uniform(-size, size):.{places}f}" for _ in range(rows)]
        if kind == 2:
            texts = ["" if chosen.random() < 0.2 else text for text in texts]
        return texts, [Fraction(text) if text else None for text in texts]
    if kind == 3:
        return [f"{chosen.uniform(-1, 1) * 10.0 ** chosen.randint(-30, 30):e}" for _ in range(rows)], None
    if kind == 4:
        words = [
            "red",
            "green",
            "blau",
            "größer",
            "a b",
            'quo"ted',
            "com,ma",
            "line\nend",
            "",
            "NA",
            "'",
            "=1+1",
            "\u202e",
        ]
        few = chosen.sample(words, 3)
        return [chosen.choice(few) for _ in range(rows)], None
    if kind == 5:
        return [
            f"20{chosen.randrange(100):02}-{chosen.randint(1, 12):02}-{chosen.randint(1, 28):02}" for _ in range(rows)
        ], None
    if kind == 6:
        return [f"${chosen.randrange(10**6):,}.{chosen.randrange(100):02}" for _ in range(rows)], None
    return [
        chosen.choice(("0", "1", "true", "x", "1,5", "1.234,5", "-", "inf", "nan", "1e5", "007")) for _ in range(rows)
    ], None


def try_table(chosen: random.Random, folder: Path) -> Iterator[Trial]:
    """Show a table, train on it and predict its rows; some are damaged first."""
    rows = chosen.randint(2, 60)
    columns = {f"c{number}": cells(chosen, rows) for number in range(chosen.randint(1, 5))}
    columns["y"] = cells(chosen, rows)
    name, data = as_file(chosen, {key: texts for key, (texts, _) in columns.items()})
    is_whole = chosen.random() < 0.5
    if not is_whole:
        changed = bytearray(data)
        for _ in range(chosen.choice((1, 1, 3))):
            changed = chosen.choice(DAMAGES)(changed, chosen) or bytearray(b"\n")
        data = bytes(changed)
    (folder / name).write_bytes(data)
    kind = f"{'tables' if is_whole else 'damaged tables'} ({name.partition('.')[2]})"
    done = run(["data", name, "--target", "y", "--format", "jsonl"], folder)
    is_text = not name.endswith(("parquet", "npz"))
    yield judged(kind, done, wrong_numbers(done.stdout, columns) if is_whole and is_text else "")
    done = run(["train", name, "--target", "y", "--epochs", "3", "--out", "run", "-q"], folder)
    yield judged(kind, done)
    if done.returncode == 0:
        done = run(["predict", "run", name, "-o", "out.csv"], folder)
        wrong = ""
        if done.returncode == 0 and is_whole:
            with (folder / "out.csv").open(newline="", encoding="utf-8") as file:
                found = len(list(csv.reader(file))) - 1
            wrong = "" if found == rows else f"{found} rows of {rows} were predicted"
        yield judged(kind, done, wrong)


def as_file(chosen: random.Random, columns: dict[str, list[str]]) -> tuple[str, bytes]:
    """The table as a file of some format: its name and bytes."""
    form = chosen.choice(
        ["csv", "csv", "csv", "tsv", "csv.gz", "csv.zip", "csv.zst", "ndjson", "parquet", "xlsx", "arrow"]
    )
    rows = list(zip(*columns.values(), strict=True))
    if form == "xlsx":
        return "t.xlsx", workbook({"one": [list(columns), *rows]})
    if form == "ndjson":
        return "t.ndjson", "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows).encode()
    if form in ("parquet", "arrow"):
        file = io.BytesIO()
        frame = pl.DataFrame(columns)
        frame.write_parquet(file) if form == "parquet" else frame.write_ipc(file)
        return f"t.{form}", file.getvalue()
    text = io.StringIO(newline="")
    end = chosen.choice(("\n", "\r\n"))
    writer = csv.writer(text, delimiter="\t" if form == "tsv" else chosen.choice((",", ",", ";")), lineterminator=end)
    writer.writerows([list(columns), *rows])
    return f"t.{form}", packed(text.getvalue().encode(), f".{form}")


def wrong_numbers(stdout: str, columns: dict[str, tuple[list[str], list[Fraction | None] | None]]) -> str:
    """What `data` says wrongly of the columns whose numbers are known."""
    for line in stdout.splitlines():
        row: dict[str, Any] = json.loads(line)
        numbers = columns[row["column"]][1]
        if numbers is None or row["type"] not in ("number", "integer", "float"):
            continue
        known = [number for number in numbers if number is not None]
        if known and row["mean"] is not None:
            mean = float(sum(known) / len(known))
            scale = max(1e-12, *(abs(float(number)) for number in known))
            if abs(row["mean"] - mean) > 1e-9 * scale or row["missing"] != len(numbers) - len(known):
                return f"column {row['column']}: {row}, but its mean is {mean} of {len(known)}"
    return ""


def make_round(shared: Path) -> Round:
    """Read configs and tables of any content."""

    def one(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        yield from (try_config if chosen.random() < 0.5 else try_table)(chosen, folder)

    return one


if __name__ == "__main__":
    raise SystemExit(main("inputs", make_round))
