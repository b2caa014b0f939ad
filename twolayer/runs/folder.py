"""A run folder: created, opened again, written to. A file in it is whole or unchanged at any moment."""

from __future__ import annotations

import datetime
import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from twolayer.errors import RunError
from twolayer.files import (
    Folder,
    make_folders,
    named,
    remove_folder,
    remove_folders,
    temporary_name,
    write_all,
)
from twolayer.runs import checksum
from twolayer.runs.history import csv_header
from twolayer.runs.leftovers import MARKER, remove_leftovers
from twolayer.runs.lock import hold
from twolayer.runs.names import free_place, move_to_free
from twolayer.runs.run_files import (
    CHECKPOINTS,
    CONFIG,
    FORMAT,
    HISTORY,
    INFO,
    MODEL,
    check_info,
    check_writable,
    read_config,
    read_info,
)
from twolayer.system.folders import flush


class Run:
    """A run folder that this process has locked: no other process writes there until it is closed. A context manager.

    `info` is the content of `run.json`. All files are read and written through the folder's descriptor, also after the
    folder was moved. Raises RunError where the folder cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.info = path, dict[str, Any]()
        self.folder = hold(path)
        self.checkpoints: Folder | None = None
        self._history = -1
        self._size, self._hash = 0, hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock, and close the files."""
        self._close_files()
        self.folder.close()

    def _close_files(self) -> None:
        if self._history >= 0:
            os.close(self._history)
        self._history = -1
        if self.checkpoints is not None:
            self.checkpoints.close()
        self.checkpoints = None

    def discard(self) -> None:
        """Remove the folder, if it is still at its path, and close it."""
        self._close_files()
        remove_folder(self.folder, self.path)
        self.close()

    def move(self, place: Path) -> None:
        """Rename the folder. Its files are closed meanwhile: on Windows open ones keep it from that. Raises OSError."""
        had_history = self._history >= 0
        self._close_files()
        try:
            self.folder.move(place)
            self.path = place
        finally:
            if had_history:
                self._open_history(os.O_RDWR)
        if had_history and os.fstat(self._history).st_size != self._size:
            raise OSError(errno.EBUSY, f"another process has written to {HISTORY}")

    def where(self) -> Path | None:
        """The folder's current path, after a move the new one; None where it was removed, or the path is not known."""
        return self.folder.where()

    def write(self, name: str, *parts: bytes | memoryview) -> None:
        """Write a file of the folder atomically: it is whole or unchanged, also after a power cut."""
        with named(self.path / name):
            self.folder.write(name, *parts)

    def open_checkpoints(self, *, create: bool = False) -> Folder:
        """The folder of the checkpoints, created if it is missing."""
        if self.checkpoints is None:
            with named(self.path / CHECKPOINTS):
                if create or self.folder.status(CHECKPOINTS) is None:
                    self.folder.held.mkdir(CHECKPOINTS)
                self.checkpoints = Folder(Path(CHECKPOINTS), inside=self.folder)
        return self.checkpoints

    def update_info(self, **fields: Any) -> None:
        """Set fields of `run.json`."""
        info = self.info | fields
        data = checksum.seal_json(
            {"format": FORMAT} | {key: info[key] for key in info if key not in ("format", "sha256")}
        )
        self.info = info
        self.write(INFO, data)

    def open_history(self, size: int = 0, digest: str = "") -> None:
        """Open the history, and verify its first `size` bytes by their SHA-256. Nothing in it is changed."""
        path = self.path / HISTORY
        hint = f"restore it, or delete the files in {self.path / CHECKPOINTS} to begin again at iteration 1"
        with named(path):
            before = self.folder.status(HISTORY)
            if size and before is None:
                raise RunError("is missing", path=path, hint=hint)
            check_writable(before, path, in_place=True)
            if self._history < 0:
                self._open_history(os.O_RDWR | os.O_CREAT)
            check_writable(os.fstat(self._history), path, in_place=True)
            self._size, self._hash = 0, hashlib.sha256()
            os.lseek(self._history, 0, os.SEEK_SET)
            while self._size < size and (part := os.read(self._history, min(2**20, size - self._size))):
                self._hash.update(part)
                self._size += len(part)
            if digest and self._hash.hexdigest() != digest:
                raise RunError("does not have the checksum that the checkpoint has for it", path=path, hint=hint)

    def _open_history(self, flags: int) -> None:
        self._history = self.folder.descriptor(HISTORY, flags | os.O_APPEND)

    def start_history(self, columns: Sequence[str]) -> None:
        """Cut the history back to the bytes that `open_history` verified; where there are none, write its header."""
        if self._history < 0:
            self.open_history()
        with named(self.path / HISTORY):
            os.ftruncate(self._history, self._size)
        if not self._size:
            self.append(csv_header(columns))

    def append(self, text: str) -> None:
        """Add rows to the history."""
        data = text.encode()
        with named(self.path / HISTORY):
            write_all(self._history, data)
        self._size += len(data)
        self._hash.update(data)

    def position(self) -> tuple[int, str]:
        """Flush the history to the disk; its size in bytes and their SHA-256, for `start_history`."""
        with named(self.path / HISTORY):
            flush(self._history)
        return self._size, self._hash.hexdigest()


