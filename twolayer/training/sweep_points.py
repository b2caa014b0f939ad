"""Trains the points of a sweep one after another: each as `twolayer train` trains it alone, bit for bit."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from twolayer.config import from_table
from twolayer.config.from_table import Tables
from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.errors import DivergedError, TwolayerError
from twolayer.formatting import json_number
from twolayer.runs import checkpoint_interval, table_paths
from twolayer.runs.checkpoint_interval import CheckpointInterval
from twolayer.runs.folder import Run, open_for_resume
from twolayer.runs.history import Block, Figures, join
from twolayer.runs.saved_run import load_config
from twolayer.sweeps.folder import POINT
from twolayer.sweeps.points import Point
from twolayer.sweeps.results import Result, result_of
from twolayer.training.loop import Fit
from twolayer.training.recorder import Recording, start_recording
from twolayer.training.resuming import resume_recording
from twolayer.training.setup import prepare


@dataclass(frozen=True)
class Job:
    """What the trainings of a sweep have in common.

    `folder` is the sweep's, None where nothing is saved; `rows` are the iterations (from 1) whose losses are wanted.
    `moved` are the paths of tables that are elsewhere now, by those of the points' configs.
    """

    source: str
    folder: Path | None = None
    every: CheckpointInterval = field(default_factory=lambda: checkpoint_interval.parse("30s"))
    note: str = ""
    tensorboard: bool = False
    rows: Sequence[int] = ()
    moved: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """How far the training of a point is: iterations (with batches, epochs) of all, and the last loss."""

    point: Point
    done: float
    total: int
    loss: float | None


@dataclass(frozen=True)
class Ended:
    """A point has ended, with this result. `losses` are those of the job's rows, as far as there are any."""

    result: Result
    losses: Mapping[int, float]
    fit: Fit | None = None
    block: Block | None = None  # all losses, where they were kept


Event = Progress | Ended


@dataclass
class _Seen:
    """What was seen of a training that is not saved."""

    figures: Figures = field(default_factory=Figures)
    seconds: float = 0.0
    losses: dict[int, float] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)

    def add(self, block: Block, rows: Sequence[int], *, keep: bool) -> None:
        """Add a block; keep the losses of these rows, or with `keep` all."""
        self.figures.add(block.losses)
        self.seconds += block.seconds
        self.losses |= {row: block.losses[row - block.first] for row in rows if block.first <= row <= block.last}
        self.blocks += [block] if keep else []

    def named(self) -> dict[str, Any]:
        """The figures, with the keys of run.json."""
        return {"iterations": self.figures.count, **self.figures.named(), "seconds": self.seconds}


class Trainer:
    """Trains points in this process; with `keep`, their losses are in the events."""

    def __init__(self, job: Job, *, keep: bool = False) -> None:
        self.job, self.keep, self.is_stopping, self.exit_code = job, keep, False, 130
        self._fit: Fit | None = None
        self._table: Tables = []  # of the last point, for the next one that has it

    def request_stop(self, exit_code: int) -> None:
        """End the current training soon, with a checkpoint, and begin no other; safe in a signal handler.

        `exit_code` is that of the signal that asks for it.
        """
        self.is_stopping, self.exit_code = True, exit_code
        if (fit := self._fit) is not None:
            fit.request_stop()

    def events(self, points: Sequence[tuple[Point, str]]) -> Generator[Event, None, None]:
        """Train these points; beside each is the name of its run folder, if it has one already."""
        for point, existing in points:
            if self.is_stopping:
                return
            yield from self.train(point, existing)

    def train(self, point: Point, existing: str = "") -> Iterator[Event]:
        """Train a point, and yield its result last. A failure is a result, too."""
        seen, fit = _Seen(), None
        recording: Recording | None = None
        with ExitStack() as stack:
            try:
                fit, recording = self._begin(point, existing, stack)
                self._fit = fit
                if self.is_stopping:
                    fit.request_stop()
                for block in fit.pieces:
                    if recording is not None:
                        recording.add(block)
                    seen.add(block, self.job.rows, keep=self.keep)
                    loss = block.losses[-1] if block.losses else None
                    yield Progress(point, fit.progress, fit.config.epochs, loss)
                result = self._end(point, fit, recording, seen)
            except Exception as error:  # noqa: BLE001 the other points are trained nevertheless
                result = _failed(point, error, fit, recording, existing, seen)
            finally:
                self._fit = None
        yield Ended(result, seen.losses, fit, join(seen.blocks) if seen.blocks else None)

    def _begin(self, point: Point, existing: str, stack: ExitStack) -> tuple[Fit, Recording | None]:
        """The training, new or from its run folder."""
        job = self.job
        if job.folder is None:
            config, data, model = self._prepare(point.config)
            return Fit(model, data, config), None
        before = table_paths.tables(point.config)
        tables = {key: job.moved.get(path, path) for key, path in before.items()}
        if existing:
            run = stack.enter_context(open_for_resume(job.folder / existing))
            own = load_config(run.path, run.info.get("config_sha256"))
            config, data, model = self._prepare(table_paths.at(own, tables))
            fit, _ = resume_recording(run, config, data, model, job.every, tensorboard=job.tensorboard)
        else:
            config, data, model = self._prepare(table_paths.at(point.config, tables))
            fit = Fit(model, data, config, cut_every=job.every.iterations)
            run = start_recording(
                fit, job.every, out=job.folder / point.name, source=job.source, note=job.note,
                tensorboard=job.tensorboard, more={POINT: point.sha256}, clean=False,
            )  # fmt: skip
            stack.enter_context(run)
        return fit, Recording(run, fit, job.every, self._writer(run, fit))

    def _prepare(self, config: Config) -> tuple[Config, Data, nn.Sequential]:
        with from_table.sharing(self._table):
            return prepare(config)

    def _writer(self, run: Run, fit: Fit) -> Any:
        if not self.job.tensorboard:
            return None
        from twolayer.runs.tensorboard import Writer  # the library may be missing

        return Writer(run, fit.config, fit.done)

    def _end(self, point: Point, fit: Fit, recording: Recording | None, seen: _Seen) -> Result:
        """The result of a training that has ended, or was stopped."""
        if not fit.is_finished:
            if recording is not None:
                recording.interrupt(self.exit_code)
                return result_of(point, recording.run.info, recording.run.path.name)
            return Result(point, "interrupted", seen.named())
        if recording is not None:
            recording.complete()
            return result_of(point, recording.run.info, recording.run.path.name)
        scores = {f"final_{name}": json_number(value) for name, value in fit.finish().scores.items()}
        return Result(point, "completed", seen.named() | scores)


def _failed(
    point: Point, error: Exception, fit: Fit | None, recording: Recording | None, existing: str, seen: _Seen
) -> Result:
    """The result of a training that ended with an error."""
    has_diverged = isinstance(error, DivergedError)
    if recording is not None:
        recording.fail(error)
    if recording is not None and has_diverged and recording.run.info.get("status") == "diverged":
        return result_of(point, recording.run.info, recording.run.path.name)
    message = str(error) if isinstance(error, (TwolayerError, OSError)) else f"{type(error).__name__}: {error}"
    path = recording.run.path.name if recording is not None else existing
    known = seen.named() if fit is not None else {}
    if has_diverged and recording is None:
        return Result(point, "diverged", known)
    return Result(point, "failed", known, path, " ".join(message.split()))
