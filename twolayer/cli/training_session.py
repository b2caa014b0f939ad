"""A training in front of a user: its rows on the screen, its run folder, and the signals that end it."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from twolayer.cli import process, progress, terminal
from twolayer.cli.ranks import Others, document, met, pace_lines
from twolayer.cli.training_lines import about, summary
from twolayer.config.schema import Config
from twolayer.config.validation import Resolved
from twolayer.errors import DataError, DivergedError, OutputError, TwolayerError
from twolayer.evaluation.remarks import FEW_ROWS
from twolayer.formatting import counted
from twolayer.hardware.device import device_name
from twolayer.runs import folder, names
from twolayer.runs.checkpoint_interval import CheckpointInterval
from twolayer.runs.history import Reader
from twolayer.runs.run_files import HISTORY
from twolayer.system.console import shell_words
from twolayer.training.learning_rate import curvature, is_cheap
from twolayer.training.loop import Fit
from twolayer.training.outcome import Outcome
from twolayer.training.pace import pace
from twolayer.training.recorder import Recording, start_recording
from twolayer.training.resuming import resume_recording
from twolayer.training.together import prepare_together

if TYPE_CHECKING:
    from twolayer.runs.tensorboard import Writer


@dataclass
class Session:
    """A training that is ready to run: new in a run folder, unsaved, or resumed."""

    fit: Fit
    name: str  # of the config
    recorder: Recording | None = None
    others: Others | None = None  # that train with this process
    best_row: tuple[int, float] = (0, math.inf)  # of the history, by the validation loss; and that loss

    @classmethod
    def new(
        cls,
        resolved: Resolved,
        name: str,
        every: CheckpointInterval,
        writer: type[Writer] | None,
        others: Others | None = None,
        *,
        out: Path | None,
        note: str,
        more: dict[str, Any],
    ) -> Self:
        """A training with a new run folder, and with `writer` also TensorBoard's files. Raises TwolayerError.

        `more` is kept in run.json as well.
        """
        config, data, model, group = prepare_together(resolved.config, resolved.table, met(others))
        terminal.outlive_reader()
        fit = Fit(model, data, config, cut_every=every.iterations, group=group)
        run = start_recording(
            fit, every, out=out, source=name, note=note, tensorboard=writer is not None, more=more | document(others)
        )
        return cls(fit, name, Recording(run, fit, every, writer(run, config, 0) if writer else None), others)

    @classmethod
    def unsaved(cls, resolved: Resolved, name: str, others: Others | None = None) -> Self:
        """A training without a run folder. Raises TwolayerError."""
        config, data, model, group = prepare_together(resolved.config, resolved.table, met(others))
        return cls(Fit(model, data, config, group=group), name, others=others)

    @classmethod
    def resumed(
        cls,
        run: folder.Run,
        resolved: Resolved,
        every: CheckpointInterval,
        writer: type[Writer] | None,
        others: Others | None = None,
    ) -> Self:
        """A run's training from its newest good checkpoint; says which are damaged. Raises TwolayerError."""
        config, data, model, group = prepare_together(resolved.config, resolved.table, met(others))
        terminal.outlive_reader()
        with_epochs = not resolved.origins["epochs"].line  # from the command line: the run's config has lines
        fit, damages = resume_recording(
            run,
            config,
            data,
            model,
            every,
            tensorboard=writer is not None,
            with_epochs=with_epochs,
            group=group,
            more=document(others),
        )
        for damage in damages:
            terminal.note(damage)
        if not fit.done and not fit.updates:
            terminal.note(f"{run.path}: no checkpoint to resume from; it starts at iteration 1")
        recorder = Recording(run, fit, every, writer(run, config, fit.done) if writer else None)
        session = cls(fit, resolved.name, recorder, others)
        history = Reader(run.path / HISTORY, run.folder)
        history.read()
        session._note_best(1, history.columns.get("val_loss", ()))
        return session

    def run(self, form: terminal.Format = "table", *, quiet: bool = False) -> int:
        """Train to the end, or until a signal comes; the exit code."""
        fit, recorder = self.fit, self.recorder
        before, aside = fit.progress, form != "table"  # csv and jsonl have stdout to themselves
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
            summary(best, outcome.scores, seconds, fit.progress - before, fit.config, last=fit.done, stderr=aside)
            for line in self._doubts(outcome):
                terminal.note(line)
        except Exception as error:  # noqa: BLE001 record any failure in run.json
            if recorder is None:
                raise self._explained(error) from None
            return self._failed(recorder, self._explained(error))
        if recorder is not None:
            _note_move(recorder)
            if recorder.run.where() is not None:  # else the folder at its path may be another run
                terminal.note(f"saved; {self._what_next(recorder)}")
        return 0

    def close(self) -> None:
        """Release the run folder, if there is one."""
        if self.recorder is not None:
            self.recorder.run.close()

    def dismiss(self) -> None:
        """Let the other processes go, if there are any and they can hear."""
        if self.others is not None and self.others.can_hear:
            self.fit.close()

    def _introduce(self, *, aside: bool) -> None:
        """Say what is trained, where it is saved, and what it runs on."""
        fit, config, rest = self.fit, self.fit.config, self.fit.data.validation
        if self.recorder is not None:
            start = f", from {config.unit} {fit.done + 1}" if fit.progress else ""
            start += f", update {fit.updates + 1} of {fit.batches}" if fit.updates else ""
            terminal.note(f"run {self.recorder.run.path}{start}")
        if fit.best is not None and fit.best.since == fit.done > 0:
            terminal.note(f"it had stopped early: the {config.patience} epochs of patience count from here")
        if not aside:
            terminal.say(str(fit.model))
        if rest is not None:
            terminal.note(f"{config.N} rows to train on, {len(rest.x)} to validate with; {config.D_in} inputs")
        if config.average is not None:
            what = "val_loss is of" if rest is not None else "saved are"
            terminal.note(f"{what} the weights {config.weights}")
        if config.lr != "auto" and not fit.progress and fit.data.share is None and is_cheap(config):
            with suppress(DataError):  # then the loss is not finite either, which is an error of its own
                limit = curvature(fit.model, fit.data, config).limit
                if config.lr > limit:
                    terminal.note(
                        f"lr {config.lr:g} is above {limit:.3g}, the largest stable learning rate at the start"
                    )
        for line in pace_lines(self.others, config, pace(fit)):
            terminal.note(line)
        about(self.name, device_name(config.device), config.engine_name, config.threads, config.seed, stderr=aside)

    def _train(self, view: progress.LossView) -> tuple[float, int]:
        """Show and record every block; the seconds they took, and the exit code if a signal ended it."""
        seconds = 0.0
        with process.Stop(self.fit.request_stop) as stop, view:
            for block in self.fit.pieces:
                seconds += block.seconds
                self._note_best(block.first, block.more.get("val_loss", ()))
                if self.recorder is not None:
                    self.recorder.add(block)
                view.show(block, (self.fit.updates, self.fit.batches))
                if self.others is not None and (code := self.others.signalled()):
                    stop.exit_code = stop.exit_code or code
                    stop.ask()
        return seconds, 0 if self.fit.is_finished else stop.exit_code

    def _doubts(self, outcome: Outcome) -> Iterator[str]:
        """Where the validation loss was better before, and where its rows are few."""
        fit, (row, best) = self.fit, self.best_row
        now = outcome.scores.get("val_loss", math.nan)
        if fit.best is None and best < now and f"{best:.3g}" != f"{now:.3g}":
            was = f"val_loss was best at {fit.config.unit} {row} ({best:.3g}) and is {now:.3g} now"
            yield f"{was}; with `patience` the best weights are kept"
        rest = fit.data.validation
        if rest is not None and (rows := len(rest.x)) < FEW_ROWS:
            start = f"{counted(rows, 'validation row')} {'is' if rows == 1 else 'are'} few"
            is_scored = self.recorder is not None and "folds" in self.recorder.run.info
            hint = "" if is_scored else "; --folds 5 measures on all rows"
            names = " and ".join(name for name in outcome.scores if name.startswith("val_"))
            yield f"{start}: on other rows {names} may differ much{hint}"

    def _note_best(self, first: int, losses: Sequence[float]) -> None:
        """Keep the best row so far; these are the validation losses of the rows from `first` on."""
        if losses and (best := min(losses)) < self.best_row[1]:
            self.best_row = first + list(losses).index(best), best

    def _interrupted(self, exit_code: int) -> int:
        if self.recorder is not None:
            self.recorder.interrupt(exit_code)
        fit, unit = self.fit, self.fit.config.unit
        within = f", in {unit} {fit.done + 1} after {fit.updates} of {fit.batches} updates" if fit.updates else ""
        terminal.note(f"interrupted after {fit.done} of {fit.config.epochs} {unit}s{within}")
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
    is_named = path.parent == names.RUNS and names.is_name(path.name) and not Path(path.name).is_dir()
    return shell_words([path.name if is_named else str(path)])


def _kept(recorder: Recording) -> str:
    """What a run that ended with an error still has."""
    if recorder.run.info.get("status") == "diverged":
        if "model_sha256" not in recorder.run.info:
            return "its history; the weights could not be written"
        return "the last weights that gave a finite loss, in model.safetensors"
    return f"its last checkpoint; resume with: {_resume(recorder)}"


def _resume(recorder: Recording) -> str:
    return f"twolayer train --resume {_name(recorder)}"
