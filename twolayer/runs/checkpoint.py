"""Checkpoints: safetensors files that carry the checksum of themselves. No pickle is ever written or read."""

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
    """The state of an engine after so many iterations, and the history up to there: its bytes and their SHA-256."""

    iteration: int
    state: dict[str, Tensor]
    seconds: float  # that the training had taken
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
    later = names.index(name)  # those were damaged, or the run would have gone on there
    for old in [*names[:later], *names[later + KEPT :]]:
        with suppress(OSError):  # it does no harm
            folder.remove(old)


def newest(folder: Folder, most: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint of a folder that verifies, of `most` iterations; and what is wrong with newer ones."""
    wrong: list[str] = []
    return next(verified(folder, wrong, most), None), wrong


def verified(folder: Folder, wrong: list[str], most: int | None = None) -> Iterator[Checkpoint]:
    """The good checkpoints, newest first, of `most` iterations; what is wrong with others is added to `wrong`."""
    for name in _names(folder):
        path = folder.path / name
        if most is not None and int(path.stem) > most:
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
    """A safetensors file in parts, with its SHA-256 (where that of 64 zeros stands for it) in its metadata: JSON."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry for all: safetensors writes several in another order each time, and equal runs should be equal files.
    blank = safetensors.torch.save(plain, {"twolayer": json.dumps({**metadata, "sha256": BLANK})})
    start, whole = blank.index(BLANK.encode()), memoryview(blank)  # in parts, because a copy is as large as the state
    return [whole[:start], hashlib.sha256(blank).hexdigest().encode(), whole[start + len(BLANK) :]]


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of what `pack` made. Raises ValueError where a byte is another."""
    metadata = unseal(data)
    try:
        return safetensors.torch.load(data), metadata
    except SafetensorError as error:
        raise ValueError(f"is damaged: {error}") from None
