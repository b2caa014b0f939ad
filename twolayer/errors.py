"""What twolayer raises: every expected failure is a `TwolayerError` that knows its exit code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from twolayer.formatting import safe


class TwolayerError(Exception):
    """Something that could not be done; the message says what, why, and what to do next.

    It may name files, columns and cells: as text, every character that a terminal could act on is an escape.
    """

    exit_code = 1

    def __str__(self) -> str:
        return safe(super().__str__())


@dataclass(frozen=True)
class Origin:
    """Where a value came from: a file with a line and a column (from 1), a variable, an option, or the default."""

    name: str
    line: int = 0  # 0: the place has no lines
    column: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name

    @property
    def place(self) -> str:
        """The origin to the column, as compilers and editors write it."""
        return f"{self}:{self.column}" if self.line else self.name


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a config: where it stands, which key, and what to do about it."""

    origin: Origin
    key: str  # dotted; empty where the problem is not a key's
    message: str

    @property
    def label(self) -> str:
        """The key, to be shown after the place; empty if the place is the key's own option, such as --lr."""
        return "" if self.origin.name == f"--{self.key.replace('_', '-')}" else self.key

    def __str__(self) -> str:
        key = f"{self.label}: " if self.label else ""
        return safe(f"{self.origin.place}  {key}{self.message}")


class ConfigError(TwolayerError):
    """The config cannot be used; `problems` holds all that is wrong with it, in the order it stands there."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class RunError(TwolayerError):
    """A run folder, or another file that is written, cannot be created, read or written, or a run cannot be resumed.

    `path` is the file or folder it is about, `reason` what is wrong with it, `hint` what to do about it. With `usage`
    the command line is wrong, and the exit code is 2.
    """

    def __init__(self, reason: str, *, path: Path | None = None, hint: str = "", usage: bool = False) -> None:
        self.path, self.reason, self.hint, self.usage = path, reason, hint, usage
        self.exit_code = 2 if usage else 1
        where = f"{path}: " if path is not None else ""
        super().__init__(f"{where}{reason}" + (f"; {hint}" if hint else ""))


class NotARunError(RunError):
    """A folder has no run.json: it is not a run folder, or its run.json is missing."""


class DataError(TwolayerError):
    """The data cannot be trained on."""


class StateError(DataError):
    """The state in a checkpoint is not one of this training."""


class DeviceError(TwolayerError):
    """The device cannot be had, or does not have the memory."""


@contextmanager
def extra(package: str, name: str) -> Iterator[None]:
    """Inside, an import that needs a package of an extra; where that is missing, say how to have it."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == package:
            raise DataError(f"this needs {package}: pip install 'twolayer[{name}]'") from None
        raise


class OutputError(TwolayerError):
    """What a command prints cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written: {error.strerror or error}")


class DisagreementError(TwolayerError):
    """An engine computes something else than the reference does: `names` says which ones."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(f"not the losses of autograd: {', '.join(names)}")


class DivergedError(TwolayerError):
    """The loss is no longer a finite number.

    `iteration` is the first one (counted from 1) whose loss is not finite, epochs + 1 for the loss after the last
    update; `loss` is that loss. `limit` is the largest stable step at the start, 2 / lambda, where it was measured.
    With batches the `unit` is an epoch: its loss is that of many updates.
    """

    exit_code = 3

    def __init__(
        self, iteration: int, loss: float, lr: float, limit: float = math.nan, unit: str = "iteration"
    ) -> None:
        self.iteration, self.loss, self.lr, self.limit = iteration, loss, lr, limit
        updates = "1 update" if iteration == 2 else f"{iteration - 1} updates"
        if not math.isfinite(lr):
            step = "the curvature has grown faster than lr auto has followed; try a number"
        elif not math.isfinite(limit):
            step = f"lr {lr:g} is too large a step here; try a tenth of it"
        elif lr > limit:
            step = f"lr {lr:g} is above {limit:.3g}, the largest stable step at the start; try {limit / 2:.2g}, or auto"
        else:
            step = f"the largest stable step was {limit:.3g} at the start, and has fallen below lr {lr:g}; try auto"
        if unit != "iteration":
            super().__init__(f"the loss is {loss} in {unit} {iteration}: {step}")
            return
        if iteration == 1:
            updates, step = "before any update", "the data or the initial weights are too large for the dtype"
        else:
            updates = f"after {updates}"
        super().__init__(f"the loss is {loss} at iteration {iteration}, {updates}: {step}")
