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
from twolayer.runs.checksum import BLANK, checkpoint_names, place, read_tensors, unseal
from twolayer.runs.folder import Run

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after `iteration` iterations, or epochs, and `updates` updates of the next epoch.

    With the size and SHA-256 of the history up to there, and the seconds of training.
    """

    iteration: int
    state: dict[str, Tensor]
    seconds: float
    history_bytes: int
    history_sha256: str
    updates: int = 0

    @property
    def name(self) -> str:
        """Its file name."""
        return file_name(self.iteration, self.updates)


def file_name(iteration: int, updates: int = 0) -> str:
    """The name of the checkpoint after so many iterations, or epochs, and updates of the next epoch."""
    return f"{iteration}-{updates}.safetensors" if updates else f"{iteration}.safetensors"


def save(
    run: Run, iteration: int, state: Mapping[str, Tensor], seconds: float, updates: tuple[int, int] = (0, 1)
) -> None:
    """Write a checkpoint, and remove all but the newest two, the newest before this epoch, and that before the last.

    A training that diverges in this epoch is computed again up to the end of the last but one. `updates` has those of
    the epoch that has begun, and how many it has in all.
    """
    size, digest = run.position()
    metadata = {
        "iteration": str(iteration),
        "seconds": repr(seconds),
        "history_bytes": str(size),
        "history_sha256": digest,
    }
    if updates[0]:
        metadata |= {"updates": str(updates[0]), "updates_per_epoch": str(updates[1])}
    folder, name = run.open_checkpoints(), file_name(iteration, updates[0])
    with named(folder.path / name):
        folder.write(name, *pack(state, metadata))
    names = _names(folder)
    if name not in names:
        raise RunError("was removed while the training ran", path=folder.path / name)
    later = names.index(name)  # newer ones were damaged, else the run would have resumed from them
    kept = names[later : later + KEPT]
    for last in (iteration, iteration - 1):
        kept += [other for other in names[later:] if place(other) <= (last, 0)][:1]
    for old in names:
        if old not in kept:
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
        if limit is not None and place(name) > (limit, 0):
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
                int(metadata.get("updates", 0)),
            )
            if place(name) != (found.iteration, found.updates):
                within = f", update {found.updates} of the next" if found.updates else ""
                raise ValueError(f"is the checkpoint of iteration {found.iteration}{within}")
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
