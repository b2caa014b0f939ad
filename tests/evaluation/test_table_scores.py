"""What `evaluate` says about the rows, and about inputs that hold the target. Real runs, real files."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.helpers.forking import run as forked
from tests.helpers.processes import Run
from tests.helpers.tablerun import make_run
from tests.helpers.trained import train
from twolayer.evaluation.known_rows import RowSum
from twolayer.evaluation.leakage import ClassSearch, TargetSearch
from twolayer.tables.encoding import encode
from twolayer.tables.target_encoding import encode_targets

TRAINED_ON = "these are the rows that the run was trained on"
VALIDATED = "these are the rows that the run was validated with"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, and a run on each: of numbers with gaps and text, of classes, and one validated with another file."""
    folder, draw = tmp_path_factory.mktemp("scores"), random.Random(2)
    lines = []
    for i in range(200):
        size, weight, colour = draw.gauss(5, 2), draw.gauss(0, 1), draw.choice(["red", "blue", "green"])
        gap = "" if i % 17 == 0 else f"{draw.random():.6f}"
        price = 3.1 * size - weight + draw.gauss(0, 1)
        kind = "large" if size + draw.gauss(0, 1) > 5 else "small"
        lines.append(f"{size!r},{weight:.4f},{colour},{gap},{price!r},{kind}")
    header = "size,weight,colour,gap,price,kind\n"
    for name, part in (("all", lines), ("a", lines[:120]), ("b", lines[120:])):
        (folder / f"{name}.csv").write_text(header + "\n".join(part) + "\n")
    missing = "--set data.missing=mean --epochs 3 -q"
    train(
        folder,
        f"all.csv --target price --set data.exclude=[kind] {missing} --out numbers",
        f"all.csv --target kind --set dtype=float64 {missing} --out classes",
        f"a.csv --target price --set validation=b.csv {missing} --out other",
    )
    return folder


def evaluated(place: Path, *command: str) -> str:
    done = forked(["evaluate", *command], place)
    assert done.returncode == 0
    return str(done.stderr)


@pytest.mark.parametrize("run", ["numbers", "classes"])
def test_the_rows_of_the_training_are_recognised_in_any_order_and_any_file(run: str, place: Path) -> None:
    assert TRAINED_ON in evaluated(place, run, "all.csv")
    frame = pl.read_csv(place / "all.csv")
    order = list(reversed(frame.columns))
    frame.sample(fraction=1, shuffle=True, seed=1).select(order).write_parquet(place / "shuffled.parquet")
    assert TRAINED_ON in evaluated(place, run, "shuffled.parquet", "--format", "csv")
    assert TRAINED_ON not in evaluated(place, run, "b.csv")


def test_the_validation_rows_are_recognised_as_such(place: Path) -> None:
    assert TRAINED_ON in evaluated(place, "other", "a.csv")
    assert VALIDATED in evaluated(place, "other", "b.csv")
    assert TRAINED_ON in evaluated(place, "other", "all.csv")


def test_one_changed_cell_makes_them_other_rows(place: Path) -> None:
    text = (place / "all.csv").read_text()
    (place / "changed.csv").write_text(text.replace("red", "blue", 1))
    assert TRAINED_ON not in evaluated(place, "numbers", "changed.csv")


def test_a_resumed_run_and_a_run_without_fingerprints(place: Path, twolayer: Run, tmp_path: Path) -> None:
    make_run(tmp_path / "run")  # has no fingerprint
    done = twolayer("evaluate", "run", "run.csv")
    assert (done.returncode, TRAINED_ON in done.stderr) == (0, False)
    assert forked(["train", "--resume", "numbers", "--epochs", "5", "-q"], place).returncode == 0
    assert TRAINED_ON in evaluated(place, "numbers", "all.csv")


def test_a_row_sum_is_of_the_rows_not_of_their_order_or_chunks() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(50, 3)).astype(np.float32), draw.normal(size=(50, 1)).astype(np.float32)
    whole, cut = RowSum(), RowSum()
    whole.add(x, y)
    order = draw.permutation(50)
    for part in np.split(order, [1, 20]):
        cut.add(x[part], y[part])
    assert whole.document() == cut.document()
    seen = set()
    for i in range(50):
        for j in range(3):
            other = x.copy()
            other[i, j] = np.nextafter(other[i, j], np.float32(9))
            changed = RowSum()
            changed.add(other, y)
            seen.add(changed.document()["sum"])
    swapped = RowSum()
    swapped.add(x, y[order])
    assert len(seen | {whole.document()["sum"], swapped.document()["sum"]}) == 152


def test_the_number_of_rows_is_said(place: Path) -> None:
    assert forked(["evaluate", "numbers", "b.csv"], place).stdout.startswith("80 rows\n")
    few = (place / "b.csv").read_text().splitlines()[:13]
    (place / "few.csv").write_text("\n".join(few) + "\n")
    assert "12 rows are few: on others the scores may differ much" in evaluated(place, "numbers", "few.csv")
    assert "are few" not in evaluated(place, "numbers", "b.csv")


