"""Checkpoints: safetensors files that contain their own checksum. No pickle is ever written or read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from twolayer.errors import RunError
from twolayer.files import Folder, named, reading, unreadable
from twolayer.runs.checksum import BLANK, checkpoint_names, read_tensors, unseal
from twolayer.runs.folder import Run

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """The state of an engine after `iteration` iterations; the size and SHA-256 of the history up to there."""

    iteration: int
    state: dict[str, Tensor]
    seconds: float  # of training so far
    history_bytes: int
    history_sha256: str


def save(run: Run, iteration: int, state: Mapping[str, Tensor], seconds: float) -> None:
    """Write a checkpoint, and remove all but the newest two."""
    size, digest = run.position()
    metadata = {
        "iteration": str(iteration),
        "seconds": repr(seconds),
        "history_bytes": str(size),
        "history_sha256": digest,
    }
    folder, name = run.open_checkpoints(), f"{iteration}.safetensors"
    with named(folder.path / name):
        folder.write(name, *pack(state, metadata))
    names = _names(folder)
    if name not in names:
        raise RunError("was removed while the training ran", path=folder.path / name)
    later = names.index(name)  # newer ones were damaged, else the run would have resumed from them
    for old in [*names[:later], *names[later + KEPT :]]:
        with suppress(OSError):  # an old checkpoint left behind does no harm
            folder.remove(old)


def newest(folder: Folder, limit: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest undamaged checkpoint of at most `limit` iterations; and what is wrong with newer ones."""
    wrong: list[str] = []
    return next(verified(folder, wrong, limit), None), wrong


def verified(folder: Folder, wrong: list[str], limit: int | None = None) -> Iterator[Checkpoint]:
    """The undamaged checkpoints of at most `limit` iterations, newest first; messages on others go to `wrong`."""
    for name in _names(folder):
        path = folder.path / name
        if limit is not None and int(path.stem) > limit:
            continue
        try:
            with folder.open(name) as file:
                tensors, metadata = unpack(read_tensors(file))
            found = Checkpoint(
                int(metadata["iteration"]),
                tensors,
                float(metadata["seconds"]),
                int(metadata["history_bytes"]),
                str(metadata["history_sha256"]),
            )
            if found.iteration != int(path.stem):
                raise ValueError(f"is the checkpoint of iteration {found.iteration}")
            if not math.isfinite(found.seconds) or found.history_bytes <= 0:
                raise ValueError("is not a checkpoint of this program")
        except OSError as error:
            wrong.append(f"{path}: {unreadable(error)}")
        except (KeyError, TypeError):
            wrong.append(f"{path}: is not a checkpoint of this program")
        except ValueError as error:
            wrong.append(f"{path}: {error}")
        else:
            yield found


def _names(folder: Folder) -> list[str]:
    with reading(folder.path, RunError):
        return checkpoint_names(folder)


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> list[bytes | memoryview]:
    """A safetensors file, in parts. Its metadata, JSON, has the SHA-256 of the file with 64 zeros in that place."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # A single entry: safetensors writes several in a random order, and equal runs should give equal files.
    blank = safetensors.torch.save(plain, {"twolayer": json.dumps({**metadata, "sha256": BLANK})})
    start, whole = blank.index(BLANK.encode()), memoryview(blank)  # in parts, to avoid a copy as large as the state
    return [whole[:start], hashlib.sha256(blank).hexdigest().encode(), whole[start + len(BLANK) :]]


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file that `pack` made. Raises ValueError where it was changed."""
    metadata = unseal(data)
    try:
        return safetensors.torch.load(data), metadata
    except SafetensorError as error:
        raise ValueError(f"is damaged: {error}") from None
