"""TensorBoard's event files, written into the run folder block by block."""

from __future__ import annotations

import io
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from twolayer.config.schema import Config
from twolayer.errors import extra
from twolayer.files import named, write_all
from twolayer.runs.folder import Run
from twolayer.runs.history import Block, Reader
from twolayer.runs.run_files import HISTORY
from twolayer.system.folders import flush

with extra("tensorboard", "tensorboard"):
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.summary.writer.record_writer import RecordWriter

# The tags of the history's columns. TensorBoard groups tags by their first part, in alphabetical order, and opens the
# first two groups: the loss must be in one of them.
TAGS = {
    "loss": "loss/train",
    "val_loss": "loss/validation",
    "accuracy": "accuracy/train",
    "val_accuracy": "accuracy/validation",
    "lr": "training/learning_rate",
}
# TensorBoard reads the files of a folder in the order of their names. Its usual names contain the second and the host:
# two files within a second, or after the clock was set back, would be in the wrong order.
NAME = "events.out.tfevents.{:06d}"
ROWS = 1000  # of a history, written at a time
NUMBERED = re.compile(r"events\.out\.tfevents\.([0-9]{6,9})")


class Writer:
    """Writes the blocks of a training, from iteration `done` + 1 on, to a new event file.

    Where the run folder has no event file yet, the existing rows of the history are written first. TensorBoard discards
    what older files have about later iterations. The file is created by the first block or `sync`. Every method raises
    RunError where something cannot be written.
    """

    def __init__(self, run: Run, config: Config, done: int) -> None:
        self.run, self.config, self.done = run, config, done
        self._file, self._latest = -1, 0.0

    def add(self, block: Block) -> None:
        """Write a block's scalars."""
        self._begin()
        # The clock may be set back, but the times in an event file must not decrease.
        end = max(time.time(), self._latest)
        start = max(end - block.seconds, self._latest) if math.isfinite(block.seconds) else self._latest or end
        with named(self._path):
            write_all(self._file, _framed(_events(block, scalars(block, self.config), start, end)))
        self._latest = end

    def sync(self) -> None:
        """Flush the file to the disk."""
        self._begin()
        with named(self._path):
            flush(self._file)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _begin(self) -> None:
        if self._file >= 0:
            return
        folder = self.run.folder
        with named(self.run.path):
            found = [NUMBERED.fullmatch(name) for name in folder.names()]
        number = max((int(match[1]) for match in found if match), default=0)
        if not number and self.done:
            number = 1
            self._catch_up(number)
        name = NAME.format(number + 1)
        self._path = self.run.path / name
        with named(self._path):
            self._file = folder.create(name)
            write_all(self._file, _head(self.done + 1))
            folder.sync()

    def _catch_up(self, number: int) -> None:
        """Write the history so far as one file, atomically: a part left by a kill would be taken for all of it."""
        history = Reader(self.run.path / HISTORY, self.run.folder)
        history.read()
        end = time.time()
        seconds = float(self.run.info.get("seconds", 0.0)) / self.done
        name = NAME.format(number)
        with named(self.run.path / name), self.run.folder.replacing(name) as file:
            file.write(_head(1))
            for first in range(1, self.done + 1, ROWS):
                rows = slice(first - 1, min(first - 1 + ROWS, self.done))
                losses, *more = (tuple(column[rows]) for column in history.columns.values())
                names = list(history.columns)[1:]
                block = Block(first, losses, math.nan, dict(zip(names, more, strict=True)))
                ago = [seconds * (self.done - row) for row in (rows.start, rows.stop)]
                file.write(_framed(_events(block, scalars(block, self.config), end - ago[0], end - ago[1])))


def scalars(block: Block, config: Config) -> dict[str, Sequence[float]]:
    """The values of every iteration of a block (with batches, of every epoch), by TensorBoard's tags.

    The time per iteration is the block's, divided evenly. It is unknown for rows read from a history, for an epoch
    whose training was interrupted, and for a block that was cut off because the loss is not finite.
    """
    count = len(block.losses)
    columns = {"loss": block.losses, **block.more}
    if config.lr != "auto":
        columns["lr"] = (config.lr,) * count
    found: dict[str, Sequence[float]] = {TAGS[name]: values for name, values in columns.items()}
    if math.isfinite(block.seconds) and math.isfinite(block.losses[-1]):
        found[f"training/seconds_per_{config.unit}"] = (block.seconds / count,) * count
    return found


def _framed(events: Iterable[Event]) -> bytes:
    """The bytes of events in an event file: each with its length, and checksums of both."""
    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString())
    return file.getvalue()


def _head(first: int) -> bytes:
    """The start of an event file whose values replace all older ones from iteration `first` on."""
    start = SessionLog(status=SessionLog.START)
    version = Event(wall_time=time.time(), file_version="brain.Event:2")
    return _framed([version, Event(wall_time=time.time(), step=first, session_log=start)])


def _events(block: Block, values: Mapping[str, Sequence[float]], start: float, end: float) -> Iterator[Event]:
    """An event for each of the block's rows, with times spread evenly from `start` to `end`."""
    event = Event()  # reused: creating one takes three times as long as filling it
    slots = [event.summary.value.add(tag=tag) for tag in values]
    each = (end - start) / len(block.losses)
    for i, row in enumerate(zip(*values.values(), strict=True)):
        event.wall_time, event.step = start + (i + 1) * each, block.first + i
        for slot, value in zip(slots, row, strict=True):
            slot.simple_value = value  # a float32: larger numbers become infinite
        yield event
