"""A run read back from its folder, even if it is running, was killed, or is broken. Nothing is written or locked."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twolayer.config import loading
from twolayer.config.schema import Config, flat
from twolayer.errors import ConfigError, NotARunError, RunError
from twolayer.files import reading, unreadable
from twolayer.formatting import counted, safe
from twolayer.runs.checksum import Seal, digest
from twolayer.runs.history import Reader
from twolayer.runs.lock import is_held
from twolayer.runs.run_files import CONFIG, HISTORY, INFO, MODEL, check_history, read_config, read_info

STATES = ("running", "killed", "interrupted", "completed", "diverged", "failed", "broken")
_UNFINISHED = ("running", "killed", "broken")  # run.json has no end yet


@dataclass(frozen=True)
class SavedRun:
    """The content of a run folder.

    `status` is one of STATES: "killed" where run.json says "running" but no process holds the lock, "broken" where
    run.json cannot be read. `info` is the content of run.json; its values are not validated. `config` is None where
    config.yaml cannot be read. `problems` says what is wrong with the folder: a line for each problem, led by the
    file. `seal` is the checksum that the history matches; None where there is no checksum of it.
    """

    path: Path
    status: str
    info: Mapping[str, Any]
    config: Config | None
    history: Reader
    problems: tuple[str, ...]
    seal: Seal | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name or self.path.resolve().name

    def number(self, key: str) -> float | None:
        """A number in run.json; None where the value is not a finite number."""
        value = self.info.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
            return None
        return float(value)

    def text(self, key: str) -> str:
        """A text in run.json, safe to print; empty where the value is not text."""
        value = self.info.get(key)
        return safe(value) if isinstance(value, str) else ""

    def texts(self, key: str) -> str:
        """A text in run.json, and its different values in resumed trainings: `cpu, then cuda`."""
        again = self.info.get("resumed")
        entries = [self.info, *(again if isinstance(again, list) else [])]
        texts = [entry.get(key) for entry in entries if isinstance(entry, dict)]
        return ", then ".join(dict.fromkeys(safe(text) for text in texts if isinstance(text, str)))

    @property
    def is_history_damaged(self) -> bool:
        """Whether something is wrong with the history."""
        return any(problem.startswith(safe(f"{self.path / HISTORY}: ")) for problem in self.problems)

    @property
    def unsealed(self) -> int:
        """The number of rows at the end of the history that no checksum covers: those after the newest checkpoint."""
        if self.status not in ("running", "killed"):
            return 0
        return len(self.history) - min(len(self.history), (self.seal.rows or 0) if self.seal is not None else 0)

    @property
    def updates(self) -> tuple[int, int] | None:
        """The updates that are done of the epoch after the last row, and how many it has; None between two epochs.

        Of a run that is running or was killed they are those at its newest checkpoint.
        """
        found = self.info.get("updates"), self.info.get("updates_per_epoch")
        if self.status in ("running", "killed"):
            found = (self.seal and self.seal.rows == len(self.history) and self.seal.updates) or (None, None)
        done, count = found
        if type(done) is int and type(count) is int and 0 < done < count < 2**63:
            return done, count
        return None

    @property
    def each(self) -> float | None:
        """Seconds per iteration or epoch; None before the end, when run.json does not have it."""
        seconds, rows = self.seconds, self.number("iterations")  # of the whole training, also where rows are missing
        done, count = self.updates or (0, 1)
        return seconds / (rows + done / count) if seconds and rows else None

    @property
    def seconds(self) -> float | None:
        """How long the training took; None before the end, when run.json has only the time until a checkpoint."""
        return self.number("seconds") if self.status not in _UNFINISHED else None

    @property
    def loss_kind(self) -> str:
        """What kind of loss the history has, such as `mse, sum`; empty where the config cannot be read.

        Numbers of losses of different kinds cannot be compared.
        """
        return f"{self.config.loss}, {self.config.reduction}" if self.config is not None else ""

    @property
    def values(self) -> dict[str, Any]:
        """The config's keys and values; those inside `data` as `data.<key>`."""
        return dict(flat(self.config)) if self.config is not None else {}


