"""Checksums of safetensors files, run.json and histories, without torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from twolayer.files import Folder

PLACE = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?\.safetensors")
PART = re.compile(r"([0-9]{1,19}(?:-[0-9]{1,19})?)\.part-[0-9]{1,4}\.safetensors")
BLANK = "0" * 64  # in place of the checksum while it is computed
MAX_HEADER = 100 * 2**20  # of a safetensors file; the library has the same limit
MAX_VALUES = 5_000_000  # in a JSON document; a model of the most columns has half as many
_NO_TENSORS = "is not a safetensors file, or is damaged"
_OTHER = "is damaged: its checksum does not match"
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def digest(data: bytes) -> str:
    """The SHA-256 of the data."""
    return hashlib.sha256(data).hexdigest()


def is_digest(value: object) -> bool:
    """Whether a value is a SHA-256 as text."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def blanked(data: bytes, digest: str) -> str:
    """The SHA-256 of the data with BLANK in place of the last `digest` in it; empty where that does not occur."""
    start = data.rfind(digest.encode()) if len(digest) == len(BLANK) else -1
    if start < 0:
        return ""
    found = hashlib.sha256(memoryview(data)[:start])
    found.update(BLANK.encode())
    found.update(memoryview(data)[start + len(BLANK) :])
    return found.hexdigest()


def parse_json(data: bytes) -> Any:
    """The value of a JSON document. Raises ValueError where it has too many values, and RecursionError.

    A value takes two bytes in the file, and a hundred in memory.
    """
    if sum(map(data.count, (b"[", b"{", b","))) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values")
    return json.loads(data)


# --- safetensors


def header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The metadata that `checkpoint.pack` wrote, and the size of the file: from its header, not verified.

    Raises ValueError where the file has another size, or `checkpoint.pack` did not write it.
    """
    try:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, MAX_HEADER):
            raise ValueError
        found = parse_json(file.read(length))
        metadata = json.loads(found["__metadata__"]["twolayer"])
        metadata["sha256"]  # raises KeyError, or TypeError where this is not a mapping
        ends = [int(one["data_offsets"][1]) for name, one in found.items() if name != "__metadata__"]
    except _DAMAGE:
        raise ValueError(_NO_TENSORS) from None
    if size != 8 + length + max(ends, default=0):
        raise ValueError("is damaged: its size is not the one in its header")
    return dict(metadata), size


def read_tensors(file: BinaryIO) -> bytes:
    """The bytes of a safetensors file. Raises ValueError where its size is not the one in its header, and OSError."""
    header(file)
    file.seek(0)
    return file.read()


def unseal(data: bytes) -> dict[str, Any]:
    """The metadata of a safetensors file that `checkpoint.pack` made. Raises ValueError where it was changed."""
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(parse_json(data[8 : 8 + length])["__metadata__"]["twolayer"])
        digest = metadata["sha256"]
        # The first occurrence: the tensors after the header may contain any bytes.
        start = data.index(digest.encode()) if len(digest) == len(BLANK) else -1
    except _DAMAGE:
        raise ValueError(_NO_TENSORS) from None
    blank = hashlib.sha256(data[:start] + BLANK.encode())
    blank.update(memoryview(data)[start + len(BLANK) :])
    if start < 0 or blank.hexdigest() != digest:
        raise ValueError(_OTHER)
    return dict(metadata)


# --- run.json


def seal_json(info: Mapping[str, Any]) -> bytes:
    """The mapping as JSON; its last value is the SHA-256 of the JSON with 64 zeros in that place."""
    blank = json.dumps({**info, "sha256": BLANK}, indent=2, allow_nan=False) + "\n"
    start = blank.rindex(BLANK)
    return (blank[:start] + hashlib.sha256(blank.encode()).hexdigest() + blank[start + len(BLANK) :]).encode()


def is_sealed(data: bytes, info: Mapping[str, Any]) -> bool:
    """Whether `data`, the JSON of `info`, is unchanged since `seal_json` wrote it."""
    digest = info.get("sha256")
    return isinstance(digest, str) and blanked(data, digest) == digest


# --- the history


@dataclass(frozen=True)
class Seal:
    """The checksum of the first `size` bytes of a history; `rows` is the number of rows in them, None if unknown.

    `updates` says how many of the updates of the next epoch are in the checkpoint, and how many it has.
    """

    size: int
    sha256: str
    rows: int | None = None
    updates: tuple[int, int] | None = None

    def fits(self, file: BinaryIO) -> bool:
        """Whether a history starts with these bytes."""
        found, left = hashlib.sha256(), self.size
        file.seek(0)
        while left > 0 and (part := file.read(min(left, 2**20))):
            found.update(part)
            left -= len(part)
        return not left and found.hexdigest() == self.sha256


def seals(checkpoints: Folder) -> Iterator[tuple[str, Seal]]:
    """The names of the checkpoints, newest first, and the seal of the history in each; neither is verified."""
    for name in checkpoint_names(checkpoints):
        try:
            with checkpoints.open(name) as file:
                metadata, _ = header(file)
            within = (int(metadata["updates"]), int(metadata["updates_per_epoch"])) if "updates" in metadata else None
            size, rows = int(metadata["history_bytes"]), int(metadata["iteration"])
            yield name, Seal(size, str(metadata["history_sha256"]), rows, within)
        except (OSError, *_DAMAGE):  # removed meanwhile, or damaged
            continue


def is_whole(checkpoints: Folder, name: str) -> bool:
    """Whether a checkpoint is unchanged since it was written."""
    try:
        with checkpoints.open(name) as file:
            unseal(read_tensors(file))
    except (OSError, ValueError):
        return False
    return True


def checkpoint_names(checkpoints: Folder) -> list[str]:
    """The names that checkpoints have, <iteration>[-<updates>].safetensors, newest first. Raises OSError."""
    return sorted(filter(PLACE.fullmatch, checkpoints.names()), key=place, reverse=True)


def place(name: str) -> tuple[int, int]:
    """The iterations (with batches, the epochs) before a checkpoint, and the updates after them, from its name."""
    match = PLACE.fullmatch(name)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def part_name(checkpoint: str, part: int) -> str:
    """The name of the file with a part, from 0 on, of the checkpoint of this name."""
    return f"{checkpoint.removesuffix('.safetensors')}.part-{part}.safetensors"


def remove_stale_parts(checkpoints: Folder) -> None:
    """Remove, as far as possible, the parts whose checkpoint is gone, or was never completed."""
    with suppress(OSError):
        names = set(checkpoints.names())
        for name in names:
            if (match := PART.fullmatch(name)) and f"{match[1]}.safetensors" not in names:
                with suppress(OSError):
                    checkpoints.remove(name)
