"""The lock of a run folder: one process at a time."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from twolayer.errors import RunError
from twolayer.files import Folder, named


def is_held(path: Path) -> bool:
    """Whether a process is at work in the folder."""
    with named(path), Folder(path) as folder:
        return not lock(folder.descriptor, shared=True)


def hold(path: Path) -> Folder:
    """Lock the folder itself: the lock goes with the process, however that ends, and leaves no file."""
    with named(path):
        folder = Folder(path)
    for _ in range(5):  # `twolayer runs` may be looking, for an instant
        if lock(folder.descriptor):
            return folder
        time.sleep(0.02)
    folder.close()
    raise RunError(f"{path}: another process is at work there", usage=True)


def lock(folder: int, *, shared: bool = False) -> bool:
    """Lock a folder, unless another process has; whether that was so."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(folder, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    return True
