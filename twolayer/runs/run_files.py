"""The files of a run folder: their names, and how they are read and verified."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twolayer.errors import NotARunError, RunError
from twolayer.files import Folder, open_regular, unreadable
from twolayer.runs import checksum

FORMAT = 2  # of the folder; a newer one is refused. In 1, which twolayer 0.1.0 wrote, run.json has no checksums
INFO = "run.json"
CONFIG = "config.yaml"
HISTORY = "history.csv"
MODEL = "model.safetensors"
CHECKPOINTS = "checkpoints"
SWEEP, SWEEP_TABLE = "sweep.json", "sweep.csv"  # of a folder of runs that one command has trained
MAX_INFO, MAX_CONFIG = 64 * 2**20, 2**20  # bytes of run.json and config.yaml; larger files are refused


def is_file(path: Path) -> bool:
    """Whether there is a file; False also where its folder may not be read."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_info(path: Path, folder: Folder | None = None) -> dict[str, Any]:
    """The content of `run.json`; with `folder`, in that open folder.

    Raises NotARunError where there is none, RunError where it is damaged.
    """
    file = path / INFO
    try:
        with open_regular(file, MAX_INFO) if folder is None else folder.open(INFO, MAX_INFO) as opened:
            data = opened.read()
        info = checksum.parse_json(data)
    except FileNotFoundError:
        raise NotARunError(f"is not a run folder: it has no {INFO}", path=path, usage=True) from None
    except OSError as error:
        raise RunError(unreadable(error), path=file) from None
    except (ValueError, RecursionError):
        raise RunError("is damaged: it is not JSON", path=file) from None
    if not isinstance(info, dict) or not isinstance(info.get("format"), int):
        raise RunError("is damaged: it has no format number", path=file)
    if info["format"] > FORMAT:
        reason = f"has format {info['format']}, and this version of twolayer reads {FORMAT} at most"
        raise RunError(reason, path=file, hint="install a newer version")
    if (info["format"] > 1 or "sha256" in info) and not checksum.is_sealed(data, info):
        raise RunError("is damaged or was edited: its checksum does not match", path=file)
    info.pop("sha256", None)
    return info


def check_info(info: dict[str, Any], file: Path) -> dict[str, Any]:
    """The content of `run.json`, with the types checked that a resumed training relies on. Raises RunError."""
    digests, seconds, epochs = info.get("config_sha256"), info.get("seconds", 0.0), info.get("epochs", 0)
    is_valid = {
        "config_sha256": isinstance(digests, list) and all(isinstance(digest, str) for digest in digests),
        "seconds": isinstance(seconds, (int, float)) and seconds is not True and 0 <= seconds <= sys.float_info.max,
        "epochs": isinstance(epochs, int) and epochs is not True and 0 <= epochs < 2**63,
    }
    if wrong := [key for key, valid in is_valid.items() if not valid]:
        raise RunError(f"is damaged: {' and '.join(wrong)}: not a valid value", path=file)
    try:
        checksum.seal_json(info)  # as it will be written again: better now than after the history was cut
    except (ValueError, RecursionError):  # a NaN or an infinity, which JSON does not have
        raise RunError("is damaged: it holds a value that cannot be written", path=file) from None
    return info


def read_config(path: Path, folder: Folder | None = None) -> bytes:
    """The run's config.yaml; with `folder`, in that open folder. Raises RunError where it cannot be read."""
    file = path / CONFIG
    try:
        with open_regular(file, MAX_CONFIG) if folder is None else folder.open(CONFIG, MAX_CONFIG) as opened:
            return opened.read()
    except FileNotFoundError:
        raise RunError("is missing", path=file) from None
    except OSError as error:
        raise RunError(unreadable(error), path=file) from None


