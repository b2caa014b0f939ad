"""The runs in a folder, as rows. Reads run folders only, and never imports torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twolayer.errors import RunError
from twolayer.files import open_regular, unreadable
from twolayer.runs.folder import RUNS
from twolayer.runs.history import scan
from twolayer.runs.run_files import CHECKPOINTS, CONFIG, HISTORY, INFO, MODEL, check_history, check_inside
from twolayer.runs.saved_run import read_status

COLUMNS = (
    *("run", "status", "config", "shape", "engine", "lr", "seed", "iterations"),
    *("first loss", "best loss", "last loss", "seconds", "device", "note"),
)


def listed(folder: Path) -> tuple[list[tuple[Any, ...]], list[str]]:
    """The runs in a folder, newest first, with COLUMNS; and what is wrong with those that are broken."""
    try:
        paths = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        if (folder / INFO).is_file():  # a run itself
            paths = [folder]
    except FileNotFoundError:
        if folder == RUNS:
            return [], [f"no runs here: there is no folder {RUNS}"]
        raise RunError("no such folder", path=folder, usage=True) from None
    except OSError as error:
        raise RunError(unreadable(error), path=folder) from None
    found: list[tuple[str, tuple[Any, ...]]] = []
    broken = []
    for path in sorted(paths, key=_natural, reverse=True):
        try:
            check_inside(path, folder)
            info, status = read_status(path)
            found.append((str(info.get("started", "")), (path.name or str(path), *_brief(path, info, status))))
            gone = [part for part in _parts(info) if not (path / part).exists()]
            broken += [f"{path / part}: is missing" for part in gone]
            if HISTORY not in gone and (size := info.get("history_bytes", there := _size(path / HISTORY))) != there:
                broken.append(f"{path / HISTORY}: is damaged: it has {there} bytes, but {INFO} says {size}")
        except RunError as error:
            broken.append(str(error))
        except OSError as error:
            broken.append(f"{path / HISTORY}: {unreadable(error)}")
        except (ValueError, IndexError):
            broken.append(f"{path / HISTORY}: is damaged: it is not a table of losses")
    return [row for _, row in sorted(found, key=lambda item: item[0], reverse=True)], sorted(broken)


def _size(path: Path) -> int:
    return path.lstat().st_size


def _natural(path: Path) -> list[tuple[int, str]]:
    """An order in which run-10 comes after run-9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]


def _parts(info: dict[str, Any]) -> list[str]:
    """What the folder of a run with such a `run.json` is to hold."""
    return [CONFIG, HISTORY, CHECKPOINTS, *([MODEL] if info.get("status") == "completed" else [])]


def _brief(path: Path, info: dict[str, Any], status: str) -> tuple[Any, ...]:
    losses = {key: info.get(key) for key in ("iterations", "first_loss", "best_loss", "last_loss")}
    if status in ("running", "killed"):  # run.json has not been told
        problem, _ = check_history(path, info)
        if problem:
            raise RunError(problem, path=path / HISTORY)
        with open_regular(path / HISTORY) as file:
            figures = scan(file)
        losses = {"iterations": figures.count, **figures.named()}
    named = [info.get(key) for key in ("config", "shape", "engine", "lr", "seed")]
    resumed = info.get("resumed")
    latest = resumed[-1] if isinstance(resumed, list) and resumed and isinstance(resumed[-1], dict) else {}
    device = latest.get("device", info.get("device"))
    return (status, *named, *losses.values(), info.get("seconds"), device, info.get("note", ""))
