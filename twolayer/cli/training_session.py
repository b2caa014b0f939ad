"""A training in front of a user: its rows on the screen, its run folder, and the signals that end it."""

from __future__ import annotations

import math
import shlex
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.text import Text

from twolayer.cli import process, progress, terminal
from twolayer.cli.terminal import err, out
from twolayer.config.schema import Config
from twolayer.config.validation import Resolved
from twolayer.errors import DataError, DivergedError, OutputError, TwolayerError
from twolayer.formatting import duration, safe
from twolayer.hardware.device import device_name
from twolayer.runs import folder, names
from twolayer.runs.checkpoint_interval import CheckpointInterval
from twolayer.training.learning_rate import curvature, is_cheap
from twolayer.training.loop import Fit
from twolayer.training.recorder import Recording, resume_recording, start_recording
from twolayer.training.setup import prepare

if TYPE_CHECKING:
    from twolayer.runs.tensorboard import Writer


@dataclass
class Session:
    """A training that is ready to run: new in a run folder, unsaved, or resumed."""

    fit: Fit
    name: str  # of the config
    recorder: Recording | None = None

    @classmethod
    def new(
        cls,
        resolved: Resolved,
        name: str,
        every: CheckpointInterval,
        writer: type[Writer] | None,
        *,
        out: Path | None,
        note: str,
    ) -> Self:
        """A training with a new run folder, and with `writer` also TensorBoard's files. Raises TwolayerError."""
        config, data, model = prepare(resolved.config, resolved.table)
        terminal.outlive_reader()
        fit = Fit(model, data, config, cut_every=every.iterations)
        run = start_recording(fit, every, out=out, source=name, note=note, tensorboard=writer is not None)
        return cls(fit, name, Recording(run, fit, every, writer(run, config, 0) if writer else None))

    @classmethod
    def unsaved(cls, resolved: Resolved, name: str) -> Self:
        """A training without a run folder. Raises TwolayerError."""
        config, data, model = prepare(resolved.config, resolved.table)
        return cls(Fit(model, data, config), name)

    @classmethod
    def resumed(
        cls, run: folder.Run, resolved: Resolved, every: CheckpointInterval, writer: type[Writer] | None
    ) -> Self:
        """A run's training from its newest good checkpoint; says which are damaged. Raises TwolayerError."""
        config, data, model = prepare(resolved.config, resolved.table)
        terminal.outlive_reader()
        is_written = writer is not None
        fit, damages = resume_recording(run, config, data, model, every, tensorboard=is_written)
        for damage in damages:
            terminal.note(damage)
        if not fit.done:
            terminal.note(f"{run.path}: no checkpoint to resume from; it starts at iteration 1")
        return cls(fit, resolved.name, Recording(run, fit, every, writer(run, config, fit.done) if writer else None))

    def run(self, form: terminal.Format = "table", *, quiet: bool = False) -> int:
        """Train to the end, or until a signal comes; the exit code."""
        fit, recorder = self.fit, self.recorder
        before, aside = fit.done, form != "table"  # csv and jsonl have stdout to themselves
        try:
            try:
                if not quiet:
                    self._introduce(aside=aside)
                every = _log_every(fit.config, form)
                view = progress.LossView(fit.config.columns, fit.config.epochs, every, form, quiet=quiet)
                seconds, exit_code = self._train(view)
            except KeyboardInterrupt:  # before the first iteration
                exit_code = process.exit_code(signal.SIGINT)
            if exit_code:
                return self._interrupted(exit_code)
            outcome = recorder.complete() if recorder is not None else fit.finish()
            best = None if fit.best is None else outcome.kept
            summary(fit.config, best, outcome.scores, seconds, fit.done - before, stderr=aside)
        except Exception as error:  # noqa: BLE001 record any failure in run.json
            if recorder is None:
                raise self._explained(error) from None
            return self._failed(recorder, self._explained(error))
        if recorder is not None:
            _note_move(recorder)
            if recorder.run.where() is not None:  # else the folder at its path may be another run
                terminal.note(f"saved; {self._what_next(recorder)}")
        return 0

    def _introduce(self, *, aside: bool) -> None:
        """Say what is trained, where it is saved, and what it runs on."""
        fit, config, rest = self.fit, self.fit.config, self.fit.data.validation
        if self.recorder is not None:
            start = f", from {config.unit} {fit.done + 1}" if fit.done else ""
            terminal.note(f"run {self.recorder.run.path}{start}")
        if not aside:
            terminal.say(str(fit.model))
        if rest is not None:
            terminal.note(f"{config.N} rows to train on, {len(rest.x)} to validate with; {config.D_in} inputs")
        if config.average is not None:
            what = "val_loss is of" if rest is not None else "saved are"
            terminal.note(f"{what} the weights {config.weights}")
        if config.lr != "auto" and not fit.done and is_cheap(config):
            with suppress(DataError):  # then the loss is not finite either, which is an error of its own
                limit = curvature(fit.model, fit.data, config).limit
                if config.lr > limit:
                    terminal.note(
                        f"lr {config.lr:g} is above {limit:.3g}, the largest stable learning rate at the start"
                    )
        about(self.name, device_name(config.device), config.engine_name, config.threads, config.seed, stderr=aside)

    def _train(self, view: progress.LossView) -> tuple[float, int]:
        """Show and record every block; the seconds they took, and the exit code if a signal ended it."""
        seconds = 0.0
        with process.Stop() as stop, view:
            for block in self.fit:
                seconds += block.seconds
                if self.recorder is not None:
                    self.recorder.add(block)
                view.show(block)
                if stop.exit_code:
                    break
        return seconds, 0 if self.fit.is_finished else stop.exit_code

    def _interrupted(self, exit_code: int) -> int:
        if self.recorder is not None:
            self.recorder.interrupt(exit_code)
        terminal.note(f"interrupted after {self.fit.done} of {self.fit.config.epochs} {self.fit.config.unit}s")
        if self.recorder is not None:
            _note_move(self.recorder)
            if self.recorder.run.where() is not None:
                terminal.note(f"resume with: {_resume(self.recorder)}")
        return exit_code

    def _explained(self, error: Exception) -> Exception:
        """A divergence with the largest stable learning rate at the start; any other error unchanged."""
        if isinstance(error, DivergedError):
            with suppress(TwolayerError):  # such as too little memory: then the message is the shorter one
                data, model = self.fit.restart()
                limit = curvature(model, data, self.fit.config).limit
                lr = math.nan if self.fit.config.lr == "auto" else error.lr
                return DivergedError(error.iteration, error.loss, lr, limit, self.fit.config.unit)
        return error

    def _failed(self, recorder: Recording, error: Exception) -> int:
        """Say what went wrong, and then what is left."""
        recorder.fail(error)
        _note_move(recorder)
        if isinstance(error, OSError):
            terminal.drop_output()  # else what stdout still buffers fails again at its next flush
            error = OutputError(error)
        if not isinstance(error, TwolayerError):
            raise error from None
        terminal.error(error)
        if (now := recorder.run.where()) is not None:
            terminal.note(f"run {now} keeps {_kept(recorder)}")
        return error.exit_code

    def _what_next(self, recorder: Recording) -> str:
        run = _name(recorder)
        score = f"; evaluate on other data: twolayer evaluate {run} DATA" if self.fit.data.columns is not None else ""
        return f"see: twolayer show {run}, twolayer report {run}{score}"


