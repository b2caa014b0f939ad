"""The tables that a sweep trains on: recognised by the bytes of their files, also where they have been moved."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twolayer.errors import RunError
from twolayer.files import open_regular, unreadable
from twolayer.runs import table_paths
from twolayer.sweeps.points import Plan

_BLOCK = 2**20  # bytes that are read at a time


def recorded(plan: Plan, folder: Path) -> dict[str, dict[str, str]]:
    """What `sweep.json` keeps of each table, by its path: its SHA-256, and where it is as seen from the folder.

    Raises RunError where one cannot be read.
    """
    found = {}
    for path, key in _paths(plan).items():
        found[path] = {"sha256": _digest(path)}
        config = next(point.config for point in plan.points if table_paths.tables(point.config).get(key) == path)
        relative = table_paths.beside(folder, config).get(table_paths.BESIDE, {}).get(key)
        found[path] |= {"beside": relative} if relative else {}
    return found


def places(folder: Path, plan: Plan, info: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """The paths of the tables that are elsewhere now, by those in the configs: as `given`, by key, or as found.

    Raises RunError where a table is nowhere, or is not the one that the sweep was started with.
    """
    known = info.get("tables")
    found = {}
    for path, key in _paths(plan).items():
        kept = known.get(path) if isinstance(known, dict) else None
        kept = kept if isinstance(kept, dict) else {}
        place = given.get(key) or _beside(folder, path, kept.get("beside"))
        if not table_paths.is_there(place):
            reason = f"its table is not at {place}"
            raise RunError(reason, path=folder, hint=f"if it was moved, add --set {key}=PATH")
        if "sha256" in kept and kept["sha256"] != _digest(place):
            reason = f"{place}: is not the table that {folder} was started with, or has changed since"
            raise RunError(f"{reason}; restore it, or name it with --set {key}=PATH")
        if place != path:
            found[path] = place
    return found


def several(plan: Plan, key: str) -> bool:
    """Whether the points have more than one table under this key."""
    return len({table_paths.tables(point.config).get(key) for point in plan.points}) > 1


def _paths(plan: Plan) -> dict[str, str]:
    """The paths of all tables, and the key that holds each."""
    return {path: key for point in plan.points for key, path in table_paths.tables(point.config).items()}


def _beside(folder: Path, path: str, relative: object) -> str:
    """The path; where nothing is there, but a table lies as it did as seen from the sweep's folder, that one's."""
    if isinstance(relative, str) and relative and not table_paths.is_there(path):
        place = os.path.normpath(Path(os.path.realpath(folder)) / relative)
        if table_paths.is_there(place):
            return place
    return path


def _digest(path: str) -> str:
    found = hashlib.sha256()
    try:
        with open_regular(Path(os.path.realpath(path))) as file:
            while part := file.read(_BLOCK):
                found.update(part)
    except OSError as error:
        raise RunError(unreadable(error), path=Path(path)) from None
    return found.hexdigest()
