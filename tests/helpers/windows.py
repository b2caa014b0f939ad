"""Takes from this process what Windows does not have, and gives it what only Windows has, as far as twolayer uses it.

The rules of Windows for open files hold as well: they are neither replaced nor removed, and their folders not moved.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import ssl
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty")
OS = "fork getuid geteuid getgid pread pwrite set_blocking mkfifo fchmod chown killpg setsid sysconf sysconf_names"
FLAGS = "O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NONBLOCK O_NOCTTY O_SYNC"
SIGNALS = "SIGHUP SIGKILL SIGCHLD SIGPIPE SIGALRM SIGQUIT SIGUSR2"
REAL_LISTDIR = os.listdir
BREAK = signal.SIGUSR1  # stands for Ctrl-Break
O_BINARY = 0o100000  # O_LARGEFILE, which is always set


class Msvcrt(ModuleType):
    """The part of msvcrt that locks, and what libraries take from it when they are imported."""

    LK_UNLCK, LK_NBLCK = 0, 2

    def getch(self) -> bytes:
        raise AssertionError("nothing reads keys")

    def locking(self, file: int, mode: int, count: int) -> None:
        assert count == 1
        try:
            fcntl.flock(file, fcntl.LOCK_UN if mode == self.LK_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def is_open(path: Any, *, below: bool = False) -> bool:
    """Whether a process has a file open; with `below`, one in a folder."""
    wanted = os.path.realpath(path)
    for process in REAL_LISTDIR("/proc"):
        with suppress(OSError):  # it may end meanwhile
            for number in REAL_LISTDIR(f"/proc/{process}/fd"):
                with suppress(OSError):
                    place = os.readlink(f"/proc/{process}/fd/{number}")  # noqa: PTH115 (thousands of them)
                    if place.startswith(f"{wanted}/") if below else place == wanted:
                        return True
    return False


def refused(path: Any) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))


def _functions() -> dict[str, Callable[..., Any]]:
    """The functions of `os` as they are on Windows."""
    real = {name: getattr(os, name) for name in ("open", "replace", "rename", "unlink", "listdir")}

    def opened(path: Any, flags: int, mode: int = 0o777) -> Any:
        if Path(path).is_dir():
            raise refused(path)
        if str(sys._getframe(1).f_globals["__name__"]).startswith("twolayer") and path != os.devnull:
            assert flags & O_BINARY, f"{path}: line ends would be translated"
        return real["open"](path, flags, mode)

    def replaced(old: Any, new: Any) -> None:
        if is_open(new) or is_open(old):
            raise refused(new)
        real["replace"](old, new)

    def renamed(old: Any, new: Any) -> None:
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if is_open(old, below=True) or is_open(old):
            raise refused(old)
        real["rename"](old, new)

    def unlinked(path: Any) -> None:
        by_tempfile = sys._getframe(1).f_globals["__name__"] == "tempfile"  # which has another way on Windows
        if Path(path).is_dir() or (not by_tempfile and is_open(path)):
            raise refused(path)
        real["unlink"](path)

    def listed(path: Any = ".") -> Any:
        assert not isinstance(path, int)
        return real["listdir"](path)

    return {
        "open": opened,
        "replace": replaced,
        "rename": renamed,
        "unlink": unlinked,
        "remove": unlinked,
        "listdir": listed,
        **{name: _without_folder(getattr(os, name)) for name in ("stat", "lstat", "mkdir", "rmdir")},
    }


def _without_folder(function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*arguments: Any, **more: Any) -> Any:
        assert "dir_fd" not in more
        return function(*arguments, **more)

    return called


def _only_sockets(number: int, **more: Any) -> int:
    assert number == -1 or stat.S_ISSOCK(os.fstat(number).st_mode)
    return REAL_WAKEUP(number, **more)


REAL_WAKEUP = signal.set_wakeup_fd
MISSING = object()


@contextmanager
def as_on_windows() -> Iterator[None]:
    """Inside, it is as on Windows. Modules that are imported already keep what they have taken."""
    attributes: list[tuple[Any, dict[str, Any]]] = [
        (os, {**_functions(), "supports_dir_fd": set(), "supports_fd": set(), "O_BINARY": O_BINARY}),
        (os, dict.fromkeys(f"{OS} {FLAGS}".split(), MISSING)),
        (signal, {"set_wakeup_fd": _only_sockets, "SIGBREAK": BREAK, **dict.fromkeys(SIGNALS.split(), MISSING)}),
        (sys, {"platform": "win32"}),
        (shutil, {"_use_fd_functions": False}),
        (ssl, {"enum_certificates": lambda _: [], "enum_crls": lambda _: []}),
    ]
    places = [(vars(place), values) for place, values in attributes]
    places += [(sys.modules, {**dict.fromkeys(MODULES), "msvcrt": Msvcrt("msvcrt")})]
    before = [(place, {name: place.get(name, MISSING) for name in values}) for place, values in places]
    try:
        _set(places)
        yield
    finally:
        _set(before)


def _set(places: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for place, values in places:
        for name, value in values.items():
            if value is MISSING:
                place.pop(name, None)
            else:
                place[name] = value
