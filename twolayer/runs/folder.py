"""The run folder: its place, and writes that are whole or not there at all."""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import math
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from twolayer.errors import RunError
from twolayer.files import (
    LEFTOVER,
    Folder,
    make_folders,
    named,
    open_regular,
    reading,
    remove_folder,
    remove_folders,
    temporary_name,
    unreadable,
    write_all,
)
from twolayer.runs import checksum
from twolayer.runs.history import csv_header
from twolayer.runs.lock import hold, lock
from twolayer.tables.options import TABLES

FORMAT = 2  # of the folder; a newer one is refused. In 1, which twolayer 0.1.0 wrote, run.json is without checksums
RUNS = Path("runs")
INFO, CONFIG, HISTORY, MODEL, CHECKPOINTS = (
    "run.json",
    "config.yaml",
    "history.csv",
    "model.safetensors",
    "checkpoints",
)
SUFFIX = re.compile(f"({'|'.join(map(re.escape, ('.yaml', '.yml', *TABLES)))})$", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
MARKER = ".twolayer"  # in a folder that is being made: its name, by which the sweep knows that it may be removed
SWEPT_AFTER = 60  # seconds
MAX_INFO, MAX_CONFIG = 64 * 2**20, 2**20  # bytes of run.json and config.yaml; more is none of ours


class Run:
    """A run folder that this process holds: nobody else writes there until it is closed. A context manager.

    `info` is what `run.json` says. All is read and written through the folder itself: where it is moved, that goes
    along. Raises RunError wherever the folder cannot be read or written.
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
        if self._history >= 0:
            os.close(self._history)
        self._history = -1
        if self.checkpoints is not None:
            self.checkpoints.close()
        self.folder.close()

    def where(self) -> Path:
        """Where the folder is: its path, or where it was moved to, as far as the system says that."""
        if not self.folder.is_at(self.path):
            with suppress(OSError):  # Linux
                now = Path(f"/proc/self/fd/{self.folder.descriptor}").readlink()
                if self.folder.is_at(now):
                    return now
        return self.path

    def write(self, name: str, *parts: bytes | memoryview) -> None:
        """Write a file of the folder so that it is there whole or as it was before, also after a power cut."""
        with named(self.path / name):
            self.folder.write(name, *parts)

    def open_checkpoints(self, *, create: bool = False) -> Folder:
        """The folder of the checkpoints, which is made where it is missing."""
        if self.checkpoints is None:
            with named(self.path / CHECKPOINTS):
                if create or self.folder.status(CHECKPOINTS) is None:
                    os.mkdir(CHECKPOINTS, dir_fd=self.folder.descriptor)
                self.checkpoints = Folder(Path(CHECKPOINTS), inside=self.folder)
        return self.checkpoints

    def update_info(self, **fields: Any) -> None:
        """Change what `run.json` says."""
        info = self.info | fields
        data = checksum.seal_json(
            {"format": FORMAT} | {key: info[key] for key in info if key not in ("format", "sha256")}
        )
        self.info = info
        self.write(INFO, data)

    def start_history(self, columns: Sequence[str], size: int = 0, digest: str = "") -> None:
        """Open the history for appending, cut back to the first `size` bytes, whose SHA-256 is `digest`."""
        path = self.path / HISTORY
        with named(path):
            before = self.folder.status(HISTORY)
            if size and before is None:
                raise RunError(f"{path}: is missing; {_anew(self.path)}")
            _check_own(before, path)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._history = os.open(HISTORY, flags, 0o666, dir_fd=self.folder.descriptor)
            _check_own(os.fstat(self._history), path)
            self._size, self._hash = 0, hashlib.sha256()
            while self._size < size and (part := os.pread(self._history, min(2**20, size - self._size), self._size)):
                self._hash.update(part)
                self._size += len(part)
            if digest and self._hash.hexdigest() != digest:
                raise RunError(f"{path}: is not what the checkpoint has seen; {_anew(self.path)}")
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
        """Take the history to the disk; its bytes and their SHA-256, for `start_history`."""
        with named(self.path / HISTORY):
            os.fsync(self._history)
        return self._size, self._hash.hexdigest()


def _check_own(status: os.stat_result | None, path: Path) -> None:
    """Raise RunError where writing into what is there would change something else, or could wait without end."""
    if status is None:
        return
    if stat.S_ISLNK(status.st_mode):
        raise RunError(f"{path}: is a link; nothing is written through links")
    if not stat.S_ISREG(status.st_mode):
        raise RunError(f"{path}: is {'a folder' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}; remove it")
    if status.st_nlink > 1:
        raise RunError(f"{path}: has another name elsewhere (a hard link), which would be written, too; copy the file")


@contextmanager
def create(out: Path | None, name: str) -> Iterator[Run]:
    """A new run folder, to be filled inside: `out`, or `runs/<name>-<n>` with the first number that is free.

    It comes to its place, whole, when the context ends well, and is still held then; otherwise nothing is left. Raises
    RunError where there is something already, or the folder cannot be made.
    """
    place = _place(out, name)
    made = make_folders(place.parent)
    _sweep(place.parent)
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
            place = _place(out, name)  # another process was faster
        with named(place):
            run.folder.remove(MARKER)
            with Folder(place.parent) as parent:
                parent.sync()
    except BaseException as error:
        if run is not None:
            remove_folder(run.folder, run.path)
            run.close()
        remove_folders(made)
        if isinstance(error, RunError):
            raise RunError(str(error).replace(str(unfinished), str(place)), usage=error.exit_code == 2) from None
        raise


def _anew(path: Path) -> str:
    return f"put it back as it was, or delete what is in {path / CHECKPOINTS} to begin again at iteration 1"


def _place(out: Path | None, name: str) -> Path:
    """Where a new run folder comes to be. Raises RunError where something is there."""
    if out is None:
        numbers = [0]
        with suppress(OSError):
            found = (re.fullmatch(re.escape(name) + r"-([1-9][0-9]{0,8})", entry.name) for entry in RUNS.iterdir())
            numbers += [int(match[1]) for match in found if match]
        return RUNS / f"{name}-{max(numbers) + 1}"
    check_free(out)
    return out


def check_free(out: Path) -> None:
    """Raise RunError where something is in the place of a new run folder."""
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # a name too long, a NUL
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{str(out)!r}: {reason}", usage=True) from None
    hint = f"go on with it by --resume {out}, or " if (out / INFO).exists() else ""
    raise RunError(f"{out}: is there already; {hint}take another folder", usage=True)


def _moved(run: Run, place: Path) -> bool:
    """Bring a folder to its place, unless something is there; whether that was so."""
    with named(place):
        try:
            if not os.path.lexists(place):
                run.path = run.folder.path = run.path.rename(place)
                if run.checkpoints is not None:
                    run.checkpoints.path = place / CHECKPOINTS
                return True
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
    return False


def _sweep(place: Path) -> None:
    """Remove what a kill has left in the making: folders of ours, held by nobody, and not just begun."""
    with suppress(OSError), Folder(place) as parent:
        for name in filter(LEFTOVER.fullmatch, parent.names()):
            with suppress(OSError), Folder(Path(name), inside=parent) as left:
                status = os.fstat(left.descriptor)
                is_old = time.time() - status.st_mtime > SWEPT_AFTER
                if is_old and status.st_uid == os.getuid() and lock(left.descriptor) and _is_marked(left, name):
                    left.clear()
                    os.rmdir(name, dir_fd=parent.descriptor)


def _is_marked(folder: Folder, name: str) -> bool:
    """Whether a folder was made by `making` under that name, or a kill came before its marker was whole."""
    found = folder.names()
    return not found or (MARKER in found and name.encode().startswith(folder.read(MARKER, limit=len(name))))


def open_for_resume(path: Path) -> Run:
    """A run folder that is there, to go on with. Raises RunError where it is none, or another process holds it."""
    read_info(path)  # or it is no run folder
    run = Run(path)
    try:
        run.info = _checked(read_info(path, run.folder), path / INFO)  # now nobody else writes there
        for name in (INFO, CONFIG, HISTORY, MODEL):
            _check_own(run.folder.status(name), path / name)
        checkpoints = run.open_checkpoints()
        with named(path / CHECKPOINTS):
            for name in checkpoints.names():
                if name.endswith(".safetensors"):  # or the checkpoint of that name could never be written
                    _check_own(checkpoints.status(name), path / CHECKPOINTS / name)
        if checksum.digest(read_config(path, run.folder)) not in run.info["config_sha256"]:
            raise RunError(f"{path / CONFIG}: was changed since; a run goes on as it began, or not at all")
        for folder in (run.folder, checkpoints):
            folder.remove_leftovers()
        with suppress(OSError):
            run.folder.remove(MARKER)  # a kill came just before
        if run.info["format"] == 1 and run.folder.status(MODEL) is not None:
            with named(path / MODEL):
                run.info["model_sha256"] = checksum.digest(run.folder.read(MODEL))
    except BaseException:
        run.close()
        raise
    return run


def find(text: str) -> Path:
    """The run folder that a user names: a path, or the name of a folder in `runs`."""
    try:
        named = RUNS / text
        if NAME.fullmatch(text) and not Path(text).is_dir() and named.is_dir():
            check_inside(named, RUNS)
            return named
        given = Path(text)
        if given.is_symlink() and given.parent.resolve() == RUNS.resolve():
            check_inside(given, RUNS)
        if text and given.is_dir():
            return given
    except (OSError, ValueError) as error:
        raise RunError(f"{text!r}: {getattr(error, 'strerror', None) or error}", usage=True) from None
    raise RunError(f"{text or repr(text)}: no such run folder; `twolayer runs` lists those there are", usage=True)


def check_inside(path: Path, folder: Path) -> None:
    """Raise RunError where a run in a folder of runs is a link to somewhere else. Raises OSError."""
    if path != folder and path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise RunError(f"{path}: is a link out of {folder}", usage=True)


def read_info(path: Path, folder: Folder | None = None) -> dict[str, Any]:
    """What `run.json` says; with `folder`, in that open folder. Raises RunError where it is missing or damaged."""
    file = path / INFO
    try:
        with open_regular(file, MAX_INFO) if folder is None else folder.open(INFO, MAX_INFO) as opened:
            data = opened.read()
        info = json.loads(data)
    except FileNotFoundError:
        raise RunError(f"{path}: is no run folder; it has no {INFO}", usage=True) from None
    except OSError as error:
        raise RunError(f"{file}: {unreadable(error)}") from None
    except (ValueError, RecursionError):
        raise RunError(f"{file}: is damaged; it is no JSON") from None
    if not isinstance(info, dict) or not isinstance(info.get("format"), int):
        raise RunError(f"{file}: is damaged; it does not say its format")
    if info["format"] > FORMAT:
        raise RunError(f"{file}: is of format {info['format']}, and this twolayer knows {FORMAT}; take a newer one")
    if (info["format"] > 1 or "sha256" in info) and not checksum.is_sealed(data, info):
        raise RunError(f"{file}: is damaged, or was edited: its checksum is another")
    info.pop("sha256", None)
    return info


def _checked(info: dict[str, Any], file: Path) -> dict[str, Any]:
    """The same, known to hold what a continuation reads of it. Raises RunError."""
    digests, seconds, epochs = info.get("config_sha256"), info.get("seconds", 0.0), info.get("epochs", 0)
    whats = {
        "config_sha256": isinstance(digests, list) and all(isinstance(digest, str) for digest in digests),
        "seconds": isinstance(seconds, (int, float)) and seconds is not True and math.isfinite(seconds),
        "epochs": isinstance(epochs, int) and epochs is not True,
    }
    if wrong := [key for key, is_well in whats.items() if not is_well]:
        raise RunError(f"{file}: is damaged: its {' and '.join(wrong)} cannot be understood")
    return info


def read_config(path: Path, folder: Folder | None = None) -> bytes:
    """The run's config.yaml; with `folder`, in that open folder. Raises RunError where it cannot be read."""
    file = path / CONFIG
    with reading(file, RunError):
        try:
            with open_regular(file, MAX_CONFIG) if folder is None else folder.open(CONFIG, MAX_CONFIG) as opened:
                return opened.read()
        except FileNotFoundError:
            raise RunError(f"{file}: is missing") from None


def check_history(
    path: Path, info: Mapping[str, Any], known: checksum.Seal | None = None
) -> tuple[str, checksum.Seal | None]:
    """What is wrong with the history of a run, and the seal of what is right; None where nothing is known of any row.

    A run that has ended has the checksum in `run.json`, else the newest checkpoint that verifies has one of the rows up
    to it. The file is not read for a seal that is `known` to be right. Raises OSError.
    """
    size, digest = info.get("history_bytes"), info.get("history_sha256")
    with open_regular(path / HISTORY) as file:
        there = os.fstat(file.fileno()).st_size
        if info.get("status") != "running" and isinstance(size, int) and isinstance(digest, str):
            seal = checksum.Seal(size, digest)
            if there == size and (seal == known or seal.fits(file)):
                return "", seal
            return f"is damaged: its checksum is not the one in {INFO}", None
        with suppress(OSError), Folder(path) as folder, Folder(Path(CHECKPOINTS), inside=folder) as checkpoints:
            for name, seal in checksum.seals(checkpoints):
                if seal == known or seal.fits(file):
                    return "", seal
                if checksum.is_whole(checkpoints, name):
                    return f"is damaged in its first {seal.rows} rows: their checksum is not the checkpoint's", None
    return "", None


def check_files(path: Path) -> dict[str, Any]:
    """What `run.json` says of a run whose config and history, where they are there, are the run's own.

    Raises RunError.
    """
    info = read_info(path)
    digests = info.get("config_sha256")
    if (path / CONFIG).exists() and isinstance(digests, list) and checksum.digest(read_config(path)) not in digests:
        raise RunError(f"{path / CONFIG}: is not the config of this run, or was changed")
    try:
        problem, _ = check_history(path, info)
    except FileNotFoundError:
        problem = ""
    except OSError as error:
        problem = unreadable(error)
    if problem:
        raise RunError(f"{path / HISTORY}: {problem}")
    return info


def now() -> str:
    """The time, as `run.json` has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def safe_name(text: str) -> str:
    """A config's name, or its file's, as the name of a folder."""
    stem = SUFFIX.sub("", text.replace("\\", "/").rstrip("/").rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9_.]+", "-", stem).strip("-.")[:60] or "run"


def check_note(text: str) -> None:
    """Raise RunError for a note that is no line of text."""
    if len(text) > 1000 or not text.isprintable():
        raise RunError("--note: must be a line of at most 1000 printable characters", usage=True)


@dataclass(frozen=True)
class CheckpointInterval:
    """How often a checkpoint is written: every so many iterations, or else seconds."""

    text: str
    iterations: int = 0
    seconds: float = math.inf


def every(text: str) -> CheckpointInterval:
    """Read `500` as iterations and `30s` as seconds. Raises RunError for anything else."""
    if match := re.fullmatch(r"([0-9]{1,18})(s?)|([0-9]{1,9}\.[0-9]{1,9})s", text):
        if match[1] and not match[2] and int(match[1]):
            return CheckpointInterval(text, iterations=int(match[1]))
        if not match[1] or match[2]:
            return CheckpointInterval(text, seconds=float(match[1] or match[3]))
    raise RunError(f"--checkpoint-every: must be iterations (500) or seconds (30s), not {text!r}", usage=True)
