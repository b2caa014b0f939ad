from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from twolayer.config.bundled import bundled, write_starter
from twolayer.config.loading import load_config
from twolayer.errors import TwolayerError

SCHEMA = (bundled()["default"].parent / "twolayer.schema.json").read_bytes()


def identity(path: Path) -> tuple[int, ...]:
    """What changes if a path is replaced or written to, and does not if it is read."""
    info = path.lstat()
    return info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns


def test_the_starter_is_the_default_config_and_is_never_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    write_starter(path)
    assert load_config(path) == load_config("default")
    path.write_text("mine")
    with pytest.raises(TwolayerError, match=r"new\.yaml: already exists; --force overwrites it"):
        write_starter(path)
    assert path.read_text() == "mine"
    write_starter(path, force=True)
    assert load_config(path) == load_config("default")
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR


def test_a_starter_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    with pytest.raises(TwolayerError, match="cannot be written: No such file or directory"):
        write_starter(tmp_path / "no" / "new.yaml")
    with pytest.raises(TwolayerError, match="is a folder; name a file"):
        write_starter(tmp_path, force=True)


def test_the_schema_that_a_starter_names_is_beside_it(tmp_path: Path) -> None:
    starter = write_starter(tmp_path / "new.yaml", "diabetes")
    assert starter.written == tuple(tmp_path / name for name in ("new.yaml", "diabetes.csv", "twolayer.schema.json"))
    assert starter.schema.read_bytes() == SCHEMA
    before = identity(starter.schema)
    starter = write_starter(tmp_path / "second.yaml")
    assert starter.written == (tmp_path / "second.yaml",)
    assert starter.has_schema
    assert identity(starter.schema) == before


def test_a_schema_of_another_version_is_replaced(tmp_path: Path) -> None:
    older = json.loads(SCHEMA)
    del older["properties"]["lr"]
    (tmp_path / "twolayer.schema.json").write_text(json.dumps(older))
    starter = write_starter(tmp_path / "new.yaml")
    assert starter.schema in starter.written
    assert starter.schema.read_bytes() == SCHEMA


def make_link(path: Path) -> None:
    path.symlink_to("missing.json")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("mine"),
        lambda path: path.write_text('{"title": "Config", "properties": {"N": {}}}'),
        lambda path: path.write_text("[" * 10_000),
        Path.mkdir,
        make_link,
    ],
    ids=["text", "other schema", "nested", "folder", "link"],
)
def test_another_file_with_the_schemas_name_is_left(make: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "twolayer.schema.json"
    make(path)
    before = identity(path)
    starter = write_starter(tmp_path / "new.yaml")
    assert not starter.has_schema
    assert starter.written == (tmp_path / "new.yaml",)
    assert identity(path) == before