# --- inputs that hold the target


def leaking(tmp_path: Path, columns: dict[str, list[str]], target: str, rows: int = 60, *options: str) -> str:
    """Train on the first half of a table with noise and these columns; what `evaluate` says about the second half."""
    draw = random.Random(7)
    columns = {"noise": [f"{draw.gauss(0, 1):.5f}" for _ in range(rows)], **columns}
    lines = [",".join(columns), *(",".join(cells) for cells in zip(*columns.values(), strict=True))]
    half = 1 + rows // 2
    (tmp_path / "a.csv").write_text("\n".join(lines[:half]) + "\n")
    (tmp_path / "b.csv").write_text("\n".join([lines[0], *lines[half:]]) + "\n")
    done = forked(["train", "a.csv", "--target", target, "--epochs", "3", "-q", "--out", "r", *options], tmp_path)
    assert done.returncode == 0, done.stderr
    return evaluated(tmp_path, "r", "b.csv")


def gauss(rows: int = 60, seed: int = 1) -> list[float]:
    draw = random.Random(seed)
    return [draw.gauss(50, 20) for _ in range(rows)]


def test_a_column_that_gives_a_number_exactly_is_named(tmp_path: Path) -> None:
    price = gauss()
    told = leaking(
        tmp_path, {"euro": [f"{p * 0.92 + 3:.6f}" for p in price], "price": [f"{p:.6f}" for p in price]}, "price"
    )
    assert "column euro is enough for an exact prediction: does it hold the target? then put it in data.exclude" in told


def test_columns_that_give_a_number_together_are_suspected(tmp_path: Path) -> None:
    net, tax = gauss(), gauss(seed=2)
    gross = [f"{a + b:.6f}" for a, b in zip(net, tax, strict=True)]
    told = leaking(
        tmp_path, {"net": [f"{a:.6f}" for a in net], "tax": [f"{b:.6f}" for b in tax], "gross": gross}, "gross"
    )
    assert "the linear model is exact: does an input hold the target?" in told
    assert "enough" not in told


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["categories", "ranges", "gaps"])
def test_a_column_that_tells_the_class_is_named(kind: str, tmp_path: Path) -> None:
    draw = random.Random(3)
    classes = [draw.choice("rst") for _ in range(60)]
    column = {
        "categories": [draw.choice({"r": ["u", "v"], "s": ["w"], "t": ["x"]}[c]) for c in classes],
        "ranges": [f"{'rst'.index(c) * 10 + draw.random():.4f}" for c in classes],
        "gaps": ["" if c == "r" else f"{draw.random():.4f}" for c in classes],
    }[kind]
    if kind == "gaps":
        classes = ["r" if c == "r" else "s" for c in classes]
    told = leaking(tmp_path, {"code": column, "class": classes}, "class", 60, "--set=data.missing=mean")
    assert "column code is enough for an exact prediction: does it hold the target?" in told


def test_noise_and_a_good_model_are_not_suspected(place: Path, tmp_path: Path) -> None:
    for run in ("numbers", "classes"):
        assert "hold the target" not in evaluated(place, run, "b.csv")
    size = gauss()
    draw = random.Random(4)
    price = [f"{3 * s + draw.gauss(0, 0.5):.5f}" for s in size]  # R2 is 0.9999
    assert "hold" not in leaking(tmp_path, {"size": [f"{s:.5f}" for s in size], "price": price}, "price")


def test_few_rows_are_not_suspected(tmp_path: Path) -> None:
    told = leaking(
        tmp_path, {"size": [f"{i}" for i in range(18)], "y": [f"{2 * i + 1}" for i in range(18)]}, "y", rows=18
    )
    assert "hold the target" not in told


def test_chunks_find_what_the_whole_finds(tmp_path: Path) -> None:
    rows = "".join(f"{i % 7},{i * 3},{'ab'[i % 2]},{i * 1.5 - 4},{'uv'[i % 2]}\n" for i in range(40))
    for target, exclude, expected in (("price", ["kind"], ["b"]), ("kind", ["price"], ["c"])):
        table = make_run(tmp_path / target, "a,b,c,price,kind\n" + rows, target=target, exclude=exclude)
        frame = pl.read_csv(tmp_path / f"{target}.csv", infer_schema=False)
        x, y = encode(frame, table.columns, "t"), encode_targets(frame, table.columns, "t")
        for cuts in ([], [1, 2, 33]):
            search = TargetSearch(table.columns) if target == "price" else ClassSearch(table.columns)
            for part in np.split(np.arange(40), cuts):
                search.add(x[part], y[part])
            found = search.found(0) if isinstance(search, TargetSearch) else search.found()
            assert found == expected
