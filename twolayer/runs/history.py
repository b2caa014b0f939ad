"""The loss history: blocks of consecutive losses, the rows they are written as, and the reading of those."""

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
from twolayer.formatting import json_number

MAX_LINE = 2**16  # bytes of a row; more is no row of ours, and may be gigabytes


@dataclass(frozen=True)
class Block:
    """The losses of consecutive iterations; with batches, of epochs.

    `first` is the number of the first of them, counted from 1; `losses[i]` is the loss before update
    `first + i`; `seconds` is how long the computing of the block took. `more` holds what else there is to tell of each,
    by the names in `Config.columns`: accuracy, val_loss, val_accuracy, lr.
    """

    first: int
    losses: tuple[float, ...]
    seconds: float
    more: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The number of the last iteration in the block."""
        return self.first + len(self.losses) - 1

    def every(self, step: int) -> Iterator[tuple[int, *tuple[float, ...]]]:
        """The rows whose number is a multiple of `step`, and one that diverged: the number, the loss, and what more."""
        start = -self.first % step
        columns = [self.losses, *self.more.values()]
        yield from zip(range(self.first + start, self.last + 1, step), *(c[start::step] for c in columns), strict=True)
        if self.losses and self.last % step and not math.isfinite(self.losses[-1]):
            yield (self.last, *(column[-1] for column in columns))


def csv_header(columns: Sequence[str]) -> str:
    """The head of a table of losses."""
    return ",".join(columns) + "\n"


def csv_row(row: Sequence[float]) -> str:
    """A row of csv; `float` reads back from it the very numbers."""
    return ",".join(map(repr, row)) + "\n"


def jsonl_row(columns: Sequence[str], row: Sequence[float]) -> str:
    """A row of JSON lines; what JSON has no number for (nan, inf) is null."""
    return json.dumps(dict(zip(columns, map(json_number, row), strict=True))) + "\n"


@dataclass
class Figures:
    """What can be said of a history in brief."""

    count: int = 0
    first: float | None = None
    best: float | None = None
    last: float | None = None

    def named(self) -> dict[str, float | None]:
        """The losses, as `run.json` has them."""
        return {"first_loss": self.first, "best_loss": self.best, "last_loss": self.last}

    def add(self, losses: Sequence[float]) -> None:
        """Take in the next losses."""
        finite = [loss for loss in losses if math.isfinite(loss)]
        if finite:
            self.first = finite[0] if not self.count else self.first
            self.best = min(finite) if self.best is None else min(self.best, *finite)
            self.last = finite[-1]
        self.count += len(losses)


def scan(file: BinaryIO) -> Figures:
    """The figures of a history; a row that was cut off does not count. Raises ValueError or IndexError for damage."""
    figures = Figures()
    file.readline(MAX_LINE)
    while (row := file.readline(MAX_LINE)).endswith(b"\n"):  # else what follows may be the rest of it
        figures.add([float(row.split(b",")[1])])
    if len(row) == MAX_LINE:
        raise ValueError("a row of more than 64 KiB")
    return figures


UNITS = ("iteration", "epoch")
MEASURES = ("loss", "accuracy", "val_loss", "val_accuracy", "lr")


class Reader:
    """What a history file holds, read as far as it is written; `read` takes in what has come since.

    `unit` is what a row is of, an iteration or an epoch; `columns` holds the numbers by what they measure, all equally
    many: entry i of each is of row i + 1. `problem` says what is wrong with the file, from the row after the last one
    here on; it is empty where nothing is.
    """

    def __init__(self, path: Path, folder: Folder | None = None) -> None:
        """Of the file at a path; or, in an open `folder`, of the one of that path's name."""
        self.path, self.folder, self.problem = path, folder, ""
        self._forget()

    def _forget(self) -> None:
        self.unit = UNITS[0]
        self.columns: dict[str, array[float]] = {"loss": array("d")}
        self._place, self._latest = 0, b""  # the bytes that have been read, and the last line of them

    def __len__(self) -> int:
        return len(self.columns["loss"])

    def figures(self) -> Figures:
        """The number of rows, and the first, best and last loss."""
        found = Figures()
        found.add(self.columns["loss"])
        return found

    def row(self, index: int) -> tuple[int, *tuple[float, ...]]:
        """A row as it is written: its number (from 1), the loss, and what more."""
        return (index + 1, *(column[index] for column in self.columns.values()))

    def read(self) -> None:
        """Take in the rows that have come since and are whole; all anew where rows that were here are others now."""
        self.problem = ""
        try:
            with open_regular(self.path) if self.folder is None else self.folder.open(self.path.name) as file:
                file.seek(self._place - len(self._latest))
                if file.read(len(self._latest)) != self._latest:  # a continuation has taken rows back
                    self._forget()
                    file.seek(0)
                if not self._latest:
                    line = file.readline(MAX_LINE)
                    if line.endswith(b"\n") or len(line) == MAX_LINE:
                        self._start(line)
                rest = b""  # of a line that is being written, or was cut off by a kill
                while self._latest and not self.problem and (part := file.read(2**20)):
                    end = part.rfind(b"\n") + 1  # `readlines` would go on after half a line, and take the rest for one
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
        """Take in the lines up to the first that is damaged: a line at a time would take five times as long."""
        if lines and not self._added(lines) and not all(self._added([line]) for line in lines):
            self.problem = f"is damaged after row {len(self)}"

    def _added(self, lines: Sequence[bytes]) -> bool:
        """Take in all the lines, or, where one is damaged, none; whether that was so."""
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
