"""The installed command in a clean environment, at a pipe and in a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from hypothesis import settings

from tests.helpers.forking import HANGS, Forked, can_fork, clean_environment
from tests.helpers.forking import run as forked

COMMAND = Path(sys.executable).with_name("twolayer")
BASE = "N: 8\nD_in: 3\nH: 4\nD_out: 2\nlr: 1e-3\nepochs: 5\n"

Write = Callable[[str | bytes], Path]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

# The commands that need torch.
COMPUTE = {"train", "bench", "doctor", "lr", "predict", "evaluate", "export", "eject", "inspect"}
TERMINAL_CODES = re.compile(r"\x1b|[\x80-\x9f]")


def examples(count: int) -> settings:
    """As many examples, or in a deeper profile more."""
    return settings(max_examples=count * settings().max_examples // 100)


def without_torch(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command; fails if it imported torch."""
    if can_fork(environment):
        done = forked(arguments, cwd, clean_environment(**environment), bare=True)
        assert "torch was imported" not in done.stderr
        return done
    program = (
        "import sys; from twolayer.__main__ import main; code = main(); "
        "sys.exit('torch was imported' if 'torch' in sys.modules else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        timeout=HANGS,
        check=False,
    )
    assert "torch was imported" not in done.stderr
    return done


def opened_in(
    terminal: int, command: list[str], cwd: Path, environment: Mapping[str, str], *, new_session: bool = False
) -> Forked | subprocess.Popen[bytes]:
    """Start the command in a terminal."""
    if can_fork(environment):
        return Forked(
            command,
            cwd,
            clean_environment(**environment),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            bare=command[0] not in COMPUTE,
            new_session=new_session,
        )
    return subprocess.Popen(
        [COMMAND, *command],
        cwd=cwd,
        env=clean_environment(**environment),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=new_session,
    )


def in_terminal(
    command: list[str],
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    *,
    kill_at: str = "",
    number: int = signal.SIGINT,
) -> tuple[int, str]:
    """Run the command in a real terminal; its exit code and all that it wrote there."""
    leader, follower = pty.openpty()
    environment = {"TERM": "xterm-256color", **(environment or {})}
    with opened_in(follower, command, cwd, environment) as process:
        os.close(follower)
        written = b""
        while True:
            if not select.select([leader], [], [], HANGS)[0]:
                process.kill()
                raise AssertionError("nothing came for minutes")
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            written += chunk
            if kill_at and kill_at.encode() in written:
                process.send_signal(number)
                kill_at = ""
        os.close(leader)
    return process.wait(), written.decode()


def screen(written: str) -> list[str]:
    """What stands on the terminal in the end: lines, as carriage returns and erasures leave them."""
    lines = [""]
    for part in re.split(r"(\r\n|\r|\n|\x1b\[2K|\x1b\[[0-9;]*m)", written):
        if part in ("\r\n", "\n"):
            lines.append("")
        elif part in ("\r", "\x1b[2K"):
            lines[-1] = "" if part == "\x1b[2K" else lines[-1]
        elif not part.startswith("\x1b"):
            lines[-1] += part
    return lines