def _log_every(config: Config, form: terminal.Format) -> int:
    """Every which row is printed: with `auto` all, but of a table on the screen some thirty."""
    if config.log_every != "auto":
        return config.log_every
    return max(1, config.epochs // 30) if form == "table" and config.data.source == "file" else 1


def _note_move(recorder: Recording) -> None:
    run, now = recorder.run, recorder.run.where()
    if now is None:
        terminal.note(f"{run.path}: was {run.folder.fate()} while the training ran")
    elif now != run.path:
        terminal.note(f"{run.path}: was moved while the training ran; the run is in {now}")


def _name(recorder: Recording) -> str:
    """The run as a command takes it: its name in runs/, or its path."""
    path = recorder.run.where() or recorder.run.path
    is_named = path.parent == names.RUNS and names.NAME.fullmatch(path.name) and not Path(path.name).is_dir()
    return shlex.quote(path.name if is_named else str(path))


def _kept(recorder: Recording) -> str:
    """What a run that ended with an error still has."""
    if recorder.run.info.get("status") == "diverged":
        if "model_sha256" not in recorder.run.info:
            return "its history; the weights could not be written"
        return "the last weights that gave a finite loss, in model.safetensors"
    return f"its last checkpoint; resume with: {_resume(recorder)}"


def _resume(recorder: Recording) -> str:
    return f"twolayer train --resume {_name(recorder)}"


def about(config: str, device: str, engine: str, threads: int | str, seed: int, *, stderr: bool = False) -> None:
    """Print the line on what is trained and what it runs on."""
    where = err() if stderr else out()
    where.print(Text(safe(f"config {config}, device {device}, engine {engine}, threads {threads}, seed {seed}")))


def summary(
    config: Config, best: int | None, scores: Mapping[str, float], seconds: float, rows: int, *, stderr: bool = False
) -> None:
    """Print the lines below the table: the scores of the saved weights, and the time.

    `best` is the epoch of those weights if they are the best ones by the validation loss, not the last.
    """
    console, unit = err() if stderr else out(), config.unit
    micro = "us" if console.options.ascii_only else "µs"
    each = f", {duration(seconds / rows, micro)} per {unit}" if rows else ""
    loss, *others = (f"{value:#.6g}" for value in scores.values())
    more = "".join(f", {name} {value}" for name, value in zip(list(scores)[1:], others, strict=True))
    start = "loss after the last update  " if config.average is None else "loss of the averaged weights  "
    start = start if best is None else f"best {unit} {best} (by val_loss): loss "
    console.print(Text(f"{start}{loss}{more}\ntraining time  {duration(seconds, micro)}{each}"))
