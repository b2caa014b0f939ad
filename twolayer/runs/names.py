"""Where runs are: the names and paths of new ones, and the folders that a command line means."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from twolayer.errors import RunError
from twolayer.files import reason
from twolayer.runs.run_files import INFO, check_inside
from twolayer.tables.options import TABLES

RUNS = Path("runs")
SUFFIX = re.compile(f"({'|'.join(map(re.escape, ('.yaml', '.yml', *TABLES)))})$", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def safe_name(text: str) -> str:
    """A config's name, or its file's, as the name of a folder."""
    stem = SUFFIX.sub("", text.replace("\\", "/").rstrip("/").rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9_.]+", "-", stem).strip("-.")[:60] or "run"


def free_place(out: Path | None, name: str) -> Path:
    """The path of a new run folder. Raises RunError where something is there."""
    if out is None:
        numbers = [0]
        with suppress(OSError):
            found = (re.fullmatch(re.escape(name) + r"-([1-9][0-9]{0,8})", entry.name) for entry in RUNS.iterdir())
            numbers += [int(match[1]) for match in found if match]
        return RUNS / f"{name}-{max(numbers) + 1}"
    check_free(out)
    return out


def check_free(out: Path) -> None:
    """Raise RunError where something is at the path of a new run folder."""
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # a name too long, a NUL
        raise RunError(f"{str(out)!r}: {reason(error)}", usage=True) from None
    resume = f"resume it with --resume {out}, or " if (out / INFO).exists() else ""
    raise RunError("already exists", path=out, hint=f"{resume}choose another folder", usage=True)


def find(text: str) -> Path:
    """The run folder that a user names: by its path, or by the name of a folder in `runs`. Raises RunError."""
    try:
        in_runs = RUNS / text
        if NAME.fullmatch(text) and not Path(text).is_dir() and in_runs.is_dir():
            check_inside(in_runs, RUNS)
            return in_runs
        given = Path(text)
        if given.is_symlink() and given.parent.resolve() == RUNS.resolve():
            check_inside(given, RUNS)
        if text and given.is_dir():
            return given
    except (OSError, ValueError) as error:
        raise RunError(f"{text!r}: {reason(error)}", usage=True) from None
    raise RunError(f"{text or repr(text)}: no such run folder", hint="`twolayer runs` lists all runs", usage=True)
