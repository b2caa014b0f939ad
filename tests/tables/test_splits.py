"""Which rows are held out for validation, and what is said about them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.handmade import change_info
from tests.helpers.processes import Run, examples
from tests.helpers.trained import train
from twolayer.errors import DataError
from twolayer.tables import splits
from twolayer.tables.dataset import Table, read, survey
from twolayer.tables.features import Array
from twolayer.tables.options import FileData
from twolayer.tables.survey import Survey


def write(folder: Path, classes: list[str]) -> FileData:
    (folder / "t.csv").write_text("a,y\n" + "".join(f"{i},{name}\n" for i, name in enumerate(classes)))
    return FileData(source="file", path=str(folder / "t.csv"), target=["y"])


def load(data: FileData, validation: float = 0.2, seed: int = 0, **options: Any) -> Table:
    return read(data.model_copy(update=options), validation=validation, seed=seed, loss=None)


def held_classes(table: Table) -> Counter[str]:
    assert table.y_validation is not None
    assert table.columns.classes is not None
    return Counter(table.columns.classes[k] for k in table.y_validation.argmax(1))


@pytest.mark.parametrize("seed", range(3))
def test_each_class_has_its_share_of_the_validation_rows(seed: int, tmp_path: Path) -> None:
    data = write(tmp_path, ["r"] * 10 + ["s"] * 60 + ["t"] * 30)
    assert held_classes(load(data, 0.2, seed)) == {"r": 2, "s": 12, "t": 6}
    assert held_classes(load(data, 0.1, seed)) == {"r": 1, "s": 6, "t": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splits")


@examples(30)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=6),
    part=st.sampled_from([0.01, 0.05, 0.2, 0.5, 0.9]),
    seed=st.integers(0, 5),
)
def test_a_row_of_each_class_is_trained_on_and_the_draw_is_the_seeds(
    sizes: list[int], part: float, seed: int, place: Path
) -> None:
    data = write(place, [f"c{k}" for k, size in enumerate(sizes) for _ in range(size)])
    rows = sum(sizes)
    if rows == len(sizes):
        with pytest.raises(DataError, match="each class has one row, so none can be held out; set validation: null"):
            load(data, part, seed)
        return
    table = load(data, part, seed)
    assert table.y.sum(0).min() >= 1
    # As many as without classes, unless too many would be needed for a row of each class to stay.
    assert sum(held_classes(table).values()) <= max(1, round(part * rows))
    shares = [max(1, round(part * rows)) * size / rows for size in sizes]
    found = held_classes(table)
    for k, share in enumerate(shares):
        assert found[f"c{k}"] <= share + 1
        assert found[f"c{k}"] >= min(int(share), sizes[k] - 1)
    again = load(data, part, seed)
    assert np.array_equal(again.x, table.x)


def test_rows_of_a_regression_are_drawn_as_in_version_0_1_0(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f"{i},{i * 7 % 5}\n" for i in range(40)))
    data = FileData(source="file", path=str(tmp_path / "t.csv"), target=["y"])
    table = load(data, 0.1, 3, scale=False)
    expected = np.sort(np.random.default_rng([3, 1]).choice(40, 4, replace=False, shuffle=False))
    assert table.x_validation is not None
    assert table.x_validation[:, 0].tolist() == expected.tolist()
    classes = write(tmp_path, [f"c{i % 2}" for i in range(40)])
    table = load(classes, 0.1, 3, scale=False, stratify=False)
    assert table.x_validation is not None
    assert table.x_validation[:, 0].tolist() == expected.tolist()


def test_a_class_of_which_none_is_held_out_and_a_category_that_only_validation_rows_have_are_told(
    tmp_path: Path, twolayer: Run
) -> None:
    rows = ["r"] * 1 + ["s"] * 60 + ["t"] * 3
    colours = ["red", "blue"] * 32
    data = write(tmp_path, rows)
    held = np.flatnonzero(splits.validation_rows(survey(data, loss=None), 0.05, 0, "t"))
    colours[held[0]] = "mauve"
    lines = "".join(f"{2 * i},{colour},{name}\n" for i, (colour, name) in enumerate(zip(colours, rows, strict=True)))
    (tmp_path / "t.csv").write_text("a,colour,y\n" + lines)
    notes = (
        "no row is held out for validation of the classes r (1 row), t (3 rows)",
        "column colour: no training row has the category mauve, only validation rows",
    )
    assert load(data, 0.05).notes == notes
    told = twolayer("data", "t.csv", "--target", "y", "--set", "validation=0.05")
    assert (told.returncode, tuple(told.stderr.splitlines())) == (0, notes)
    done = twolayer("train", "t.csv", "--target", "y", "--epochs", "2", "--no-save", "--set", "validation=0.05")
    assert tuple(done.stderr.splitlines()[:2]) == notes


def test_a_table_without_anything_to_tell_has_no_notes(tmp_path: Path, twolayer: Run) -> None:
    data = write(tmp_path, ["r", "s"] * 40)
    assert load(data, 0.05).notes == ()
    assert twolayer("data", "t.csv", "--target", "y").stderr == ""


def test_data_says_that_no_row_can_be_held_out(tmp_path: Path, twolayer: Run) -> None:
    write(tmp_path, ["r", "s", "t"])
    done = twolayer("data", "t.csv", "--target", "y")
    assert (done.returncode, done.stderr) == (
        1,
        "error: t.csv: each class has one row, so none can be held out; set validation: null\n",
    )


# --- resuming


def test_a_run_of_an_older_version_keeps_its_own_validation_rows_when_it_is_resumed(
    tmp_path: Path, twolayer: Run
) -> None:
    write(tmp_path, ["r"] * 30 + ["s"] * 10)
    options = "t.csv --target y --missing refuse --set H=4 --set validation=0.2"
    older = f"{options} --set data.stratify=false"
    train(tmp_path, f"{older} --epochs 6 --out old", f"{older} --epochs 9 --out whole", f"{options} --out new")
    config = tmp_path / "old/config.yaml"
    lacking = config.read_bytes().replace(b', "stratify": false', b"")
    assert lacking != config.read_bytes()
    config.write_bytes(lacking)
    then = load(FileData(path=str(tmp_path / "t.csv"), target=["y"], stratify=False), missing="refuse")  # as 0.1.0 did
    document = json.dumps(then.columns.document_of_0_1_0()).encode()
    digest = hashlib.sha256(document + then.x.tobytes() + then.y.tobytes()).hexdigest()
    change_info(tmp_path / "old", config_sha256=[hashlib.sha256(lacking).hexdigest()], data_sha256=digest)
    assert twolayer("train", "--resume", "old", "--epochs", "9", "-q").returncode == 0
    weights = [safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("old", "whole", "new")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["inputs.mean"], weights[2]["inputs.mean"])  # another split
    assert b'"stratify": false' in config.read_bytes()
    assert twolayer("train", "--resume", "old", "--epochs", "11", "-q").returncode == 0


def test_a_resumed_run_cannot_change_how_rows_are_drawn(tmp_path: Path, twolayer: Run) -> None:
    write(tmp_path, ["r"] * 30 + ["s"] * 10)
    train(tmp_path, "t.csv --target y --epochs 3 --out run")
    done = twolayer("train", "--resume", "run", "--epochs", "5", "--set", "data.stratify=false")
    assert done.returncode == 2
    assert "data.stratify is true, not false" in done.stderr


# --- folds


def fold_numbers(found: Survey, count: int, data: FileData, seed: int = 0, repeat: int = 0) -> Array:
    masks = np.array(list(splits.folds(found, count, seed, repeat, data)))
    assert (masks.sum(0) == 1).all()  # each row in one fold
    numbers: Array = masks.argmax(0)
    return numbers


@examples(40)
@given(sizes=st.lists(st.integers(3, 12), min_size=2, max_size=5), count=st.integers(2, 3), seed=st.integers(0, 3))
def test_folds_have_equal_sizes_and_equal_numbers_of_each_class(
    sizes: list[int], count: int, seed: int, place: Path
) -> None:
    data = write(place, [f"c{k}" for k, size in enumerate(sizes) for _ in range(size)])
    found = survey(data, loss=None)
    splits.check_folds(found, count, data)
    numbers = fold_numbers(found, count, data, seed)
    assert np.ptp(np.bincount(numbers, minlength=count)) <= 1
    start = 0
    for size in sizes:
        assert np.ptp(np.bincount(numbers[start : start + size], minlength=count)) <= 1
        start += size
    assert np.array_equal(numbers, fold_numbers(found, count, data, seed))


def test_folds_differ_from_seed_to_seed_and_from_repeat_to_repeat(tmp_path: Path) -> None:
    data = write(tmp_path, ["r", "s"] * 40)
    found = survey(data, loss=None)
    drawn = [fold_numbers(found, 4, data, seed, repeat) for seed in (0, 1) for repeat in (0, 1)]
    assert len({numbers.tobytes() for numbers in drawn}) == 4


def test_too_few_rows_for_the_folds_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path, ["r"] * 10 + ["s"] * 3)
    found = survey(data, loss=None)
    with chdir(tmp_path), pytest.raises(DataError, match=r"class s has 3 rows, too few for --folds 4.*at most 3"):
        splits.check_folds(found, 4, data)
    splits.check_folds(found, 13, data.model_copy(update={"stratify": False}))
    with pytest.raises(DataError, match="has 13 rows, too few for --folds 14; use at most 13"):
        splits.check_folds(found, 14, data)
