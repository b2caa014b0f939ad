"""The loss history: blocks of consecutive losses, the rows they are written as, and the reading of those."""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path


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
        if self.last % step and not math.isfinite(self.losses[-1]):
            yield (self.last, *(column[-1] for column in columns))


def csv_header(columns: Sequence[str]) -> str:
    """The head of a table of losses."""
    return ",".join(columns) + "\n"


def csv_row(row: Sequence[float]) -> str:
    """A row of csv; `float` reads back from it the very numbers."""
    return ",".join(map(repr, row)) + "\n"


def jsonl_row(columns: Sequence[str], row: Sequence[float]) -> str:
    """A row of JSON lines; what JSON has no number for (nan, inf) is null."""
    values = (value if math.isfinite(value) else None for value in row)
    return json.dumps(dict(zip(columns, values, strict=True))) + "\n"


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


def scan(path: Path) -> Figures:
    """The figures of a history file; a row that was cut off does not count."""
    figures = Figures()
    with path.open() as file:
        next(file, None)
        for row in file:
            if row.endswith("\n"):
                figures.add([float(row.split(",")[1])])
    return figures


def blocks(path: Path, rows: int = 1000) -> Iterator[Block]:
    """A history file in blocks of so many rows; how long they took is not known: nan."""
    with path.open() as file:
        _, _, *names = next(file).strip().split(",")
        first = 1
        while part := [tuple(map(float, line.split(",")))[1:] for line in islice(file, rows)]:
            losses, *more = zip(*part, strict=True)
            yield Block(first, losses, math.nan, dict(zip(names, more, strict=True)))
            first += len(part)


UNITS = ("iteration", "epoch")
MEASURES = ("loss", "accuracy", "val_loss", "val_accuracy", "lr")


class Reader:
    """What a history file holds, read as far as it is written; `read` takes in what has come since.

    `unit` is what a row is of, an iteration or an epoch; `columns` holds the numbers by what they measure, all equally
    many: entry i of each is of row i + 1. `problem` says what is wrong with the file, from the row after the last one
    here on; it is empty where nothing is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.unit, self.problem = UNITS[0], ""
        self.columns: dict[str, array[float]] = {"loss": array("d")}
        self._place = 0  # in bytes: what is behind it has been read

    def __len__(self) -> int:
        return len(self.columns["loss"])

    def row(self, index: int) -> tuple[int, *tuple[float, ...]]:
        """A row as it is written: its number (from 1), the loss, and what more."""
        return (index + 1, *(column[index] for column in self.columns.values()))

    def read(self) -> None:
        """Take in the rows that are whole; where the file is shorter than it was, all of it anew."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._place:  # a continuation has taken rows back
                    self._forget()
                file.seek(self._place)
                for line in file:
                    if self.problem or not line.endswith(b"\n"):  # that one is being written, or was cut off by a kill
                        break
                    if self._place:
                        self._add(line)
                    else:
                        self._start(line)
                    self._place += len(line)
        except FileNotFoundError:
            self.problem = "is gone"
        except OSError as error:
            self.problem = f"cannot be read: {error.strerror or error}"

    def _start(self, line: bytes) -> None:
        unit, *names = line.decode(errors="replace").strip().split(",")
        if (
            unit not in UNITS
            or names[:1] != ["loss"]
            or not set(names) <= set(MEASURES)
            or len(set(names)) < len(names)
        ):
            self.problem = "is damaged; it is no table of losses"
            return
        self.unit, self.columns = unit, {name: array("d") for name in names}

    def _add(self, line: bytes) -> None:
        number = len(self) + 1
        try:
            given, *values = map(float, line.split(b","))
        except ValueError:
            given, values = 0, []
        if given != number or len(values) != len(self.columns):
            self.problem = f"is damaged after row {number - 1}"
            return
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)
