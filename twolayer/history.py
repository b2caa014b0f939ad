"""The loss history: blocks of consecutive losses, and the rows they are written as."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Block:
    """The losses of consecutive iterations.

    `first` is the number of the first of them, counted from 1; `losses[i]` is the loss before update
    `first + i`; `seconds` is how long the computing of the block took.
    """

    first: int
    losses: tuple[float, ...]
    seconds: float
    lr: float | None = None  # the step of all of them, where it changes as training goes on

    @property
    def last(self) -> int:
        """The number of the last iteration in the block."""
        return self.first + len(self.losses) - 1

    def every(self, step: int) -> Iterator[tuple[int, float]]:
        """The iterations whose number is a multiple of `step`, and one that diverged; each with its loss."""
        start = -self.first % step
        yield from zip(range(self.first + start, self.last + 1, step), self.losses[start::step], strict=True)
        if self.last % step and not math.isfinite(self.losses[-1]):
            yield self.last, self.losses[-1]


def csv_header(lr: float | str) -> str:
    """The head of a table of losses; with the step, where that is `auto`."""
    return "iteration,loss,lr\n" if lr == "auto" else "iteration,loss\n"


def csv_row(iteration: int, loss: float, lr: float | None = None) -> str:
    """A row of csv; `float` reads back from it the very numbers."""
    return f"{iteration},{loss!r}\n" if lr is None else f"{iteration},{loss!r},{lr!r}\n"


def jsonl_row(iteration: int, loss: float, lr: float | None = None) -> str:
    """A row of JSON lines; a loss that JSON has no number for (nan, inf) is null."""
    row = {"iteration": iteration, "loss": loss if math.isfinite(loss) else None}
    return json.dumps(row if lr is None else row | {"lr": lr}) + "\n"


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
