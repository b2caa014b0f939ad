"""Atomic writes, and folders held open, in which no link is followed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from twolayer.errors import RunError, TwolayerError
from twolayer.system import folders
from twolayer.system.names import why_no_path

TEMPORARY = ".part"
LEFTOVER = re.compile(r"\.twolayer-[0-9a-f]{16}\.part")  # the name of a file or folder that is not complete yet


def expand_home(path: str) -> str:
    """The path with a leading `~/` replaced by the home folder, for paths that no shell has expanded."""
    is_home = path == "~" or path.startswith(("~/", f"~{os.sep}"))
    return os.path.expanduser(path) if is_home else path  # noqa: PTH111 it keeps "./"


def temporary_name() -> str:
    """A unique name for a file or folder until it is complete."""
    return f".twolayer-{secrets.token_hex(8)}{TEMPORARY}"


def open_regular(path: Path | str, limit: int | None = None) -> BinaryIO:
    """Open a file for reading.

    Raises OSError for a link, for a pipe or a device (which may block, or never end), and for a file of more than
    `limit` bytes.
    """
    try:
        descriptor = folders.open_file(path, os.O_RDONLY)
    except OSError as error:
        raise _link(error) from None
    return _regular(descriptor, limit)


def _regular(descriptor: int, limit: int | None) -> BinaryIO:
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if limit is not None and status.st_size > limit:
            raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, and at most {limit} are read")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _link(error: OSError) -> OSError:
    """An error of opening with O_NOFOLLOW, in words if the file is a link."""
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return OSError(errno.ELOOP, "it is a link, and links are not followed")
    return error


class Folder:
    """A folder that is held open. A context manager.

    Everything is read and written through its descriptor, where the system has these for folders: if the folder is
    moved, that follows it, and nothing is written into what is at its old `path`. Links are never followed.
    Methods raise OSError.
    """

    def __init__(self, path: Path, *, inside: Folder | None = None) -> None:
        """As `folders.hold` does."""
        self.path: Path = path if inside is None else inside.path / path
        try:
            self.held: folders.Held = folders.hold(path, None if inside is None else inside.held)
        except NotADirectoryError:
            if inside is not None and stat.S_ISLNK(inside.held.lstat(str(path)).st_mode):
                raise _link(OSError(errno.ELOOP, "")) from None
            raise
        except OSError as error:
            raise _link(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder, and release its lock."""
        self.held.close()

    def lock(self, *, shared: bool = False) -> bool:
        """Lock the folder until it is closed, or the process ends; False where another process has locked it."""
        return self.held.lock(shared=shared)

    def move(self, place: Path) -> None:
        """Rename the folder. No file in it may be open, and no folder in it be held."""
        self.held.move(self.path, place)
        self.path = place

    def where(self) -> Path | None:
        """Its path, after a move the new one; None where it was removed, or the path is not known."""
        if self.is_at(self.path):
            return self.path
        return now if (now := self.held.where()) is not None and self.is_at(now) else None

    def is_at(self, path: Path) -> bool:
        """Whether this folder is the one at the path."""
        try:
            return os.path.samestat(self.held.status(), path.stat())
        except OSError:
            return False

    def fate(self) -> str:
        """What happened to a folder that is no longer at its path: "removed", or "moved or removed" if not known."""
        with suppress(OSError):
            if not self.held.status().st_nlink:
                return "removed"
        return "moved or removed"

    def names(self) -> list[str]:
        """The names of everything in it."""
        return self.held.names()

    def status(self, name: str) -> os.stat_result | None:
        """The `lstat` of that name; None if there is nothing."""
        try:
            return self.held.lstat(name)
        except FileNotFoundError:
            return None

    def open(self, name: str, limit: int | None = None) -> BinaryIO:
        """Open a file for reading (see `open_regular`)."""
        return _regular(self.descriptor(name, os.O_RDONLY), limit)

    def descriptor(self, name: str, flags: int) -> int:
        """Open a file with these flags of `os.open`; its descriptor."""
        try:
            return self.held.open(name, flags)
        except OSError as error:
            raise _link(error) from None

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Read a file (see `open_regular`)."""
        with self.open(name, limit) as file:
            return file.read()

    def write(self, name: str, *parts: bytes | memoryview) -> None:
        """Write a file: it is complete or unchanged, also after a power cut."""
        with self._replacing(name) as descriptor:
            for part in parts:
                write_all(descriptor, part)

    @contextmanager
    def replacing(self, name: str) -> Iterator[BinaryIO]:
        """A file that gets that name when the context ends without an error; else it is removed."""
        with self._replacing(name) as descriptor, open(descriptor, "wb", closefd=False) as file:
            yield file

    @contextmanager
    def _replacing(self, name: str) -> Iterator[int]:
        temporary = temporary_name()
        try:
            file = self.create(temporary)
            try:
                yield file
                folders.flush(file)
            finally:
                os.close(file)
            self.held.replace(temporary, name)
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise
        self.sync()

    def create(self, name: str) -> int:
        """Create a file for writing; its descriptor."""
        return self.held.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def remove(self, name: str) -> None:
        """Remove a file, or a link itself."""
        self.held.unlink(name)

    def clear(self, depth: int = 1) -> None:
        """Remove its files and, to that depth, its folders; nothing is opened unless it must be, as that may fail."""
        for name in self.names():
            try:
                self.remove(name)
            except OSError:  # a folder, perhaps
                try:
                    self.held.rmdir(name)
                except OSError:
                    if not depth:
                        raise
                    with Folder(Path(name), inside=self) as inner:
                        inner.clear(depth - 1)
                    self.held.rmdir(name)

    def remove_leftovers(self) -> None:
        """Remove incomplete files that a killed process has left, as far as possible."""
        for name in filter(LEFTOVER.fullmatch, self.names()):
            with suppress(OSError):
                self.remove(name)

    def sync(self) -> None:
        """Write the names in the folder to the disk."""
        self.held.sync()


def reason(error: OSError | ValueError) -> str:
    """Why a path cannot be used. A null byte never reaches the system, and every Python words it differently."""
    return error.strerror or str(error) if isinstance(error, OSError) else "the path has a null byte"


def unreadable(error: BaseException) -> str:
    """Why a file cannot be read, in one line: what messages say after the file's name."""
    lines = (getattr(error, "strerror", None) or str(error)).splitlines()
    return f"cannot be read: {lines[0][:200] if lines else type(error).__name__}"


