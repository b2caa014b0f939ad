"""Files opened without following a link, and folders held open and locked, by what the system has."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol


def _module(name: str) -> Any:
    """A module of Python's own that not every system has; None where it is missing."""
    try:
        return import_module(name)
    except ImportError:
        return None


def _flags(*names: str) -> int:
    """Flags of `os.open`; those that this system lacks are 0."""
    return sum(getattr(os, name, 0) for name in names)


_fcntl = _module("fcntl")
_msvcrt = _module("msvcrt") if _fcntl is None else None
_ALWAYS = _flags("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT")
_LOCK = ".lock"  # the file that is locked where folders cannot be


def open_file(path: Path | str, flags: int, mode: int = 0o666, *, folder: int | None = None) -> int:
    """`os.open`, for bytes, that waits for nothing and follows no link at the path; with `folder`, a name in it.

    Raises OSError, for a link with ELOOP or EMLINK.
    """
    if hasattr(os, "O_NOFOLLOW"):
        return os.open(path, flags | _ALWAYS, mode, dir_fd=folder)
    _refuse_link(path)
    try:
        file = os.open(path, flags | _ALWAYS, mode)
    except PermissionError:  # what Windows says of a folder
        if Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        raise
    try:
        _refuse_link(path)  # put there meanwhile
    except BaseException:
        os.close(file)
        raise
    return file


