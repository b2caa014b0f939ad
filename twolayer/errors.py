"""Every exception of twolayer. Each expected failure is a `TwolayerError` with its exit code:

TwolayerError           1
    ConfigError         2
    RunError            1, or 2 for a wrong command line
        NotARunError
        NoRowsError
    DataError           1
        TableError
        StateError
    DeviceError         1
    RankError           1, or that of the other process
    OutputError         1
    DisagreementError   1
    DivergedError       3
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from twolayer.formatting import counted, safe


class TwolayerError(Exception):
    """Something could not be done; the message says what, why, and what to do next.

    It may contain names of files, columns and cells: `str` escapes every character that a terminal could act on.
    """

    exit_code = 1

    def __str__(self) -> str:
        return safe(super().__str__())


@dataclass(frozen=True)
class Origin:
    """The source of a value: a file with line and column (from 1), a variable, an option, or the default."""

    name: str
    line: int = 0  # 0: it has no lines
    column: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name

    @property
    def place(self) -> str:
        """The origin with line and column, as compilers and editors write it."""
        return f"{self}:{self.column}" if self.line else self.name


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a config: where, in which key, what, and what to do about it."""

    origin: Origin
    key: str  # dotted; empty if the problem is not in one key
    message: str
    hint: str = ""

    @property
    def sentence(self) -> str:
        """The message with its hint."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    @property
    def label(self) -> str:
        """The key, to be shown after the place; empty if the place names it: --lr, lr=, --set lr=1."""
        own = self.origin.name in (f"--{self.key.replace('_', '-')}", f"{self.key}=")
        return "" if own or self.origin.name.startswith((f"--set {self.key}=", f"--sweep {self.key}=")) else self.key

    def __str__(self) -> str:
        key = f"{self.label}: " if self.label else ""
        return safe(f"{self.origin.place}: {key}{self.sentence}")


class ConfigError(TwolayerError):
    """The config cannot be used; `problems` holds everything that is wrong with it, in the order of the file."""

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


class NoRowsError(RunError):
    """The rows that a run was trained on are not there any more, or there are others now."""


class DataError(TwolayerError):
    """The data cannot be trained on."""


class MissingFileError(DataError):
    """There is no file of the name that was given for a table."""

    exit_code = 2


class ExtraError(DataError):
    """What reads these data, or works on them, is in an extra that is not installed."""


@dataclass(frozen=True)
class TableProblem:
    """One thing that keeps a table from being trained on.

    `text` is a sentence about the table: what is wrong, why, and what to do about it. `fix` holds the keys that mend
    it, with their values as text, such as `(("data.exclude", "name"),)`: one pair for each column of a key that is a
    list of columns. It is empty where only another file, or a choice that nobody can make for the user, helps.
    """

    text: str
    fix: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return safe(self.text)


class TableError(DataError):
    """The table called `name` cannot be trained on; `problems` holds everything that is wrong with it.

    The message is one line for one problem; for several the first line counts them, and each has a line of its own.
    `command` is the command line that works, where one was tried out; the message is without it.
    """

    def __init__(self, name: str, problems: Iterable[str | TableProblem], command: str = "") -> None:
        self.name, self.command = name, command
        self.problems = tuple(TableProblem(what) if isinstance(what, str) else what for what in problems)
        super().__init__(str(self))

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"{safe(self.name)}: {self.problems[0]}"
        lines = (f"{safe(self.name)}: {counted(len(self.problems), 'problem')}", *map(str, self.problems))
        return "\n  ".join(lines)


class StateError(DataError):
    """The state in a checkpoint does not belong to this training."""


class DeviceError(TwolayerError):
    """The device is not available, or has too little memory."""


class RankError(TwolayerError):
    """A process that trains together with this one has failed, is gone, or does not answer; its exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


@contextmanager
def extra(package: str, name: str) -> Iterator[None]:
    """Inside, an import needs a package of an extra: if it is missing, say how to install it. Raises DataError."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == package:
            raise ExtraError(f"this needs {package}: pip install 'twolayer[{name}]'") from None
        raise


class OutputError(TwolayerError):
    """The output of a command cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written: {error.strerror or error}")


class DisagreementError(TwolayerError):
    """Engines compute other losses than the reference; `names` says which engines."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(f"the losses differ from those of autograd: {', '.join(names)}")


class DivergedError(TwolayerError):
    """The loss is no longer a finite number.

    `iteration` is the first one (counted from 1) whose loss is not finite, epochs + 1 for the loss after the last
    update; `loss` is that loss. `limit` is the largest stable learning rate at the start, 2 / lambda, if it was
    measured. With batches the `unit` is an epoch: its loss is that of many updates.
    """

    exit_code = 3

    def __init__(
        self, iteration: int, loss: float, lr: float, limit: float = math.nan, unit: str = "iteration"
    ) -> None:
        self.iteration, self.loss, self.lr, self.limit = iteration, loss, lr, limit
        reason = _why_diverged(lr, limit)
        if unit != "iteration":
            place = f"in {unit} {iteration}"
        elif iteration == 1:
            place = "at iteration 1, before any update"
            reason = "the data or the initial weights are too large for the dtype"
        else:
            place = f"at iteration {iteration}, after {counted(iteration - 1, 'update')}"
        super().__init__(f"the loss is {loss} {place}: {reason}")


def _why_diverged(lr: float, limit: float) -> str:
    """Why a learning rate (nan: auto) diverged, and what to try; `limit` is the largest stable one (nan: unknown)."""
    if not math.isfinite(lr):
        return "the curvature has grown faster than lr auto has followed; try a number"
    if not math.isfinite(limit):
        return f"lr {lr:g} is too large here; try a tenth of it"
    if lr > limit:
        above = f"lr {lr:g} is above {limit:.3g}, the largest stable learning rate at the start"
        return f"{above}; try {limit / 2:.2g}, or auto"
    return f"the largest stable learning rate was {limit:.3g} at the start, and has fallen below lr {lr:g}; try auto"
