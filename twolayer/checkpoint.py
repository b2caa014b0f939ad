"""Checkpoints: safetensors files that carry the checksum of themselves. No pickle is ever written or read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from twolayer.errors import RunError
from twolayer.runs import CHECKPOINTS, Run
from twolayer.sealing import BLANK, unseal

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
    size, digest = run.mark()
    metadata = {
        "iteration": str(iteration),
        "seconds": repr(seconds),
        "history_bytes": str(size),
        "history_sha256": digest,
    }
    run.write(f"{CHECKPOINTS}/{iteration}.safetensors", *pack(state, metadata))
    files = _files(run.path)
    later = [file for file in files if int(file.stem) > iteration]  # damaged ones, or the run would have gone on there
    for old in [*later, *files[len(later) + KEPT :]]:
        with suppress(OSError):  # it does no harm
            old.unlink()


def newest(path: Path, most: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint of a run folder that verifies, of `most` iterations; and what is wrong with newer ones."""
    wrong: list[str] = []
    for file in _files(path):
        if most is not None and int(file.stem) > most:
            continue
        try:
            tensors, metadata = unpack(file.read_bytes())
            found = Checkpoint(
                int(metadata["iteration"]),
                tensors,
                float(metadata["seconds"]),
                int(metadata["history_bytes"]),
                metadata["history_sha256"],
            )
            if found.iteration != int(file.stem):
                raise ValueError(f"is the checkpoint of iteration {found.iteration}")
            return found, wrong
        except OSError as error:
            wrong.append(f"{file}: cannot be read: {error.strerror or error}")
        except (ValueError, KeyError) as error:
            wrong.append(f"{file}: {error}")
    return None, wrong


def _files(path: Path) -> list[Path]:
    """The checkpoints, newest first."""
    try:
        entries = list((path / CHECKPOINTS).iterdir())
    except OSError as error:
        raise RunError(f"{path / CHECKPOINTS}: cannot be read: {error.strerror or error}") from None
    files = [file for file in entries if file.suffix == ".safetensors" and file.stem.isdecimal() and file.is_file()]
    return sorted(files, key=lambda file: int(file.stem), reverse=True)


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