def _refuse_link(path: Path | str) -> None:
    with suppress(FileNotFoundError):
        if _is_link(os.lstat(path)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _is_link(status: os.stat_result) -> bool:
    """Whether it is a link, or a junction of Windows."""
    return stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == 0xA0000003


def flush(file: int) -> None:
    """Write a file or folder, given as a descriptor, to the disk. Raises OSError."""
    if (full := getattr(_fcntl, "F_FULLFSYNC", None)) is not None:  # macOS: fsync leaves it in the disk's own memory
        with suppress(OSError):  # a file system that cannot
            _fcntl.fcntl(file, full)
            return
    os.fsync(file)


class Held(Protocol):
    """A folder that is held; names are those of entries in it. Methods raise OSError."""

    def close(self) -> None:
        """Let it go, and release its lock."""

    def open(self, name: str, flags: int) -> int:
        """`os.open`, for bytes; follows no link."""

    def lstat(self, name: str) -> os.stat_result:
        """The `lstat` of an entry."""

    def names(self) -> list[str]:
        """The names of all entries."""

    def replace(self, old: str, new: str) -> None:
        """Rename an entry, over another where there is one."""

    def unlink(self, name: str) -> None:
        """Remove a file or a link."""

    def mkdir(self, name: str) -> None:
        """Create a folder."""

    def rmdir(self, name: str) -> None:
        """Remove an empty folder."""

    def sync(self) -> None:
        """Write the names of its entries to the disk."""

    def status(self) -> os.stat_result:
        """The `stat` of the folder itself."""

    def where(self) -> Path | None:
        """Its path now; None where that is not known."""

    def lock(self, *, shared: bool = False) -> bool:
        """Lock it until it is closed, or the process ends; False where another process has locked it."""

    def move(self, path: Path, place: Path) -> None:
        """Rename the folder, which is at `path`; no file in it may be open."""


class _ByDescriptor:
    """A folder held open: what is done in it follows it, wherever it is moved."""

    def __init__(self, path: Path, inside: Any = None) -> None:
        flags = os.O_RDONLY | _flags("O_DIRECTORY", "O_CLOEXEC")
        if inside is None:
            self._descriptor = os.open(path, flags)
        else:
            self._descriptor = os.open(path, flags | _flags("O_NOFOLLOW"), dir_fd=inside._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def open(self, name: str, flags: int) -> int:
        return open_file(name, flags, folder=self._descriptor)

    def lstat(self, name: str) -> os.stat_result:
        return os.lstat(name, dir_fd=self._descriptor)

    def names(self) -> list[str]:
        return os.listdir(self._descriptor)  # noqa: PTH208 (pathlib knows no descriptors)

    def replace(self, old: str, new: str) -> None:
        os.replace(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self._descriptor)

    def mkdir(self, name: str) -> None:
        os.mkdir(name, dir_fd=self._descriptor)

    def rmdir(self, name: str) -> None:
        os.rmdir(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        flush(self._descriptor)

    def status(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    def where(self) -> Path | None:
        with suppress(OSError):
            if (get_path := getattr(_fcntl, "F_GETPATH", None)) is not None:  # macOS
                return Path(os.fsdecode(_fcntl.fcntl(self._descriptor, get_path, bytes(1024)).rstrip(b"\0")))
            return Path(f"/proc/self/fd/{self._descriptor}").readlink()
        return None

    def lock(self, *, shared: bool = False) -> bool:
        try:
            _fcntl.flock(self._descriptor, (_fcntl.LOCK_SH if shared else _fcntl.LOCK_EX) | _fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
        return True

    def move(self, path: Path, place: Path) -> None:
        path.rename(place)


class _ByPath:
    """The same where folders cannot be held open (Windows): before each use, its path must still lead to it.

    Nothing here lasts longer than a call but the lock, which is on a file in the folder. That file keeps the folder
    from being moved by others, and it is removed when the folder is closed.
    """

    def __init__(self, path: Path, inside: Any = None) -> None:
        if inside is not None:
            path = inside._path(path)
            _refuse_link(path)
        self._place = os.path.realpath(path, strict=True)
        self._status: os.stat_result | None = Path(self._place).stat()
        self._lock = -1
        if not stat.S_ISDIR(self._status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def close(self) -> None:
        self._unlock()
        self._status = None

    def open(self, name: str, flags: int) -> int:
        return int(_patient(open_file, self._path(name), flags))

    def lstat(self, name: str) -> os.stat_result:
        return os.lstat(self._path(name))

    def names(self) -> list[str]:
        return [name for name in os.listdir(self._path()) if name != _LOCK]  # noqa: PTH208 (as above)

    def replace(self, old: str, new: str) -> None:
        _patient(os.replace, self._path(old), self._path(new))

    def unlink(self, name: str) -> None:
        _patient(os.unlink, self._path(name))

    def mkdir(self, name: str) -> None:
        self._path(name).mkdir()

    def rmdir(self, name: str) -> None:
        self._path(name).rmdir()

    def sync(self) -> None:
        pass  # NTFS writes names to its journal

    def status(self) -> os.stat_result:
        return self._path().stat()

    def where(self) -> Path | None:
        with suppress(OSError):
            return self._path()
        return None

    def lock(self, *, shared: bool = False) -> bool:
        if _msvcrt is None:
            return True
        flags = (os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT) | _ALWAYS
        try:
            file = os.open(self._path(_LOCK), flags)
        except FileNotFoundError:
            return True
        except PermissionError:  # it is being removed
            return False
        try:
            _msvcrt.locking(file, _msvcrt.LK_NBLCK, 1)
        except OSError:
            os.close(file)
            return False
        if shared:
            _msvcrt.locking(file, _msvcrt.LK_UNLCK, 1)
            os.close(file)
        else:
            self._lock = file
        return True

    def move(self, path: Path, place: Path) -> None:
        # Open files would keep it in its place, so it is not locked for a moment.
        was_locked = self._lock >= 0
        self._unlock()
        try:
            _patient(os.rename, path, place)
            self._place = os.path.realpath(place)
        finally:
            if was_locked and not self.lock():
                self._status = None  # it is another's now
        if self._status is None:
            raise OSError(errno.EAGAIN, "another process has begun to train it")

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)  # which releases it
            self._lock = -1
            with suppress(OSError):
                self._path(_LOCK).unlink()

    def _path(self, name: Path | str = "") -> Path:
        if self._status is None or not os.path.samestat(self._status, Path(self._place).stat()):
            raise FileNotFoundError(errno.ENOENT, "the folder was moved or removed")
        return Path(self._place) / name


def _patient(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call it again for two seconds while a file is open elsewhere: Windows refuses to replace or remove it then."""
    for tries in range(100):
        try:
            return call(*arguments)
        except PermissionError:
            if tries == 99 or Path(arguments[0]).is_dir():
                raise
            time.sleep(0.02)
    return None


# Whether folders can be opened, and files be named by their folder's descriptor.
_HOLDS = {os.open, os.stat, os.unlink, os.mkdir, os.rmdir, os.rename} <= os.supports_dir_fd and _fcntl is not None
_Kind = _ByDescriptor if _HOLDS else _ByPath


def hold(path: Path, inside: Held | None = None) -> Held:
    """Open the folder at a path, which may be a link; or, `inside` another, the one of that name, which may not."""
    return _Kind(path, inside)


def is_mine(status: os.stat_result) -> bool:
    """Whether a file is this user's; where the system does not say, it is."""
    user = getattr(os, "getuid", None)
    return user is None or status.st_uid == user()
