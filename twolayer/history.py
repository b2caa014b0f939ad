"""The loss history: blocks of consecutive losses, and the rows they are written as."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