def check_history(
    path: Path, info: Mapping[str, Any], known: checksum.Seal | None = None
) -> tuple[str, checksum.Seal | None]:
    """What is wrong with a run's history, empty if nothing; and the seal that it matches, None if there is no seal.

    For a run that has ended the checksum is in `run.json`; otherwise in the newest checkpoint that is not damaged, for
    the rows up to that checkpoint. A seal that is `known` to match is not computed again. Raises OSError.
    """
    size, digest = info.get("history_bytes"), info.get("history_sha256")
    with open_regular(path / HISTORY) as file:
        actual_size = os.fstat(file.fileno()).st_size
        if info.get("status") != "running" and isinstance(size, int) and isinstance(digest, str):
            seal = checksum.Seal(size, digest)
            if actual_size == size and (seal == known or seal.fits(file)):
                return "", seal
            return f"is damaged: its checksum is not the one in {INFO}", None
        with suppress(OSError), Folder(path) as folder, Folder(Path(CHECKPOINTS), inside=folder) as checkpoints:
            other: tuple[str, int | None] | None = None  # the newest checkpoint that is whole, and does not agree
            for name, seal in checksum.seals(checkpoints):
                if seal == known or seal.fits(file):
                    if other is None:
                        return "", seal
                    where = f"{CHECKPOINTS}/{other[0]}"
                    return f"does not agree with {where} after row {seal.rows}: one of the two is damaged", seal
                if other is None and checksum.is_whole(checkpoints, name):
                    other = name, seal.rows
            if other is not None:
                return f"is damaged in its first {other[1]} rows: their checksum is not the checkpoint's", None
    return "", None


def has_whole_history(path: Path) -> bool:
    """Whether a run's history is there, and has its checksum."""
    try:
        return not check_history(path, read_info(path))[0]
    except (OSError, RunError):
        return False


def check_files(path: Path) -> dict[str, Any]:
    """The content of `run.json`, after the checksums of config and history, where these exist, were verified.

    Raises RunError.
    """
    info = read_info(path)
    digests = info.get("config_sha256")
    config = read_config(path)
    if isinstance(digests, list) and checksum.digest(config) not in digests:
        raise RunError("is not the config of this run, or was changed", path=path / CONFIG)
    try:
        problem, _ = check_history(path, info)
    except FileNotFoundError:
        problem = "is missing"
    except OSError as error:
        problem = unreadable(error)
    if problem:
        raise RunError(problem, path=path / HISTORY)
    return info


def is_own_model(path: Path, info: Mapping[str, Any], digest: str) -> bool:
    """Whether the model file, which has this SHA-256, is the one that `run.json` records.

    False where the training had not ended when it was written. Raises RunError where it is another run's, or changed.
    """
    status, recorded = info.get("status"), info.get("model_sha256")
    if recorded == digest or (recorded is None and info.get("format") == 1):
        return True
    if status == "running" or (recorded is None and status in ("interrupted", "failed")):
        return False  # a kill came before run.json was written
    reason = "is not the model of this run, or was changed" if info else f"cannot be verified without {INFO}"
    raise RunError(reason, path=path / MODEL)


def check_inside(path: Path, folder: Path) -> None:
    """Raise RunError where a run in a folder of runs is a link to a place outside it. Raises OSError."""
    if path != folder and path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise RunError(f"is a link to a place outside {folder}", path=path, usage=True)


def check_writable(status: os.stat_result | None, path: Path, *, in_place: bool = False) -> None:
    """Raise RunError where writing to the file would change another file, or could wait forever (a pipe, a device).

    A file that is not written `in_place` is replaced: another name of it keeps the file as it was.
    """
    if status is None:
        return
    if stat.S_ISLNK(status.st_mode):
        raise RunError("is a link; nothing is written through links", path=path)
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise RunError(f"is {what}", path=path, hint="remove it")
    if in_place and status.st_nlink > 1:
        reason = "has another name elsewhere (a hard link), which would be written as well"
        raise RunError(reason, path=path, hint="replace it with a copy of itself")
