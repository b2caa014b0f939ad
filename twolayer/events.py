"""TensorBoard's event files: what a training does, a block at a time, in its run folder. Never imports torch."""

from __future__ import annotations

import math
import os
import re
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from twolayer.config import Config
from twolayer.errors import extra
from twolayer.files import named, replacing, sync_folder, write_all
from twolayer.history import Block, blocks
from twolayer.runs import HISTORY, Run

with extra("tensorboard", "tensorboard"):
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

# By the names of the history. TensorBoard puts those with the same first part together, in the order of the alphabet,
# and opens the first two groups: let the loss be in one of them.
TAGS = {
    "loss": "loss/train",
    "val_loss": "loss/validation",
    "accuracy": "accuracy/train",
    "val_accuracy": "accuracy/validation",
    "lr": "training/learning_rate",
}
# TensorBoard reads the files of a folder in the order of their names. The usual ones are of the second and the host:
# two within a second, or a clock that was put back, would come in the wrong order.
NAME = "events.out.tfevents.{:06d}"
NUMBERED = re.compile(r"events\.out\.tfevents\.([0-9]{6})")


class Writer:
    """Writes the blocks of a training from iteration `done` + 1 on, to an event file of their own.

    Where the run folder has none yet, the rows that the history has already come first. What the files before hold of
    later iterations, TensorBoard forgets. The file is begun with the first block or `sync`. Every method raises
    RunError where something cannot be written.
    """

    def __init__(self, run: Run, config: Config, done: int) -> None:
        self.run, self.config, self.done = run, config, done
        self._file, self._told = -1, 0.0

    def add(self, block: Block) -> None:
        """Write a block's scalars."""
        self._begin()
        # The clock may be put back, and TensorBoard draws time as it is told of it.
        end = max(time.time(), self._told)
        start = max(end - block.seconds, self._told)
        with named(self._path):
            write_all(self._file, framed(_encoded(block, scalars(block, self.config), start, end)))
        self._told = end

    def sync(self) -> None:
        """Take all to the disk."""
        self._begin()
        with named(self._path):
            os.fsync(self._file)

    def close(self) -> None:
        """Let the file go."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _begin(self) -> None:
        if self._file >= 0:
            return
        folder = self.run.path
        with named(folder):
            found = [NUMBERED.fullmatch(entry.name) for entry in folder.iterdir()]
        number = max((int(match[1]) for match in found if match), default=0)
        if not number and self.done:
            number = 1
            self._catch_up(number)
        self._path = folder / NAME.format(number + 1)
        with named(self._path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o666)
            write_all(self._file, _head(self.done + 1))
            sync_folder(folder)

    def _catch_up(self, number: int) -> None:
        """Write a file of the history so far, whole: a kill must not leave a part that the next start takes for all."""
        end = time.time()
        seconds = float(self.run.info.get("seconds", 0.0)) / self.done
        with replacing(self.run.path / NAME.format(number)) as file:
            file.write(_head(1))
            for block in blocks(self.run.path / HISTORY):
                ago = [seconds * (self.done - number) for number in (block.first - 1, block.last)]
                file.write(framed(_encoded(block, scalars(block, self.config), end - ago[0], end - ago[1])))


def scalars(block: Block, config: Config) -> dict[str, Sequence[float]]:
    """What TensorBoard is told of every iteration of a block (with batches, of every epoch), by its tags.

    The time is that of the block, in equal parts; it is not known of rows that are read from a history, and of a block
    that was cut off where the loss is not finite.
    """
    count = len(block.losses)
    columns = {"loss": block.losses, **block.more}
    if config.lr != "auto":
        columns["lr"] = (config.lr,) * count
    found: dict[str, Sequence[float]] = {TAGS[name]: values for name, values in columns.items()}
    if math.isfinite(block.seconds) and math.isfinite(block.losses[-1]):
        found[f"training/seconds_per_{config.unit}"] = (block.seconds / count,) * count
    return found


def _head(first: int) -> bytes:
    """How a file begins that tells of iteration `first` and what comes after it, whatever was told of them before."""
    version = Event(wall_time=time.time(), file_version="brain.Event:2")
    start = Event(wall_time=time.time(), step=first, session_log=SessionLog(status=SessionLog.START))
    return framed([version.SerializeToString(), start.SerializeToString()])


def _encoded(block: Block, values: Mapping[str, Sequence[float]], start: float, end: float) -> Iterator[bytes]:
    """An event for each of the block's rows, as if they had come evenly from `start` to `end`."""
    event = Event()  # one for all: making them takes three times as long as filling them in
    slots = [event.summary.value.add(tag=tag) for tag in values]
    each = (end - start) / len(block.losses)
    for i, row in enumerate(zip(*values.values(), strict=True)):
        event.wall_time, event.step = start + (i + 1) * each, block.first + i
        for slot, value in zip(slots, row, strict=True):
            slot.simple_value = value  # float32: what is beyond it becomes infinite
        yield event.SerializeToString()


def framed(records: Sequence[bytes] | Iterator[bytes]) -> bytes:
    """The records as a file of them has them: length, its checksum, data, their checksum.

    As TensorBoard's RecordWriter does it, which takes ten times as long: its checksums are of one record at a time,
    and in Python of one byte at a time.
    """
    parts = []
    for length, group in groupby(records, len):
        data = np.frombuffer(b"".join(group), np.uint8).reshape(-1, length)
        head = np.frombuffer(struct.pack("<Q", length), np.uint8)[None]
        framing = [np.broadcast_to(part, (len(data), part.shape[1])) for part in (head, _checksums(head))]
        parts.append(np.hstack([*framing, data, _checksums(data)]).tobytes())
    return b"".join(parts)


def _checksums(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The masked CRC-32C of every row, as four bytes: (count, length) -> (count, 4)."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in np.ascontiguousarray(rows.T):
        crc = _CRC[(crc ^ column).astype(np.uint8)] ^ (crc >> 8)
    crc = ~crc
    masked = (crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)
    return masked.astype("<u4").view(np.uint8).reshape(-1, 4)


def _table() -> NDArray[np.uint32]:
    """CRC-32C of each byte alone (Castagnoli's polynomial, reflected)."""
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, crc >> 1 ^ np.uint32(0x82F63B78), crc >> 1)
    return crc


_CRC = _table()
