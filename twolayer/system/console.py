"""Signals, pipes, and what the shell takes."""

from __future__ import annotations

import errno
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

WINDOWS = sys.platform == "win32"
# What ends a training in order. SIGHUP and SIGBREAK: the terminal is closed.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]

# For subprocess.Popen: Ctrl-C in the terminal does not reach such a process.
OWN_SESSION: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)} if WINDOWS else {"start_new_session": True}
)


def shell_words(words: Sequence[str]) -> str:
    """Words as this system's shell takes them, to be copied."""
    if not WINDOWS:
        return shlex.join(words)
    plain = re.compile(r"[\w.,:=+@/\\~-]+")
    return " ".join(word if plain.fullmatch(word) else '"' + word.replace('"', '\\"') + '"' for word in words)


def is_closed_pipe(error: OSError) -> bool:
    """Whether the reader of a pipe has closed it. Windows says "Invalid argument"."""
    return isinstance(error, BrokenPipeError) or (WINDOWS and error.errno == errno.EINVAL)
