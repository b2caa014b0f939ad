"""Where a run's tables are, also after the run and its tables have been moved together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twolayer.config.schema import Config
from twolayer.tables.options import FileData

BESIDE = "tables_beside"  # the key of run.json that holds the paths from the run's folder to its tables


def tables(config: Config) -> dict[str, str]:
    """The paths of the tables that a config trains on, by the key that holds each."""
    found = {"data.path": config.data.path} if isinstance(config.data, FileData) else {}
    return found | ({"validation": config.validation} if isinstance(config.validation, str) else {})


def beside(run: Path, config: Config) -> dict[str, dict[str, str]]:
    """What run.json keeps of where the tables are: their paths relative to the run's folder, with slashes."""
    folder = os.path.realpath(run)
    places = {key: Path(path) for key, path in tables(config).items()}
    found = {}
    for key, path in places.items():
        with suppress(ValueError):  # on another drive of Windows: then it does not move with the run
            relative = os.path.relpath(Path(os.path.realpath(path.parent)) / path.name, folder)
            found[key] = relative.replace(os.sep, "/")
    return {BESIDE: found} if found else {}


def moved(run: Path, info: Mapping[str, Any], config: Config) -> dict[str, str]:
    """The tables that are no longer where the config says, but still where they were as seen from the run's folder.

    Their paths by key. Whether a table is the same is known when it has been read.
    """
    kept = info.get(BESIDE)
    found = {}
    for key, path in tables(config).items():
        relative = kept.get(key) if isinstance(kept, dict) else None
        if isinstance(relative, str) and relative and not is_there(path):
            place = os.path.normpath(Path(os.path.realpath(run)) / relative)
            if is_there(place):
                found[key] = place
    return found


def at(config: Config, paths: Mapping[str, str]) -> Config:
    """The config with its tables at these paths, by the key that holds each."""
    update: dict[str, Any] = {}
    if "data.path" in paths:
        update["data"] = config.data.model_copy(update={"path": paths["data.path"]})
    if "validation" in paths:
        update["validation"] = paths["validation"]
    return config.model_copy(update=update) if update else config


def is_there(path: str) -> bool:
    """Whether something is at a path."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name too long, a NUL
        return False
