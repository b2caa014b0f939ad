"""Paths that a system, or a library, cannot take."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

WINDOWS = sys.platform == "win32"
_LONGEST = 259  # characters of a path on Windows, unless it is set to take longer ones


def is_reserved(name: str) -> bool:
    """Whether Windows takes a name for a device, as NUL and con.txt."""
    stem = name.partition(".")[0].rstrip(" ")
    return re.fullmatch(r"con|prn|aux|nul|conin\$|conout\$|(com|lpt)[1-9¹²³]", stem, re.IGNORECASE) is not None


def why_no_path(path: Path, more: int = 0) -> str:
    """Why Windows cannot have a file or folder at a path; empty where it can, and on other systems.

    `more`: the characters of the longest path below it.
    """
    for name in path.parts[1 if path.anchor else 0 :] if WINDOWS else ():
        if is_reserved(name):
            return f"{name} is the name of a device on Windows"
        if (name[-1] in " ." and name not in (".", "..")) or re.search(r'[<>:"|?*\x00-\x1f]', name):
            return f"Windows has no names such as {name!r}"
    length = len(str(path.absolute())) + more if WINDOWS else 0
    if length > _LONGEST and not _takes_long_paths():
        return f"paths in it would have up to {length} characters, and Windows takes {_LONGEST}"
    return ""


def _takes_long_paths() -> bool:
    import ctypes

    ntdll: Any = getattr(ctypes, "windll", None) and ctypes.windll.ntdll  # type: ignore[attr-defined,unused-ignore]
    return bool(getattr(ntdll, "RtlAreLongPathsEnabled", lambda: 0)() & 1)


def path_in_utf8(path: Path) -> Path:
    """The path, or, where its bytes are not UTF-8, one that leads to the same file; it stays open. Raises OSError."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        if not Path("/dev/fd").is_dir():
            raise OSError(errno.EILSEQ, "its name is not valid Unicode; rename it") from None
        return Path(f"/dev/fd/{os.open(path, os.O_RDONLY | getattr(os, 'O_CLOEXEC', 0))}")
    return path
