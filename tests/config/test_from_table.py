from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from twolayer.config import from_table
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.tables import dataset
from twolayer.training.setup import load_data

LONG_AGO = 10**9  # seconds


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{i * 7 % 5},{i * 3 % 11}\n" for i in range(40)))
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of every table that is read."""
    paths: list[str] = []
    read = dataset.read

    def counted(data: Any, **options: Any) -> dataset.Table:
        paths.append(data.path)
        return read(data, **options)

    monkeypatch.setattr(dataset, "read", counted)
    return paths


def config_of(path: Path, **values: Any) -> Config:
    data = {"source": "file", "path": str(path), "target": "y"}
    return load_config(path, environment={}, data=data, **values)


def test_one_read_serves_the_config_and_the_training(table: Path, reads: list[str]) -> None:
    config = config_of(table, validation=0.25)
    first = load_data(config.model_copy(update={"threads": 1}))  # as `prepare` makes copies of it
    assert reads == [str(table)]
    assert load_data(config).x.equal(first.x)
    assert len(reads) == 2  # a table is handed on once: nobody can have changed it


def rewrite(table: Path) -> None:
    table.write_text(table.read_text().replace("\n39,", "\n99,"))


def replace(table: Path) -> None:
    other = table.with_name("other.csv")
    other.write_text(table.read_text().replace("\n39,", "\n99,"))
    os.utime(other, (LONG_AGO, LONG_AGO))  # the same size and time
    other.replace(table)


@pytest.mark.parametrize("change", [rewrite, replace])
def test_a_file_that_has_changed_since_is_read_again(
    change: Callable[[Path], None], table: Path, reads: list[str]
) -> None:
    config = config_of(table)
    change(table)
    data = load_data(config)
    assert len(reads) == 2
    assert data.x.equal(load_data(config_of(table)).x)


def test_a_validation_file_that_has_changed_since_is_read_again(table: Path, reads: list[str]) -> None:
    held_out = table.with_name("v.csv")
    held_out.write_text(table.read_text())
    os.utime(held_out, (LONG_AGO, LONG_AGO))
    config = config_of(table, validation=str(held_out))
    rewrite(held_out)
    load_data(config)
    assert len(reads) == 2


def test_a_file_that_was_just_written_is_read_again(table: Path, reads: list[str]) -> None:
    os.utime(table)  # its time stamp may stay the same where it is written once more
    load_data(config_of(table))
    assert len(reads) == 2


def test_a_config_that_asks_for_another_dtype_gets_it(table: Path) -> None:
    config = config_of(table)
    assert load_data(config.model_copy(update={"dtype": "float64"})).x.numpy().dtype == "float64"


def test_the_table_is_freed_with_its_config_and_by_the_next_one(table: Path) -> None:
    config = config_of(table)
    kept = weakref.ref(from_table._kept[id(config.data)][1])
    second = config_of(table)
    gc.collect()
    assert kept() is None
    kept = weakref.ref(from_table._kept[id(second.data)][1])
    del second
    gc.collect()
    assert kept() is None
    assert not from_table._kept
