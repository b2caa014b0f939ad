"""The run folder: its place, its lock, and writes that are whole or not there at all. Never imports torch."""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import math
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from twolayer.errors import RunError
from twolayer.files import (
    TABLES,
    TEMPORARY,
    make_folders,
    named,
    regular,
    remove_all,
    remove_folders,
    sync_folder,
    write_all,
    write_whole,
)
from twolayer.history import csv_header

FORMAT = 1  # of the folder; a newer one is refused
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
UNFINISHED = re.compile(r"\.twolayer-[0-9a-f]{16}\.part")  # a folder of that name is in the making


class Run:
    """A run folder that this process holds: nobody else writes there until it is closed. A context manager.

    `info` is what `run.json` says. Raises RunError wherever the folder cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.info = path, dict[str, Any]()
        self._folder = _hold(path)
        self._history = -1
        self._size, self._hash = 0, hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go."""
        for descriptor in (self._history, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._history = self._folder = -1

    def write(self, name: str, *parts: bytes | memoryview) -> None:
        """Write a file of the folder so that it is there whole or as it was before, also after a power cut."""
        write_whole(self.path / name, *parts)

    def note(self, **fields: Any) -> None:
        """Change what `run.json` says."""
        info = self.info | fields
        text = json.dumps({"format": FORMAT} | info, indent=2, allow_nan=False)
        self.info = info
        self.write(INFO, text.encode() + b"\n")

    def start_history(self, columns: Sequence[str], size: int = 0, digest: str = "") -> None:
        """Open the history for appending, cut back to the first `size` bytes, whose SHA-256 is `digest`."""
        path = self.path / HISTORY
        if size and not path.exists():
            raise RunError(f"{path}: is gone; {_anew(self.path)}")
        with named(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._history = os.open(path, flags, 0o666)
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

    def mark(self) -> tuple[int, str]:
        """Take the history to the disk; its bytes and their SHA-256, for `start_history`."""
        with named(self.path / HISTORY):
            os.fsync(self._history)
        return self._size, self._hash.hexdigest()


@contextmanager
def making(out: Path | None, name: str) -> Iterator[Run]:
    """A new run folder, to be filled inside: `out`, or `runs/<name>-<n>` with the first number that is free.

    It comes to its place, whole, when the context ends well, and is still held then; otherwise nothing is left. Raises
    RunError where there is something already, or the folder cannot be made.
    """
    place = _place(out, name)
    made = make_folders(place.parent)
    _sweep(place.parent)
    unfinished = place.parent / f".twolayer-{secrets.token_hex(8)}{TEMPORARY}"
    run = None
    try:
        with named(place):
            unfinished.mkdir()
            (unfinished / CHECKPOINTS).mkdir()
        run = Run(unfinished)
        yield run
        while not _moved(run, place):
            place = _place(out, name)  # another process was faster
        with named(place):
            sync_folder(place.parent)
    except BaseException as error:
        if run is not None:
            run.close()
        remove_all(run.path if run is not None else unfinished)
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
                run.path = run.path.rename(place)
                return True
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
    return False


def _sweep(folder: Path) -> None:
    """Remove what a kill has left in the making: held by nobody, and not just begun."""
    with suppress(OSError):
        for left in folder.iterdir():
            if UNFINISHED.fullmatch(left.name) and time.time() - left.stat().st_mtime > 60 and not is_held(left):
                remove_all(left)


def claim(path: Path) -> Run:
    """A run folder that is there, to go on with. Raises RunError where it is none, or another process holds it."""
    for part in (path / CHECKPOINTS, path / HISTORY, path / INFO, path / CONFIG):
        if part.is_symlink():
            raise RunError(f"{part}: is a link; nothing is written through links")
    read_info(path)  # or it is no run folder
    run = Run(path)
    try:
        run.info = read_info(path)  # now nobody else writes there
        config = (path / CONFIG).read_bytes()
        with named(path / CHECKPOINTS):
            (path / CHECKPOINTS).mkdir(exist_ok=True)
    except OSError as error:
        run.close()
        raise RunError(f"{path / CONFIG}: cannot be read: {error.strerror or error}; the run cannot go on") from None
    if hashlib.sha256(config).hexdigest() not in run.info.get("config_sha256", []):
        run.close()
        raise RunError(f"{path / CONFIG}: was changed since; a run goes on as it began, or not at all")
    for left in [*path.glob("*" + TEMPORARY), *(path / CHECKPOINTS).glob("*" + TEMPORARY)]:  # by a kill
        with suppress(OSError):
            left.unlink()
    return run


def find(text: str) -> Path:
    """The run folder that a user names: a path, or the name of a folder in `runs`."""
    try:
        named = RUNS / text
        if NAME.fullmatch(text) and not Path(text).is_dir() and named.is_dir():
            if named.is_symlink() and not named.resolve().is_relative_to(RUNS.resolve()):
                raise RunError(f"{named}: is a link out of {RUNS}", usage=True)
            return named
        given = Path(text)
        if given.is_symlink() and given.parent.resolve() == RUNS.resolve() != given.resolve().parent:
            raise RunError(f"{given}: is a link out of {RUNS}", usage=True)
        if text and given.is_dir():
            return given
    except (OSError, ValueError) as error:
        raise RunError(f"{text!r}: {getattr(error, 'strerror', None) or error}", usage=True) from None
    raise RunError(f"{text or repr(text)}: no such run folder; `twolayer runs` lists those there are", usage=True)


def read_info(path: Path) -> dict[str, Any]:
    """What `run.json` says. Raises RunError where it is not to be had, or not understood."""
    file = path / INFO
    try:
        info = json.loads(regular(file).read_text())
    except FileNotFoundError:
        raise RunError(f"{path}: is no run folder; it has no {INFO}", usage=True) from None
    except OSError as error:
        raise RunError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise RunError(f"{file}: is damaged; it is no JSON") from None
    if not isinstance(info, dict) or not isinstance(info.get("format"), int):
        raise RunError(f"{file}: is damaged; it does not say its format")
    if info["format"] > FORMAT:
        raise RunError(f"{file}: is of format {info['format']}, and this twolayer knows {FORMAT}; take a newer one")
    return info


def is_held(path: Path) -> bool:
    """Whether a process is at work in the folder."""
    with named(path):
        folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not _lock(folder, shared=True)
    finally:
        os.close(folder)


def _hold(path: Path) -> int:
    """Lock the folder itself: the lock goes with the process, however that ends, and leaves no file."""
    with named(path):
        folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    for _ in range(5):  # `twolayer runs` may be looking, for an instant
        if _lock(folder):
            return folder
        time.sleep(0.02)
    os.close(folder)
    raise RunError(f"{path}: another process is at work there", usage=True)


def _lock(folder: int, *, shared: bool = False) -> bool:
    """Lock a folder, unless another process has; whether that was so."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(folder, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    return True


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
class Every:
    """How often a checkpoint is written: every so many iterations, or else seconds."""

    text: str
    iterations: int = 0
    seconds: float = math.inf


def every(text: str) -> Every:
    """Read `500` as iterations and `30s` as seconds. Raises RunError for anything else."""
    if match := re.fullmatch(r"([0-9]{1,18})(s?)|([0-9]{1,9}\.[0-9]{1,9})s", text):
        if match[1] and not match[2] and int(match[1]):
            return Every(text, iterations=int(match[1]))
        if not match[1] or match[2]:
            return Every(text, seconds=float(match[1] or match[3]))
    raise RunError(f"--checkpoint-every: must be iterations (500) or seconds (30s), not {text!r}", usage=True)
