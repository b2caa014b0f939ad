"""A run as its folder tells of it, for looking at: also one that is running, was killed, or is broken.

Nothing is written or held, and torch is never imported.
"""

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
from twolayer.runs.history import Figures, Reader
from twolayer.runs.lock import is_held
from twolayer.runs.run_files import CONFIG, HISTORY, INFO, MODEL, check_history, read_config, read_info

STATES = ("running", "killed", "interrupted", "completed", "diverged", "failed", "broken")
_UNFINISHED = ("running", "killed", "broken")  # run.json has no end yet


@dataclass(frozen=True)
class SavedRun:
    """What a run folder holds.

    `status` is one of STATES: "killed" where run.json says "running" and no process is there, "broken" where run.json
    cannot be read. `info` is what run.json says (of a format that is known, but its values are whatever stands there),
    `config` is None where config.yaml cannot be read. `problems` says what is wrong with the folder, a line each,
    led by the file it is about. `seal` is the checksum that the history was found to agree with, from its first row on;
    None where nothing is known of any.
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
        """A number in run.json, where it is one."""
        value = self.info.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
            return None
        return float(value)

    def text(self, key: str) -> str:
        """A text in run.json, where it is one, without what a terminal could act on."""
        value = self.info.get(key)
        return safe(value) if isinstance(value, str) else ""

    def texts(self, key: str) -> str:
        """A text in run.json, as `word`, and what it was in the run's continuations, where that was other."""
        again = self.info.get("resumed")
        all_told = [self.info, *(again if isinstance(again, list) else [])]
        words = [one.get(key) for one in all_told if isinstance(one, dict)]
        return ", then ".join(dict.fromkeys(safe(word) for word in words if isinstance(word, str)))

    @property
    def is_history_damaged(self) -> bool:
        """Whether something is wrong with the rows."""
        return any(problem.startswith(safe(f"{self.path / HISTORY}: ")) for problem in self.problems)

    @property
    def unsealed(self) -> int:
        """The rows at the end of the history whose checksum stands nowhere: since the newest checkpoint."""
        if self.status not in ("running", "killed"):
            return 0
        return len(self.history) - min(len(self.history), (self.seal.rows or 0) if self.seal is not None else 0)

    @property
    def each(self) -> float | None:
        """Seconds an iteration, or an epoch, where it is known: run.json is told at the end."""
        seconds, rows = self.seconds, self.number("iterations")  # of the whole, also where rows are gone
        return seconds / rows if seconds and rows else None

    @property
    def seconds(self) -> float | None:
        """How long the training took, where it is known: until the end, run.json has that of a checkpoint before."""
        return self.number("seconds") if self.status not in _UNFINISHED else None

    @property
    def values(self) -> dict[str, Any]:
        """The config's keys and values; those inside `data` as `data.<key>`."""
        return dict(flat(self.config)) if self.config is not None else {}


def read(path: Path, before: SavedRun | None = None) -> SavedRun:
    """The run in a folder; where it was read `before`, with only what has come since.

    Raises RunError where the folder is none of a run: it has none of a run's files.
    """
    with reading(path, RunError):
        if not any(os.path.lexists(path / name) for name in (INFO, CONFIG, HISTORY)):
            raise NotARunError(f"is not a run folder: it has no {INFO}", path=path, usage=True)
    found = _read(path, before)
    for _ in range(3):
        if not found.problems or found.status == "broken" or read_status(path)[0] == found.info:
            break
        found = _read(path, None)  # it was being written
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
            config = _config(path, digests)
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
    """What is wrong with the history, and the seal of what is known to be right."""
    try:
        return check_history(path, info, before.seal if before is not None else None)
    except OSError as error:
        return unreadable(error), None


def _other_losses(info: Mapping[str, Any], history: Reader) -> list[str]:
    """The losses in run.json, by their names, that are not those of the history."""
    figures = Figures()
    figures.add(history.columns["loss"])
    return [key for key, loss in figures.named().items() if key in info and info[key] != loss]


def read_status(path: Path) -> tuple[dict[str, Any], str]:
    """What run.json says, and the run's status. Raises RunError."""
    info = read_info(path)
    if info.get("status") == "running" and not is_held(path):
        info = read_info(path)  # it may just have come to its end
        if info.get("status") == "running":
            return info, "killed"
    status = info.get("status")
    return info, status if status in STATES else "broken"


def _config(path: Path, digests: object) -> Config:
    """The config, whose file's SHA-256 is to be one of these, where they are known. Raises RunError."""
    file = path / CONFIG
    raw = read_config(path)
    try:
        config = loading.resolve(str(file.absolute()), environment={}, read=False, raw=raw).config
    except ConfigError as error:
        raise RunError(f"is not valid: {error.problems[0].sentence}", path=file) from None
    if isinstance(digests, list) and digest(raw) not in digests:
        raise RunError("was changed after the training started", path=file)
    return config
