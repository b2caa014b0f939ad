"""Files and folders that are there whole or not at all, and errors that name them. Never imports torch."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from twolayer.errors import RunError

TEMPORARY = ".part"

# The files that are tables, by the ends of their names.
TABLES = (
    *(".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz"),
    *(".parquet", ".arrow", ".feather", ".ipc", ".ndjson", ".jsonl", ".npy", ".npz", ".safetensors"),
)


def regular(path: Path) -> Path:
    """The path, unless what is there could be waited for, or be read, without end: a pipe, a device. Raises OSError."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is no regular file")
    return path


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Tell an OSError with the path it is about."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file by a sibling that takes its place, so that it is never there in part. Raises RunError."""
    with named(path), _replacing(path, path.with_name(path.name + TEMPORARY), os.O_TRUNC) as file:
        for part in parts:
            write_all(file, part)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the path's place when the context ends well, and else leaves nothing. Raises RunError."""
    temporary = path.with_name(f".twolayer-{secrets.token_hex(8)}{TEMPORARY}")
    with (
        named(path),
        _replacing(path, temporary, os.O_EXCL) as descriptor,
        open(descriptor, "wb", closefd=False) as file,
    ):
        yield file


@contextmanager
def _replacing(path: Path, temporary: Path, flag: int) -> Iterator[int]:
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | flag | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            yield file
            os.fsync(file)
        finally:
            os.close(file)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_all(file: int, data: bytes | memoryview) -> None:
    """Write all the data, however many calls that takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def sync_folder(path: Path) -> None:
    """Take the names in a folder to the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
                    sync_folder(folder.parent)
        if not (missing[-1] if missing else path).is_dir():
            raise RunError(f"{path}: is no folder", usage=True)
    except BaseException:
        remove_folders(made)
        raise
    return made


def remove_folders(made: list[Path]) -> None:
    """Remove folders, innermost first, as far as they are empty."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


def remove_all(path: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done: without opening files, which may fail."""
    with suppress(OSError):
        for inner in sorted(path.rglob("*"), reverse=True):
            inner.rmdir() if inner.is_dir() and not inner.is_symlink() else inner.unlink()
        path.rmdir()
