"""The runs in a folder, a row for each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twolayer.config.schema import Config
from twolayer.errors import RunError
from twolayer.files import unreadable
from twolayer.runs.history import Reader
from twolayer.runs.names import RUNS
from twolayer.runs.run_files import (
    CHECKPOINTS,
    CONFIG,
    HISTORY,
    INFO,
    MODEL,
    SWEEP,
    check_history,
    check_inside,
    is_file,
)
from twolayer.runs.saved_run import load_config, read_status
from twolayer.tables.options import FileData

# The names of a row's values, in the order of its fields.
COLUMNS = (
    *("run", "status", "config", "shape", "engine", "lr", "seed", "iterations"),
    *("first loss", "best loss", "last loss", "seconds", "device", "note"),
    *("target", "loss", "val_loss"),
)


@dataclass(frozen=True)
class RunRow:
    """What a list says of a run; a value that run.json and config.yaml do not have is None, or empty text.

    `target` holds the target columns of a table, `loss` the kind of the losses; `val_loss` is that of the weights that
    are kept, or else the last one in the history.
    """

    run: str
    status: str
    config: Any  # from here to `engine`, and `lr` to `note`, what run.json has
    shape: Any
    engine: Any
    lr: Any
    seed: Any
    iterations: Any
    first_loss: Any
    best_loss: Any
    last_loss: Any
    seconds: Any
    device: Any
    note: Any
    target: str
    loss: str
    val_loss: float | None

    def values(self) -> tuple[Any, ...]:
        """The values, in the order of COLUMNS."""
        return tuple(vars(self).values())


def list_runs(folder: Path, more: Iterable[tuple[str, RunRow]] = ()) -> tuple[list[RunRow], list[str]]:
    """The runs in a folder, newest first; and what is wrong with them, a line for each problem. Raises RunError.

    `more` are rows of sweeps, each with its time of start, that stand among them.
    """
    try:
        entries = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        paths = [path for path in entries if not is_file(path / SWEEP)]
        if (folder / INFO).is_file():  # the folder is a run itself
            paths = [folder]
    except FileNotFoundError:
        if folder == RUNS:
            return [], [f"no runs here: there is no folder {RUNS}"]
        raise RunError("no such folder", path=folder, usage=True) from None
    except OSError as error:
        raise RunError(unreadable(error), path=folder) from None
    found: list[tuple[str, RunRow]] = [*more]
    problems: set[str] = set()
    for path in sorted(paths, key=_natural, reverse=True):
        try:
            check_inside(path, folder)
            info, status = read_status(path)
            found.append((str(info.get("started", "")), _row(path, info, status, problems)))
            missing = [part for part in _parts(info) if not (path / part).exists()]
            problems |= {f"{path / part}: is missing" for part in missing}
            actual = (path / HISTORY).lstat().st_size if HISTORY not in missing else None
            if actual is not None and (size := info.get("history_bytes", actual)) != actual:
                problems.add(f"{path / HISTORY}: is damaged: it has {actual} bytes, but {INFO} says {size}")
        except RunError as error:
            problems.add(str(error))
        except OSError as error:
            problems.add(f"{path / HISTORY}: {unreadable(error)}")
    return newest_first(found), sorted(problems)


def newest_first(rows: Iterable[tuple[str, RunRow]]) -> list[RunRow]:
    """Rows, each with its time of start, by that time."""
    return [row for _, row in sorted(rows, key=lambda item: item[0], reverse=True)]


def _natural(path: Path) -> list[tuple[int, str]]:
    """A sort key for which run-10 comes after run-9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]


def _parts(info: dict[str, Any]) -> list[str]:
    """The files that a run with this `run.json` must have."""
    return [CONFIG, HISTORY, CHECKPOINTS, *([MODEL] if info.get("status") == "completed" else [])]


def _row(path: Path, info: dict[str, Any], status: str, problems: set[str]) -> RunRow:
    """The row of a run; a config that cannot be read is added to `problems`. Raises RunError and OSError."""
    config: Config | None = None
    try:
        config = load_config(path, info.get("config_sha256"))
    except RunError as error:
        problems.add(str(error))
    losses = {key: info.get(key) for key in ("iterations", "first_loss", "best_loss", "last_loss")}
    val_loss = info.get("final_val_loss")
    if status in ("running", "killed"):  # run.json has no losses yet
        problem, _ = check_history(path, info)
        history = Reader(path / HISTORY)
        history.read()
        if problem or history.problem:
            raise RunError(problem or history.problem, path=path / HISTORY)
        figures = history.figures()
        losses = {"iterations": figures.count, **figures.named()}
        val_loss = next((loss for loss in reversed(history.columns.get("val_loss", ())) if math.isfinite(loss)), None)
    resumed = info.get("resumed")
    latest = resumed[-1] if isinstance(resumed, list) and resumed and isinstance(resumed[-1], dict) else {}
    return RunRow(
        run=path.name or str(path),
        status=status,
        config=info.get("config"),
        shape=info.get("shape"),
        engine=info.get("engine"),
        lr=info.get("lr"),
        seed=info.get("seed"),
        **losses,
        seconds=info.get("seconds"),
        device=latest.get("device", info.get("device")),
        note=info.get("note", ""),
        target=", ".join(config.data.target) if config is not None and isinstance(config.data, FileData) else "",
        loss=f"{config.loss}, {config.reduction}" if config is not None else "",
        val_loss=val_loss if isinstance(val_loss, float) else None,
    )