@contextmanager
def create(out: Path | None, name: str, *, clean: bool = True) -> Iterator[Run]:
    """A new run folder, to be filled inside the context: `out`, or `runs/<name>-<n>` with the first free number.

    It is filled under a temporary name and renamed when the context ends without an error; it stays locked then. After
    an error nothing is left. Raises RunError where the place is taken, or the folder cannot be created. With `clean`,
    what killed processes have left beside it is removed, for which all names there are read.
    """
    place = free_place(out, name)
    made = make_folders(place.parent)
    if clean:
        remove_leftovers(place.parent)
    unfinished = place.parent / temporary_name()
    run = None
    try:
        with named(place):
            unfinished.mkdir()
            try:
                run = Run(unfinished)
            except BaseException:
                unfinished.rmdir()
                raise
            marker = run.folder.create(MARKER)
            try:
                write_all(marker, unfinished.name.encode())
            finally:
                os.close(marker)
        run.open_checkpoints(create=True)
        yield run
        while not _moved(run, place):
            place = free_place(out, name)  # another process was faster
        with named(place):
            run.folder.remove(MARKER)
            with Folder(place.parent) as parent:
                parent.sync()
    except BaseException as error:
        if run is not None:
            run.discard()
        remove_folders(made)
        if isinstance(error, RunError) and error.path is not None and error.path.is_relative_to(unfinished):
            path = place / error.path.relative_to(unfinished)  # the user knows the folder by this name
            raise RunError(error.reason, path=path, hint=error.hint, usage=error.usage) from None
        raise


def _moved(run: Run, place: Path) -> bool:
    """Move a folder to its place, unless something is there; whether it was moved."""
    with named(place):
        return move_to_free(run.move, place)


def open_for_resume(path: Path) -> Run:
    """An existing run folder, locked, to resume its training. Raises RunError where that is not possible."""
    read_info(path)  # raises where it is not a run folder
    run = Run(path)
    try:
        run.info = check_info(read_info(path, run.folder), path / INFO)  # again, now that no other process writes there
        for name in (INFO, CONFIG, HISTORY, MODEL):
            check_writable(run.folder.status(name), path / name, in_place=name == HISTORY)
        checkpoints = run.open_checkpoints()
        with named(path / CHECKPOINTS):
            for name in checkpoints.names():
                if name.endswith(".safetensors"):  # else the checkpoint of that name could never be written
                    check_writable(checkpoints.status(name), path / CHECKPOINTS / name)
        if checksum.digest(read_config(path, run.folder)) not in run.info["config_sha256"]:
            raise RunError("was changed; a run can only be resumed with the config it started with", path=path / CONFIG)
        for folder in (run.folder, checkpoints):
            folder.remove_leftovers()
        with suppress(OSError):
            run.folder.remove(MARKER)  # left by a kill just before `create` would have removed it
        if run.info["format"] == 1 and run.folder.status(MODEL) is not None:
            with named(path / MODEL), suppress(ValueError), run.folder.open(MODEL) as file:
                checksum.header(file)  # raises where the file is not as long as its header says
                file.seek(0)
                run.info["model_sha256"] = hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
    except BaseException:
        run.close()
        raise
    return run


def now() -> str:
    """The time, as `run.json` has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def check_note(text: str) -> None:
    """Raise RunError for a note that is not one printable line of at most 1000 characters."""
    if len(text) > 1000 or not text.isprintable():
        raise RunError("--note: must be a line of at most 1000 printable characters", usage=True)
