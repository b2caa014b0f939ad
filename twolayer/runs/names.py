"""Where runs are: the names and paths of new ones, and the folders that a command line means."""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from twolayer.errors import RunError
from twolayer.files import reason
from twolayer.formatting import nearest
from twolayer.runs.run_files import INFO, SWEEP, check_inside, is_file
from twolayer.system.names import is_reserved, why_no_path
from twolayer.tables.options import TABLES

RUNS = Path("runs")
SUFFIX = re.compile(f"({'|'.join(map(re.escape, ('.yaml', '.yml', *TABLES)))})$", re.IGNORECASE)
_MAX_NAME = 60  # characters, of up to 4 bytes: file systems take 255
_LONGEST_INSIDE = len("/checkpoints/.twolayer-0123456789abcdef.part")  # characters of the longest path in a run


def is_name(text: str) -> bool:
    """Whether a text can be the name of a folder in `runs`, and is no path."""
    return 0 < len(text) <= 100 and text[0] not in "-." and all(_is_plain(c) or c in "-" or _is_byte(c) for c in text)


def safe_name(text: str) -> str:
    """A config's name, or its file's, as the name of a folder: letters and digits of any script, `_` and `.`."""
    stem = SUFFIX.sub("", text.replace("\\", "/").rstrip("/").rpartition("/")[2])
    plain = "".join(letter if _is_plain(letter) else "-" for letter in stem)
    name = re.sub("-+", "-", plain).strip("-.")[:_MAX_NAME] or "run"
    return f"run-{name}" if is_reserved(name) else name


def _is_plain(letter: str) -> bool:
    """Whether a letter can be typed in a shell without quotes; accents and vowels can be letters of category M."""
    return letter.isalnum() or letter in "_." or unicodedata.category(letter).startswith("M")


def _is_byte(letter: str) -> bool:
    """Whether this is a byte that is not UTF-8, as Python holds it."""
    return "\udc80" <= letter <= "\udcff"


def free_place(out: Path | None, name: str) -> Path:
    """The path of a new run folder. Raises RunError where something is there."""
    if out is None:
        numbers = [0]
        # Where case, or the form of an accent, makes no difference to the system (macOS, Windows), it makes none here.
        pattern = re.compile(re.escape(_folded(name)) + r"-([1-9][0-9]{0,8})")
        with suppress(OSError):
            found = (pattern.fullmatch(_folded(entry.name)) for entry in RUNS.iterdir())
            numbers += [int(match[1]) for match in found if match]
        out = RUNS / f"{name}-{max(numbers) + 1}"
    else:
        check_free(out)
    if why := why_no_path(out, _LONGEST_INSIDE):
        raise RunError(why, path=out, usage=True)
    return out


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def check_free(out: Path) -> None:
    """Raise RunError where something is at the path of a new run folder."""
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # a name too long, a NUL
        raise RunError(f"{str(out)!r}: {reason(error)}", usage=True) from None
    is_ours = (out / INFO).exists() or (out / SWEEP).exists()
    resume = f"resume it with --resume {out}, or " if is_ours else ""
    raise RunError("already exists", path=out, hint=f"{resume}choose another folder", usage=True)


def is_saved(path: Path) -> bool:
    """Whether a folder is that of a run or a sweep."""
    return is_file(path / INFO) or is_file(path / SWEEP)


def find(text: str) -> Path:
    """The folder of a run or sweep that a user names: by its path, or by its name in `runs`. Raises RunError.

    The runs of a sweep there are `sweep/run`.
    """
    try:
        in_runs = RUNS / text
        sweep, _, inside = text.partition("/")
        is_inside = is_name(sweep) and inside not in ("", ".", "..") and "/" not in inside
        if (is_name(text) or is_inside) and not Path(text).is_dir() and in_runs.is_dir():
            check_inside(in_runs, RUNS)
            return in_runs
        given = Path(text)
        if given.is_symlink() and given.parent.resolve() == RUNS.resolve():
            check_inside(given, RUNS)
        if text and given.is_dir():
            return given
    except (OSError, ValueError) as error:
        raise RunError(f"{text!r}: {reason(error)}", usage=True) from None
    near = nearest(text, _in_runs())
    hint = f"did you mean {near}?" if near else "`twolayer runs` lists all runs"
    raise RunError(f"{text or repr(text)}: no such run folder", hint=hint, usage=True)


def find_model(text: str) -> Path:
    """The run folder that a user names (see `find`), or a model file, wherever it lies. Raises RunError."""
    with suppress(OSError, ValueError):
        if Path(text).is_file() and not (is_name(text) and (RUNS / text).is_dir()):
            return Path(text)
    return find(text)


def _in_runs() -> list[str]:
    """The names of the runs in `runs`."""
    with suppress(OSError):
        return sorted(entry.name for entry in RUNS.iterdir() if is_saved(entry))
    return []


def move_to_free(move: Callable[[Path], object], place: Path) -> bool:
    """Move something to a place, by the function given, unless something is there; whether it was moved.

    Raises OSError.
    """
    try:
        if not os.path.lexists(place):
            move(place)
            return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    return False
