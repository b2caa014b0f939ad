"""The loss history: blocks of consecutive losses, and the rows of history.csv, written and read."""

from __future__ import annotations

import io
import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from twolayer.files import Folder, open_regular, unreadable
from twolayer.formatting import duration, json_number

MAX_LINE = 2**16  # bytes of a row; a longer line is not a row of ours, and may be gigabytes


@dataclass(frozen=True)
class Block:
    """The losses of consecutive iterations; with batches, of epochs. None, where it ended within an epoch.

    `first` is the number of the first of them, counted from 1; `losses[i]` is the loss before update
    `first + i`; `seconds` is the time that computing the block took. `more` has the other columns, by the names in
    `Config.columns`: accuracy, val_loss, val_accuracy, lr.
    """

    first: int
    losses: tuple[float, ...]
    seconds: float
    more: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        losses = f"loss {self.losses[0]:g} to {self.losses[-1]:g}" if self.losses else "no losses"
        return f"<Block {self.first} to {self.last}: {losses}, {duration(self.seconds)}>"

    @property
    def last(self) -> int:
        """The number of the last iteration in the block."""
        return self.first + len(self.losses) - 1

    def every(self, step: int) -> Iterator[tuple[int, *tuple[float, ...]]]:
        """The rows whose number is a multiple of `step`, and a diverged last one: number, loss and other columns."""
        start = -self.first % step
        columns = [self.losses, *self.more.values()]
        yield from zip(range(self.first + start, self.last + 1, step), *(c[start::step] for c in columns), strict=True)
        if self.losses and self.last % step and not math.isfinite(self.losses[-1]):
            yield (self.last, *(column[-1] for column in columns))


def join(blocks: Sequence[Block]) -> Block:
    """Consecutive blocks as one."""
    losses = tuple(loss for block in blocks for loss in block.losses)
    names = dict.fromkeys(name for block in blocks for name in block.more)
    more = {name: tuple(value for block in blocks for value in block.more.get(name, ())) for name in names}
    return Block(blocks[0].first, losses, sum(block.seconds for block in blocks), more)


def csv_header(columns: Sequence[str]) -> str:
    """The first line of a history."""
    return ",".join(columns) + "\n"


def csv_row(row: Sequence[float]) -> str:
    """A row of csv; reading it with `float` gives exactly the same numbers."""
    return ",".join(map(repr, row)) + "\n"


def jsonl_row(columns: Sequence[str], row: Sequence[float]) -> str:
    """A row of JSON lines; nan and inf, which JSON does not have, are null."""
    return json.dumps(dict(zip(columns, map(json_number, row), strict=True))) + "\n"


@dataclass
class Figures:
    """The number of losses, and the first, best (smallest) and last finite one."""

    count: int = 0
    first: float | None = None
    best: float | None = None
    last: float | None = None

    def named(self) -> dict[str, float | None]:
        """The losses, with the keys of `run.json`."""
        return {"first_loss": self.first, "best_loss": self.best, "last_loss": self.last}

    def add(self, losses: Sequence[float]) -> None:
        """Add the next losses."""
        finite = [loss for loss in losses if math.isfinite(loss)]
        if finite:
            self.first = finite[0] if not self.count else self.first
            self.best = min(finite) if self.best is None else min(self.best, *finite)
            self.last = finite[-1]
        self.count += len(losses)


def scan(file: BinaryIO) -> Figures:
    """The figures of a history, read without keeping its rows; a last row that was cut off is ignored.

    Raises ValueError or IndexError where the file is damaged.
    """
    figures = Figures()
    file.readline(MAX_LINE)
    while (row := file.readline(MAX_LINE)).endswith(b"\n"):  # else it is cut off, or longer than MAX_LINE
        figures.add([float(row.split(b",")[1])])
    if len(row) == MAX_LINE:
        raise ValueError("a row of more than 64 KiB")
    return figures


UNITS = ("iteration", "epoch")
MEASURES = ("loss", "accuracy", "val_loss", "val_accuracy", "lr")


class Reader:
    """The content of a history file, which may still grow: `read` adds the rows written since the last call.

    A row is of one `unit`, an iteration or an epoch. `columns` has the numbers by name, entry i of each from row i + 1.
    `problem` says what is wrong with the file after the last row that was read; empty where nothing is.
    """

    def __init__(self, path: Path, folder: Folder | None = None) -> None:
        """Read the file at a path; with `folder`, an open folder, the file in it that has the path's name."""
        self.path, self.folder, self.problem = path, folder, ""
        self._forget()

    def _forget(self) -> None:
        self.unit = UNITS[0]
        self.columns: dict[str, array[float]] = {"loss": array("d")}
        self._place, self._latest = 0, b""  # the number of bytes that were read, and their last line

    def __len__(self) -> int:
        return len(self.columns["loss"])

    def figures(self) -> Figures:
        """The number of rows, and the first, best and last loss."""
        found = Figures()
        found.add(self.columns["loss"])
        return found

    def row(self, index: int) -> tuple[int, *tuple[float, ...]]:
        """A row: its number (from 1), the loss, and the other columns."""
        return (index + 1, *(column[index] for column in self.columns.values()))

    def read(self) -> None:
        """Add the complete rows written since the last call; read all again where the file was cut back meanwhile."""
        self.problem = ""
        try:
            with open_regular(self.path) if self.folder is None else self.folder.open(self.path.name) as file:
                file.seek(self._place - len(self._latest))
                if file.read(len(self._latest)) != self._latest:  # a resumed training has removed rows
                    self._forget()
                    file.seek(0)
                if not self._latest:
                    line = file.readline(MAX_LINE)
                    if line.endswith(b"\n") or len(line) == MAX_LINE:
                        self._start(line)
                rest = b""  # of a line that is still being written, or was cut off by a kill
                while self._latest and not self.problem and (part := file.read(2**20)):
                    end = part.rfind(b"\n") + 1  # half a line must wait for its rest
                    self._add(io.BytesIO(rest + part[:end]).readlines() if end else [])
                    rest = part[end:] if end else rest + part
                    if len(rest) > MAX_LINE and not self.problem:
                        self.problem = f"is damaged after row {len(self)}"
        except FileNotFoundError:
            self.problem = "is missing"
        except OSError as error:
            self.problem = unreadable(error)

    def _start(self, line: bytes) -> None:
        unit, *names = line.decode(errors="replace").strip().split(",")
        if unit in UNITS and names[:1] == ["loss"] and len(set(names) & set(MEASURES)) == len(names):
            self.unit, self.columns = unit, {name: array("d") for name in names}
            self._place, self._latest = len(line), line
        else:
            self.problem = "is damaged: it is not a table of losses"

    def _add(self, lines: Sequence[bytes]) -> None:
        """Add the lines before the first damaged one. All at once, because one at a time takes five times as long."""
        if lines and not self._added(lines) and not all(self._added([line]) for line in lines):
            self.problem = f"is damaged after row {len(self)}"

    def _added(self, lines: Sequence[bytes]) -> bool:
        """Add all lines, or none and return False where one is damaged."""
        width, count = len(self.columns) + 1, len(self)
        try:
            values = list(map(float, b",".join(lines).split(b",")))
        except ValueError:
            return False
        if any(line.count(b",") != width - 1 for line in lines):
            return False
        if values[::width] != list(range(count + 1, count + len(lines) + 1)):
            return False
        for place, column in enumerate(self.columns.values(), 1):
            column.extend(values[place::width])
        self._place, self._latest = self._place + sum(map(len, lines)), lines[-1]
        return True
