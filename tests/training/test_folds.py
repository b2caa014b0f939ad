"""Cross-validation: what each fold is trained and scored on, the means, and `train --folds` in real processes."""

from __future__ import annotations

import json
import random
import signal
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.helpers.forking import run as forked
from tests.helpers.processes import Run, in_terminal
from twolayer.evaluation.scores import Figure, Row
from twolayer.reporting.fold_scores import fold_line, fold_table
from twolayer.tables.dataset import folds as fold_tables
from twolayer.tables.dataset import survey
from twolayer.tables.options import FileData
from twolayer.training.folds import document, mean_scores

HEAD = "size,weight,colour,gap,price,kind"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draw, lines = tmp_path_factory.mktemp("folds"), random.Random(5), [HEAD]
    for i in range(60):
        size, weight, gap = draw.gauss(5, 2), draw.gauss(0, 1), "" if i % 9 == 4 else f"{draw.random():.4f}"
        colour = "rare" if i == 7 else draw.choice(["red", "blue"])
        kind = "large" if size + draw.gauss(0, 1) > 5 else "small"
        lines.append(f"{size:.6f},{weight:.6f},{colour},{gap},{3 * size - weight + draw.gauss(0, 1):.6f},{kind}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder


OPTIONS = ["t.csv", "--target", "price", "--set", "data.exclude=[kind]", "--set", "data.missing=mean"]
CLASSES = ["t.csv", "--target", "kind", "--set", "data.exclude=[price]", "--set", "data.missing=mean"]


def info(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def data_of(place: Path, target: str = "price", exclude: str = "kind") -> FileData:
    return FileData(
        source="file", path=str(place / "t.csv"), target=[target], exclude=[exclude], missing="mean", scale=True
    )


def test_a_fold_is_encoded_by_its_training_rows_alone_and_tested_on_all_others(place: Path) -> None:
    data = data_of(place)
    found = survey(data, loss=None)
    sizes = found.frame["size"].to_numpy()
    seen = []
    for table, x, y in fold_tables(found, 4, 1, data, validation=0.2, seed=3, dtype="float64"):
        names = [feature.name for feature in table.columns.features]
        (j,) = [i for i, name in enumerate(names) if name == "size"]
        size = table.columns.features[j]
        assert table.x_validation is not None
        assert (len(table.x), len(table.x_validation), len(x), len(y)) == (36, 9, 15, 15)
        parts = [part[:, j] * size.deviation + size.mean for part in (table.x, table.x_validation, x)]
        # Its training rows alone have the mean and the deviation that it is standardised by.
        assert_allclose([size.mean, size.deviation], [parts[0].mean(), parts[0].std()], rtol=1e-9)
        assert_allclose(np.sort(np.concatenate(parts)), np.sort(sizes), rtol=1e-9)
        rows = [int(np.abs(sizes - value).argmin()) for value in parts[2]]
        seen += rows
        assert_allclose(y[:, 0], found.frame["price"].to_numpy()[rows], rtol=1e-12)
        # A category that only the tested rows have is not known.
        assert ("colour=rare" in names) == (7 not in rows)
    assert sorted(seen) == list(range(60))


def test_the_mean_of_the_folds_has_the_standard_error_of_a_mean() -> None:
    values = [0.5, 0.7, 0.6, 0.9]
    tables = [[Row("y", "network", {"R2": Figure(value, 0.1)})] for value in values]
    (row,) = mean_scores(tables, 1)
    figure = row.figures["R2"]
    assert figure.value == pytest.approx(statistics.fmean(values))
    assert figure.error == pytest.approx(statistics.stdev(values) / 2)
    # The rows of a repeat are those of the first: the same scores twice are no more certain.
    (row,) = mean_scores([*tables, *tables], 2)
    assert row.figures["R2"].error == pytest.approx(statistics.stdev(values) / 2)
    tables[2] = [Row("y", "network", {"R2": Figure(None, None)})]
    assert mean_scores(tables, 1)[0].figures["R2"] == Figure(None, None)


@pytest.mark.sample(1)
@pytest.mark.parametrize("options", [OPTIONS, CLASSES], ids=["numbers", "classes"])
def test_folds_are_scored_as_trainings_and_evaluations_by_hand_would(options: list[str], place: Path) -> None:
    name = f"run-{options[2]}"
    more = ["--epochs", "4", "--seed", "2", "-q"]
    done = forked(["train", *options, *more, "--folds", "3", "--out", name], place)
    assert done.returncode == 0, done.stderr
    kept = info(place / name)["folds"]
    assert (kept["folds"], kept["repeats"], kept["rows"], len(kept["each"])) == (3, 1, 60, 3)
    target = options[2]
    data = data_of(place, *(("price", "kind") if target == "price" else ("kind", "price")))
    found = survey(data, loss=None)
    lines = (place / "t.csv").read_text().splitlines()
    for number, (_, _, y) in enumerate(fold_tables(found, 3, 1, data, validation=0.05, seed=2)):
        column = found.frame[target].to_list()
        wanted = sorted(y[:, 0].tolist()) if target == "price" else None
        masks = list(masks_of(found, data))
        test = masks[number]
        if wanted is not None:
            assert sorted(v for v, is_tested in zip(column, test, strict=True) if is_tested) == wanted
        for name_, keep in (("train", ~test), ("test", test)):
            rows = [line for line, is_kept in zip(lines[1:], keep, strict=True) if is_kept]
            (place / f"{name_}.csv").write_text("\n".join([HEAD, *rows]) + "\n")
        own = ["train.csv", *options[1:], *more, "--out", f"{name}-{number}"]
        assert forked(["train", *own], place).returncode == 0
        by_hand = forked(["evaluate", f"{name}-{number}", "test.csv", "--format", "jsonl"], place)
        scored = [json.loads(line) for line in by_hand.stdout.splitlines()][:3]
        for one, other in zip(kept["each"][number], scored, strict=True):
            for score, value in one.items():
                if isinstance(value, float):
                    assert value == pytest.approx(other[score], rel=1e-6)


def masks_of(found: Any, data: FileData) -> Any:
    from twolayer.tables import splits

    return splits.folds(found, 3, 2, 0, data)


def test_the_network_is_the_same_bit_for_bit_as_without_folds(place: Path) -> None:
    more = ["--epochs", "5", "-q"]
    with_folds = forked(["train", *OPTIONS, *more, "--folds", "2", "--repeats", "2", "--out", "with"], place)
    assert with_folds.returncode == 0
    assert forked(["train", *OPTIONS, *more, "--out", "without"], place).returncode == 0
    for file in ("model.safetensors", "history.csv", "config.yaml"):
        assert (place / "with" / file).read_bytes() == (place / "without" / file).read_bytes()
    assert len(info(place / "with")["folds"]["each"]) == 4
    assert "folds" not in info(place / "without")


def test_the_scores_are_shown_and_kept_for_report_and_show_and_stay_when_resumed(place: Path) -> None:
    done = forked(["train", *OPTIONS, "--epochs", "3", "-q", "--folds", "3", "--out", "kept"], place)
    lines = done.stdout.splitlines()
    assert [line.split("  ")[1].strip() for line in lines[1:6]] == [
        "network", "linear", "constant", "network - linear", "network - constant",
    ]  # fmt: skip
    assert "60 rows in 3 folds: each is scored by a network trained on the others" in done.stderr
    r2 = lines[1].split("  ")
    assert forked(["train", "--resume", "kept", "--epochs", "4", "-q"], place).returncode == 0
    shown = forked(["show", "kept"], place).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("folds")]
    cell = next(cell.strip() for cell in r2 if "±" in cell)
    assert line.split()[1] == "R2"
    assert cell in line
    assert forked(["report", "kept", "-o", "kept.html"], place).returncode == 0
    page = (place / "kept.html").read_text()
    assert "Scores of the folds" in page
    assert cell in page


def test_with_csv_the_scores_stand_on_stderr(place: Path) -> None:
    options = ["--epochs", "2", "--folds", "2", "--no-save", "--format", "csv"]
    done = forked(["train", *CLASSES, *options], place)
    assert done.stdout.startswith("epoch,loss,accuracy,val_loss,val_accuracy,lr\n1,")
    assert "network: accuracy" in done.stderr
    assert "means of 2 folds" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*OPTIONS, "--folds", "1"], "--folds must be 2 or more, such as --folds 5, not 1"),
        ([*OPTIONS, "--folds", "0"], "--folds must be 2 or more, such as --folds 5, not 0"),
        ([*OPTIONS, "--repeats", "2"], "--repeats must be 1 or more, and requires --folds"),
        ([*OPTIONS, "--folds", "2", "--repeats", "0"], "--repeats must be 1 or more, and requires --folds"),
        (["--folds", "3"], "--folds requires a table"),
        (["--resume", "x", "--folds", "3"], "--folds scores new trainings; remove it, or --resume"),
        ([*OPTIONS, "--folds", "61"], "has 60 rows, too few for --folds 61; use at most 60"),
    ],
)
def test_bad_numbers_of_folds_are_refused_and_nothing_is_left(
    options: list[str], message: str, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_bytes((place / "t.csv").read_bytes())
    done = forked(["train", *options], tmp_path)
    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_class_with_fewer_rows_than_folds_is_named(tmp_path: Path, twolayer: Run) -> None:
    rows = "".join(f"{i * 7 % 11},{'a' if i > 2 else 'b'}\n" for i in range(30))
    (tmp_path / "t.csv").write_text("x,y\n" + rows)
    done = twolayer("train", "t.csv", "--target", "y", "--folds", "5")
    assert done.returncode == 1
    assert "class b has 3 rows, too few for --folds 5" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_in_a_fold_ends_at_once_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes((place / "t.csv").read_bytes())
    options = ["--set", "patience=null", "--epochs", "100000", "--folds", "3"]
    code, written = in_terminal(["train", *OPTIONS, *options], tmp_path, kill_at="0/3", number=signal.SIGINT)
    assert code == 130
    assert "interrupted in fold 1 of 3; nothing is saved" in written
    assert "Traceback" not in written
    assert not (tmp_path / "runs").exists()


def test_a_divergence_in_a_fold_is_an_error_of_its_own(place: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes((place / "t.csv").read_bytes())
    done = forked(["train", *OPTIONS, "--lr", "1e9", "--folds", "3", "-q"], tmp_path)
    assert done.returncode == 3
    assert "fold 1 has diverged, so there are no scores of the folds" in done.stderr
    assert "the loss is" in done.stderr


# --- what is read from a run.json that anybody may have written


def means() -> list[Row]:
    return [
        Row(None, name, {"accuracy": Figure(value, 0.01), "log loss": Figure(float("inf"), float("nan"))})
        for name, value in (("network", 0.91), ("linear", 0.89), ("constant", 0.5))
    ]


def test_scores_that_are_not_finite_are_null_in_run_json() -> None:
    kept = document([means(), means()], means(), 60, 1)
    json.dumps(kept, allow_nan=False)
    assert fold_line({"folds": kept}) == "accuracy 0.910 ± 0.010 (linear 0.890 ± 0.010, constant 0.500 ± 0.010)"
    table = fold_table({"folds": kept})
    assert table is not None
    assert table.names == ["model", "accuracy", "log loss"]
    assert table.rows[0] == ["network", "0.910 ± 0.010", ""]


@pytest.mark.parametrize(
    "broken",
    [
        None, 3, [], {}, {"folds": "x"}, {"folds": 5, "repeats": 1, "rows": 3, "scores": []},
        {"folds": 5, "repeats": 1, "rows": 3, "scores": [{"target": None}]},
        {"folds": 5, "repeats": 1, "rows": 3, "scores": [{"target": None, "model": "n", "figures": {"R2": 3}}]},
        {"folds": 5, "repeats": 1, "rows": 3, "scores": {"a": 1}},
        {"folds": 1e400, "repeats": 1, "rows": 3, "scores": []},
    ],
)  # fmt: skip
def test_a_broken_entry_is_shown_as_none(broken: Any) -> None:
    assert fold_table({"folds": broken}) is None
    assert fold_line({"folds": broken}) == ""


def test_names_in_run_json_are_safe_to_show() -> None:
    kept = document([means(), means()], means(), 60, 1)
    kept["scores"][0]["target"] = "a\x1b[31m"
    table = fold_table({"folds": kept})
    assert table is not None
    assert "\x1b" not in repr(table.rows)