def read(path: Path, before: SavedRun | None = None) -> SavedRun:
    """The run in a folder; where it was read `before`, only what is new is read.

    Raises RunError where the folder has none of a run's files.
    """
    with reading(path, RunError):
        if not any(os.path.lexists(path / name) for name in (INFO, CONFIG, HISTORY)):
            raise NotARunError(f"is not a run folder: it has no {INFO}", path=path, usage=True)
    found = _read(path, before)
    for _ in range(3):
        if not found.problems or found.status == "broken" or read_status(path)[0] == found.info:
            break
        found = _read(path, None)  # the run was just being written
    return found


def _read(path: Path, before: SavedRun | None) -> SavedRun:
    problems = []
    try:
        info, status = read_status(path)
        if status == "broken":
            problems.append(f"{path / INFO}: is damaged: it has no valid status")
    except NotARunError:
        info, status = {}, "broken"
        problems.append(f"{path / INFO}: is missing")
    except RunError as error:
        info, status = {}, "broken"
        problems.append(str(error))
    config = None
    digests = info.get("config_sha256")
    if before is not None and before.config is not None and before.info.get("config_sha256") == digests:
        config = before.config
    else:
        try:
            config = load_config(path, digests)
        except RunError as error:
            problems.append(str(error))
    history = before.history if before is not None else Reader(path / HISTORY)
    history.read()
    seal = None
    if history.problem:
        problems.append(f"{path / HISTORY}: {history.problem}")
    elif status not in _UNFINISHED and isinstance(count := info.get("iterations"), int) and count != len(history):
        problems.append(f"{path / HISTORY}: has {counted(len(history), 'row')}, but {INFO} says {count}")
    else:
        problem, seal = _check_history(path, info, before)
        if problem:
            problems.append(f"{path / HISTORY}: {problem}")
        elif status not in _UNFINISHED:
            problems += [
                f"{path / INFO}: its {key} is not the one in {HISTORY}" for key in _other_losses(info, history)
            ]
    if status == "completed" and not os.path.lexists(path / MODEL):
        problems.append(f"{path / MODEL}: is missing")
    return SavedRun(path, status, info, config, history, tuple(map(safe, problems)), seal)


def _check_history(path: Path, info: Mapping[str, Any], before: SavedRun | None) -> tuple[str, Seal | None]:
    """As `run_files.check_history`, with an OSError as a message."""
    try:
        return check_history(path, info, before.seal if before is not None else None)
    except OSError as error:
        return unreadable(error), None


def _other_losses(info: Mapping[str, Any], history: Reader) -> list[str]:
    """The keys of the losses in run.json that are not those of the history."""
    return [key for key, loss in history.figures().named().items() if key in info and info[key] != loss]


def read_status(path: Path) -> tuple[dict[str, Any], str]:
    """The content of run.json, and the run's status. Raises RunError."""
    info = read_info(path)
    if info.get("status") == "running" and not is_held(path):
        info = read_info(path)  # it may just have ended
        if info.get("status") == "running":
            return info, "killed"
    status = info.get("status")
    return info, status if status in STATES else "broken"


def load_config(path: Path, digests: object) -> Config:
    """A run's config; `digests` is run.json's `config_sha256`, which must have the file's SHA-256. Raises RunError."""
    file = path / CONFIG
    raw = read_config(path)
    try:
        config = loading.resolve(str(file.absolute()), environment={}, read=False, raw=raw).config
    except ConfigError as error:
        raise RunError(f"is not valid: {error.problems[0].sentence}", path=file) from None
    if isinstance(digests, list) and digest(raw) not in digests:
        raise RunError("was changed after the training started", path=file)
    return config
