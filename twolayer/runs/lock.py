"""The lock of a run folder: one process at a time."""

from __future__ import annotations

import time
from pathlib import Path

from twolayer.errors import RunError
from twolayer.files import Folder, named


def is_held(path: Path) -> bool:
    """Whether a process trains the run in the folder."""
    with named(path), Folder(path) as folder:
        return not folder.lock(shared=True)


def hold(path: Path) -> Folder:
    """Open and lock a run folder. The system releases the lock when the process ends.

    Raises RunError where another process has it.
    """
    with named(path):
        folder = Folder(path)
    for _ in range(5):  # another process may have it for an instant, to ask whether it is locked
        if folder.lock():
            return folder
        time.sleep(0.02)
    folder.close()
    raise RunError("another process is training this run", path=path, usage=True)
