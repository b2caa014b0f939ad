"""Checkpoints: safetensors files that contain their own checksum. No pickle is ever written or read.

A state in parts (of units or inputs) is a file for each part, and a last one that makes the checkpoint valid: it has
the rest of the state, and the checksums of these files, whose names follow from its own.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from twolayer.errors import RunError
from twolayer.files import Folder, named, reading, temporary_name, unreadable
from twolayer.runs.checksum import (
    BLANK,
    checkpoint_names,
    is_digest,
    part_name,
    place,
    read_tensors,
    remove_stale_parts,
    unseal,
)
from twolayer.runs.folder import Run

KEPT = 2
DTYPES = {  # by the names of the format
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after `iteration` iterations, or epochs, and `updates` updates of the next epoch.

    With the size and SHA-256 of the history up to there, and the seconds of training. `parts` has what is not in the
    `state`; None where that is all.
    """

    iteration: int
    state: dict[str, Tensor]
    seconds: float
    history_bytes: int
    history_sha256: str
    updates: int = 0
    parts: SavedParts | None = None

    @property
    def name(self) -> str:
        """Its file name."""
        return file_name(self.iteration, self.updates)


@dataclass(frozen=True)
class PartFolder:
    """The folder of a run's checkpoints, in any process that trains: a file for each part of a state.

    Methods raise RunError.
    """

    folder: Folder

    @contextmanager
    def announced(self) -> Iterator[str]:
        """A context in which `open_announced` finds the folder by the text, in any process that has it on a disk."""
        name = temporary_name()
        with named(self.folder.path):
            os.close(self.folder.create(name))
        try:
            yield json.dumps([str((self.folder.where() or self.folder.path).absolute()), name])
        finally:
            with suppress(OSError):
                self.folder.remove(name)

    def write(self, done: int, part: int, tensors: Mapping[str, Tensor]) -> bytes:
        """Write a part of the state after `done` iterations; the SHA-256 that its file has."""
        name = part_name(file_name(done), part)
        before, sha256, *rest = pack(tensors, {"iteration": str(done), "part": str(part)})
        with named(self.folder.path / name):
            self.folder.write(name, before, sha256, *rest)
        return bytes.fromhex(bytes(sha256).decode())

    def read(self, done: int, part: int, sha256: bytes) -> dict[str, Tensor]:
        """Read a part whose file has this SHA-256."""
        name = part_name(file_name(done), part)
        path = self.folder.path / name
        try:
            with reading(path, RunError), self.folder.open(name) as file:
                tensors, metadata = unpack(read_tensors(file))
        except ValueError as error:
            raise RunError(str(error), path=path) from None
        if metadata["sha256"] != sha256.hex():
            raise RunError("is a part of another checkpoint", path=path)
        return tensors


@dataclass(frozen=True)
class SavedParts:
    """The parts of a checkpoint: where they are, the SHA-256 of each, and tensors of their shapes without contents."""

    folder: PartFolder
    sums: Sequence[bytes]
    shapes: Sequence[Mapping[str, Tensor]]


def open_announced(text: str) -> PartFolder | None:
    """The folder of `PartFolder.announced` in another process; None where this one cannot write there."""
    path, probe = json.loads(text)
    with suppress(OSError):
        folder = Folder(Path(path))
        if folder.status(probe) is not None:
            name = temporary_name()
            os.close(folder.create(name))
            folder.remove(name)
            return PartFolder(folder)
        folder.close()
    return None


def file_name(iteration: int, updates: int = 0) -> str:
    """The name of the checkpoint after a number of iterations, or epochs, and of updates of the next epoch."""
    return f"{iteration}-{updates}.safetensors" if updates else f"{iteration}.safetensors"


def save(
    run: Run,
    iteration: int,
    state: Mapping[str, Tensor],
    seconds: float,
    updates: tuple[int, int] = (0, 1),
    sums: Sequence[bytes] = (),
) -> None:
    """Write a checkpoint, and remove all but the newest two, the newest before this epoch, and that before the last.

    A training that diverges in this epoch is computed again up to the end of the last but one. `updates` has those of
    the epoch that has begun, and how many it has in all; `sums` the SHA-256 of each part, if these are written.
    """
    size, digest = run.position()
    metadata: dict[str, Any] = {
        "iteration": str(iteration),
        "seconds": repr(seconds),
        "history_bytes": str(size),
        "history_sha256": digest,
    }
    if updates[0]:
        metadata |= {"updates": str(updates[0]), "updates_per_epoch": str(updates[1])}
    if sums:
        metadata["parts"] = [one.hex() for one in sums]
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
    remove_stale_parts(folder)


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
                _verified_parts(PartFolder(folder), place(name)[0], metadata["parts"]) if "parts" in metadata else None,
            )
            if place(name) != (found.iteration, found.updates):
                within = f", update {found.updates} of the next" if found.updates else ""
                raise ValueError(f"is the checkpoint of iteration {found.iteration}{within}")
            if not math.isfinite(found.seconds) or found.history_bytes <= 0:
                raise ValueError("is not a checkpoint of this program")
        except OSError as error:
            wrong.append(f"{path}: {unreadable(error)}")
        except RunError as error:  # of a part
            wrong.append(str(error))
        except (KeyError, TypeError):
            wrong.append(f"{path}: is not a checkpoint of this program")
        except ValueError as error:
            wrong.append(f"{path}: {error}")
        else:
            yield found


def _verified_parts(folder: PartFolder, done: int, sums: Any) -> SavedParts:
    """The parts of a checkpoint, each of which is read and verified. Raises ValueError, and RunError for a part."""
    if not isinstance(sums, list) or not sums or not all(map(is_digest, sums)):
        raise ValueError("is not a checkpoint of this program")
    digests = [bytes.fromhex(one) for one in sums]
    shapes = [
        {name: torch.empty_like(tensor, device="meta") for name, tensor in folder.read(done, part, sha256).items()}
        for part, sha256 in enumerate(digests)
    ]
    return SavedParts(folder, digests, shapes)


def _names(folder: Folder) -> list[str]:
    with reading(folder.path, RunError):
        return checkpoint_names(folder)


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> list[bytes | memoryview]:
    """A safetensors file, in pieces: what is before its checksum, that, and the rest.

    No contiguous tensor on the CPU is copied. The metadata, JSON, have the SHA-256 of the file with 64 zeros in that
    place. They are a single entry, as `safetensors` itself writes it; the tensors are in its order.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header: dict[str, Any] = {"__metadata__": {"twolayer": json.dumps({**metadata, "sha256": BLANK})}}
    contents, end = list[memoryview](), 0
    for name in sorted(plain, key=lambda name: (-plain[name].itemsize, name)):
        tensor, start = plain[name], end
        flat = tensor.as_strided((tensor.numel(),), (1,))  # a dimension of one may have any stride
        contents.append(flat.view(torch.uint8).numpy().data)
        end += tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the contents begin at a multiple of eight bytes
    head = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(head)
    for content in contents:
        digest.update(content)
    at = head.index(BLANK.encode())
    return [head[:at], digest.hexdigest().encode(), head[at + len(BLANK) :], *contents]


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file that `pack` made. Raises ValueError where it was changed."""
    metadata = unseal(data)
    try:
        return safetensors.torch.load(data), metadata
    except SafetensorError as error:
        raise ValueError(f"is damaged: {error}") from None
