"""Unfinished run folders that killed processes left: found, and removed."""

from __future__ import annotations

import stat
import time
from contextlib import suppress
from pathlib import Path

from twolayer.files import LEFTOVER, Folder
from twolayer.runs.run_files import CHECKPOINTS, CONFIG, HISTORY, INFO, SWEEP, SWEEP_TABLE
from twolayer.system.folders import is_mine

MARKER = ".twolayer"  # holds the name of an unfinished folder: only a folder with it may be removed as a leftover
_AGE = 60  # seconds; younger ones may still be in use


def remove_leftovers(place: Path, age: float = _AGE) -> None:
    """Remove unfinished folders of runs and sweeps: our own, locked by nobody, older than `age` seconds."""
    with suppress(OSError), Folder(place) as parent:
        for name in filter(LEFTOVER.fullmatch, parent.names()):
            with suppress(OSError), Folder(Path(name), inside=parent) as left:
                status = left.held.status()
                is_old = time.time() - status.st_mtime > age
                if is_old and is_mine(status) and left.lock() and _is_unfinished(left, name):
                    with suppress(FileNotFoundError):  # first: where it is not empty, all stays
                        left.held.rmdir(CHECKPOINTS)
                    left.clear(depth=0)
                    left.close()
                    parent.held.rmdir(name)


def _is_unfinished(folder: Folder, name: str) -> bool:
    """Whether the folder is what a killed process leaves: our marker, and files that a new run or sweep begins with.

    Before the marker is written the folder is empty, or holds an empty marker.
    """
    found = {entry: folder.status(entry) for entry in folder.names()}
    if not found:
        return True
    marker = folder.read(MARKER, limit=len(name))
    if marker != name.encode():
        return found.keys() == {MARKER} and not marker
    ours = (MARKER, CONFIG, HISTORY, INFO, CHECKPOINTS, SWEEP, SWEEP_TABLE)
    return all(
        (entry in ours or LEFTOVER.fullmatch(entry))
        and status is not None
        and (stat.S_ISDIR if entry == CHECKPOINTS else stat.S_ISREG)(status.st_mode)
        for entry, status in found.items()
    )
