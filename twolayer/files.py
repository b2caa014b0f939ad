"""Files and folders that are there whole or not at all, and are never reached through a link. Never imports torch."""

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

TEMPORARY = ".part"
LEFTOVER = re.compile(r"\.twolayer-[0-9a-f]{16}\.part")  # a file or a folder that is being made has such a name


def temporary_name() -> str:
    """A name for what is being made; no two are the same."""
    return f".twolayer-{secrets.token_hex(8)}{TEMPORARY}"


def open_regular(name: Path | str, limit: int | None = None, *, folder: int | None = None) -> BinaryIO:
    """Open a file for reading; with `folder`, a descriptor, the name is one in it.

    Raises OSError for a link, for what could be waited for or read without end (a pipe, a device), and for a file of
    more than `limit` bytes.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        raise _link(error) from None
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
    """The error of opening something with O_NOFOLLOW, in words where that is a link."""
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return OSError(errno.ELOOP, "it is a link, and links are not followed")
    return error


class Folder:
    """A folder that is held open. A context manager.

    What is read and written goes through its descriptor: where the folder is moved, that goes along, and nothing comes
    into what stands at its old `path`. Names are of what lies in it, and are never followed where they are links.
    Methods raise OSError.
    """

    def __init__(self, path: Path, *, inside: Folder | None = None) -> None:
        """Open the folder at a path, which may be a link; or, `inside` another, the one of that name, which may not."""
        self.path: Path = path if inside is None else inside.path / path
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            if inside is None:
                self.descriptor = os.open(path, flags)
            else:
                self.descriptor = os.open(path, flags | os.O_NOFOLLOW, dir_fd=inside.descriptor)
        except NotADirectoryError:
            if inside is not None and stat.S_ISLNK(os.lstat(path, dir_fd=inside.descriptor).st_mode):
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
        """Close the folder."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def is_at(self, path: Path) -> bool:
        """Whether it is this folder that stands at the path."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), path.stat())
        except OSError:
            return False

    def names(self) -> list[str]:
        """The names of all that is in it."""
        return os.listdir(self.descriptor)  # noqa: PTH208 (pathlib knows no descriptors)

    def status(self, name: str) -> os.stat_result | None:
        """What `lstat` says of what has that name; None where nothing has."""
        try:
            return os.lstat(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            return None

    def open(self, name: str, limit: int | None = None) -> BinaryIO:
        """Open a file for reading (see `open_regular`)."""
        return open_regular(name, limit, folder=self.descriptor)

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Read a file (see `open_regular`)."""
        with self.open(name, limit) as file:
            return file.read()

    def write(self, name: str, *parts: bytes | memoryview) -> None:
        """Write a file so that it is there whole or as it was before, also after a power cut."""
        with self._replacing(name) as descriptor:
            for part in parts:
                write_all(descriptor, part)

    @contextmanager
    def replacing(self, name: str) -> Iterator[BinaryIO]:
        """A file that takes the place of that name when the context ends well, and else leaves nothing."""
        with self._replacing(name) as descriptor, open(descriptor, "wb", closefd=False) as file:
            yield file

    @contextmanager
    def _replacing(self, name: str) -> Iterator[int]:
        temporary = temporary_name()
        try:
            file = self.create(temporary)
            try:
                yield file
                os.fsync(file)
            finally:
                os.close(file)
            os.replace(temporary, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise
        self.sync()

    def create(self, name: str) -> int:
        """A new file, to be written; its descriptor."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o666, dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, or a link itself."""
        os.unlink(name, dir_fd=self.descriptor)

    def clear(self, depth: int = 1) -> None:
        """Remove its files and, to that depth, its folders. What can be is removed unopened: opening may fail."""
        for name in self.names():
            try:
                self.remove(name)
            except OSError:  # a folder, perhaps
                try:
                    os.rmdir(name, dir_fd=self.descriptor)
                except OSError:
                    if not depth:
                        raise
                    with Folder(Path(name), inside=self) as inner:
                        inner.clear(depth - 1)
                    os.rmdir(name, dir_fd=self.descriptor)

    def remove_leftovers(self) -> None:
        """Remove the files that a kill has left half written, as far as that can be done."""
        for name in filter(LEFTOVER.fullmatch, self.names()):
            with suppress(OSError):
                self.remove(name)

    def sync(self) -> None:
        """Take the names in the folder to the disk."""
        os.fsync(self.descriptor)


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
    """A file that takes the path's place when the context ends well, and else leaves nothing. Raises RunError."""
    with named(path), Folder(path.parent) as folder, folder.replacing(path.name) as file:
        yield file


def write_all(file: int, data: bytes | memoryview) -> None:
    """Write all the data, however many calls that takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def make_folders(path: Path) -> list[Path]:
    """Make a folder and those it is to be in; the ones that were made, outermost first. Raises RunError."""
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
    """Remove folders, innermost first, as far as they are empty."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()  # which never follows a link


def remove_folder(folder: Folder, path: Path) -> None:
    """Remove a folder with all that is in it, as far as it is what stands at the path and that can be done.

    No link is followed, neither at the path nor in the folder.
    """
    with suppress(OSError):
        if os.path.samestat(path.lstat(), os.fstat(folder.descriptor)):
            folder.clear()
            path.rmdir()
