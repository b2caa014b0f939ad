"""The configs that come with twolayer, and copies of them to start from."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path as FilePath

from twolayer.errors import ConfigError, Origin, Problem, RunError, TwolayerError
from twolayer.files import open_regular, reading, replacing

SCHEMA = "twolayer.schema.json"  # the file that the first line of every config names
_MAX_SCHEMA = 2**20  # bytes; ours has 12 KB


@dataclass(frozen=True)
class Starter:
    """What `write_starter` has done: the files written, the schema's path, and whether it is this version's."""

    written: tuple[FilePath, ...]
    schema: FilePath
    has_schema: bool


def bundled() -> dict[str, FilePath]:
    """The configs that come with twolayer, by name."""
    here = FilePath(__file__).parent
    folder = here / "configs"
    if not folder.is_dir():  # a checkout: the wheel puts the folder inside the package
        folder = here.parents[1] / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def write_starter(path: FilePath, name: str = "default", *, force: bool = False) -> Starter:
    """Write a bundled config to start from, and beside it the table that it trains on and the JSON schema.

    Each file appears whole or not at all. A schema that an earlier version has written is replaced; another file of
    its name is left. Raises TwolayerError if a config or a table is there already (unless `force`), or cannot be
    written, and ConfigError for an unknown name.
    """
    if name not in (configs := bundled()):
        raise ConfigError([Problem(Origin("--from"), "", f"no such config; there are {', '.join(configs)}")])
    source = configs[name]
    table = source.with_suffix(".csv")
    copies = {path: source} | ({path.parent / table.name: table} if table.exists() else {})
    for target in copies:
        if target.is_dir():
            raise RunError("is a folder", path=target, hint="name a file", usage=True)
        if target.exists() and not force:
            raise RunError("already exists", path=target, hint="--force overwrites it", usage=True)
    for target, original in copies.items():
        _copy(original, target)
    schema, ours = path.parent / SCHEMA, source.with_name(SCHEMA)
    if not os.path.lexists(schema) or _is_older_schema(schema, ours):
        _copy(ours, schema)
        copies[schema] = ours
    return Starter(tuple(copies), schema, has_schema=_content(schema) == _content(ours))


def _copy(source: FilePath, target: FilePath) -> None:
    with reading(source, TwolayerError):
        data = source.read_bytes()
    with replacing(target) as file:
        file.write(data)


def _content(path: FilePath) -> bytes:
    """What a file holds; nothing if it is not a file that a schema can be in."""
    try:
        with open_regular(path, _MAX_SCHEMA) as file:
            return file.read()
    except OSError:
        return b""


def _is_older_schema(path: FilePath, ours: FilePath) -> bool:
    """Whether a file is the schema of another version than ours."""
    content = _content(path)
    try:
        found = json.loads(content)
        is_schema = found["title"] == "Config" and {"N", "D_in", "H", "D_out"} <= set(found["properties"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return is_schema and content != _content(ours)