@contextmanager
def reading(path: Path | str, error_class: Callable[[str], TwolayerError]) -> Iterator[None]:
    """Inside, an OSError becomes an error of that class, whose message names the path."""
    try:
        yield
    except OSError as error:
        raise error_class(f"{path}: {unreadable(error)}") from None


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Raise RunError, with the path, for an OSError inside the context."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot be written: {error.strerror or error}", path=path) from None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that gets that path when the context ends without an error; else it is removed. Raises RunError."""
    if why := why_no_path(path):
        raise RunError(why, path=path, usage=True)
    with named(path), Folder(path.parent) as folder, folder.replacing(path.name) as file:
        yield file


def write_all(file: int, data: bytes | memoryview) -> None:
    """Write all the data, in as many calls as it takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def make_folders(path: Path) -> list[Path]:
    """Create a folder with its parents; those that did not exist, outermost first. Raises RunError."""
    missing: list[Path] = []
    while not path.exists():
        missing.insert(0, path)
        path = path.parent
    made: list[Path] = []
    try:
        with named(missing[0] if missing else path):
            for folder in missing:
                with suppress(FileExistsError):  # another process was faster
                    folder.mkdir()
                    made.append(folder)
                    with Folder(folder.parent) as parent:
                        parent.sync()
        if not (missing[-1] if missing else path).is_dir():
            raise RunError("is not a folder", path=path, usage=True)
    except BaseException:
        remove_folders(made)
        raise
    return made


def remove_folders(made: list[Path]) -> None:
    """Remove folders, innermost first, if they are empty."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()  # which never follows a link


def remove_folder(folder: Folder, path: Path) -> None:
    """Remove a folder and everything in it, if it is still the one at the path, and close it; errors are ignored.

    No link is followed, neither at the path nor in the folder.
    """
    with suppress(OSError):
        if os.path.samestat(path.lstat(), folder.held.status()):
            folder.clear()
            folder.close()
            path.rmdir()
