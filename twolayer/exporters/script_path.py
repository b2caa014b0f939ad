"""Where a script may be written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twolayer.errors import RunError
from twolayer.formatting import flag


def check_path(path: Path, *, force: bool) -> None:
    """Raise RunError where a script may not be written; with `force` it may replace a file."""
    if path.suffix != ".py":
        raise RunError("must end in .py: it is a Python program", path=path, usage=True)
    if path.stem in {*sys.stdlib_module_names, "numpy", "polars", "torch"}:
        reason = f"would be imported by itself and by others in place of {path.stem}"
        raise RunError(reason, path=path, hint="choose another name", usage=True)
    if path.is_dir():
        raise RunError("is a folder; name a file", path=path, usage=True)
    if os.path.lexists(path) and not force:
        raise RunError("already exists", path=path, hint=f"{flag('force')} overwrites it", usage=True)
