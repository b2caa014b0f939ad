"""A training in front of a user: its rows on the console, its run folder, and the signals that end it."""

from __future__ import annotations

import math
import shlex
import signal
from collections.abc import Mapping
from contextlib import suppress

from rich.text import Text

from twolayer.cli import process, progress, terminal
from twolayer.cli.terminal import err, out
from twolayer.errors import DataError, DivergedError, OutputError, TwolayerError
from twolayer.formatting import duration, safe
from twolayer.hardware.device import device_name
from twolayer.training.learning_rate import curvature, is_cheap
from twolayer.training.loop import Fit
from twolayer.training.recorder import Recording


def follow(
    fit: Fit, recorder: Recording | None, name: str, form: terminal.Format = "table", *, quiet: bool = False
) -> int:
    """Train to the end, or until a signal comes; the exit code."""
    before, aside = fit.done, form != "table"  # csv and jsonl have stdout to themselves
    try:
        try:
            if not quiet:
                _introduce(fit, recorder, name, aside=aside)
            view = progress.LossView(fit.config.columns, fit.config.epochs, fit.config.log_every, form, quiet=quiet)
            seconds, stopped = _train(fit, recorder, view)
        except KeyboardInterrupt:  # before the first iteration
            stopped = process.exit_code(signal.SIGINT)
        if stopped:
            return _interrupted(fit, recorder, stopped)
        outcome = recorder.complete() if recorder is not None else fit.finish()
        where = "the last update" if fit.best is None else f"{fit.config.unit} {outcome.kept}, the best"
        summary(where, outcome.scores, seconds, fit.done - before, fit.config.unit, stderr=aside)
    except Exception as error:  # noqa: BLE001 whatever it is, the run is told
        if recorder is None:
            raise _explained(error, fit) from None
        return _failed(fit, recorder, _explained(error, fit))
    if recorder is not None:
        _note_move(recorder)
        terminal.note(f"saved; {_what_next(fit, recorder)}")
    return 0


def _note_move(recorder: Recording) -> None:
    run, now = recorder.run, recorder.run.where()
    if not run.folder.is_at(run.path):
        where = f"in {now}" if now != run.path else "in the folder that was moved"
        terminal.note(f"{run.path}: was moved or removed while the training ran; the run is {where}")


def _what_next(fit: Fit, recorder: Recording) -> str:
    if fit.data.columns is not None:
        return f"to score other rows: twolayer evaluate {shlex.quote(str(recorder.run.where()))} DATA"
    return f"for more: {_again(recorder)} --epochs {2 * fit.done}"


def _introduce(fit: Fit, recorder: Recording | None, name: str, *, aside: bool) -> None:
    """Say what is trained, where it is kept, and what computes it."""
    config, rest = fit.config, fit.data.validation
    if recorder is not None:
        terminal.note(f"run {recorder.run.path}" + (f", from iteration {fit.done + 1}" if fit.done else ""))
    if not aside:
        terminal.say(str(fit.model))
    if rest is not None:
        terminal.note(f"{config.N} rows to train on, {len(rest.x)} to validate with; {config.D_in} inputs")
    if config.lr != "auto" and not fit.done and is_cheap(config):
        with suppress(DataError):  # then the loss is not finite either, and that is told
            limit = curvature(fit.model, fit.data, config).limit
            if config.lr > limit:
                terminal.note(f"lr {config.lr:g} is above {limit:.3g}, the largest stable step at the start")
    about(name, device_name(config.device), config.engine_name, config.threads, config.seed, stderr=aside)


def _train(fit: Fit, recorder: Recording | None, view: progress.LossView) -> tuple[float, int]:
    """Show and take down every block; the seconds they took, and the exit code where a signal ended it."""
    seconds = 0.0
    with process.Stop() as stop, view:
        for block in fit:
            seconds += block.seconds
            if recorder is not None:
                recorder.add(block)
            view.show(block)
            if stop.exit_code:
                break
    return seconds, 0 if fit.is_finished else stop.exit_code


def _interrupted(fit: Fit, recorder: Recording | None, exit_code: int) -> int:
    if recorder is not None:
        recorder.interrupt(exit_code)
    terminal.note(f"interrupted after {fit.done} of {fit.config.epochs} {fit.config.unit}s")
    if recorder is not None:
        _note_move(recorder)
        terminal.note(f"go on with: {_again(recorder)}")
    return exit_code


def _explained(error: Exception, fit: Fit) -> Exception:
    """A divergence with the largest stable step at the start; any other error as it is."""
    if isinstance(error, DivergedError):
        with suppress(TwolayerError):  # no memory for it, say: then the message is the shorter one
            data, model = fit.restart()
            limit = curvature(model, data, fit.config).limit
            lr = math.nan if fit.config.lr == "auto" else error.lr
            return DivergedError(error.iteration, error.loss, lr, limit, fit.config.unit)
    return error


def _failed(fit: Fit, recorder: Recording, error: Exception) -> int:
    """What went wrong comes first, then what is left."""
    recorder.fail(error)
    _note_move(recorder)
    if isinstance(error, OSError):
        terminal.drop_output()  # else what stdout still holds fails again at its next flush
        error = OutputError(error)
    if not isinstance(error, TwolayerError):
        raise error from None
    terminal.error(error)
    terminal.note(f"run {recorder.run.where()} keeps {_kept(recorder)}")
    return error.exit_code


def _kept(recorder: Recording) -> str:
    """What a run that ended by an error is good for."""
    if recorder.run.info.get("status") == "diverged":
        if "model_sha256" not in recorder.run.info:
            return "its history; the weights could not be written"
        return "the last weights that gave a finite loss, in model.safetensors"
    return f"its last checkpoint; go on with: {_again(recorder)}"


def _again(recorder: Recording) -> str:
    return f"twolayer train --resume {shlex.quote(str(recorder.run.where()))}"


def about(config: str, device: str, engine: str, threads: int | str, seed: int, *, stderr: bool = False) -> None:
    """The line on what is trained and what computes it."""
    where = err() if stderr else out()
    where.print(Text(safe(f"config {config}, device {device}, engine {engine}, threads {threads}, seed {seed}")))


def summary(
    where: str, scores: Mapping[str, float], seconds: float, rows: int, unit: str = "iteration", *, stderr: bool = False
) -> None:
    """The lines below the table: the scores of the weights that are kept, and the time."""
    console = err() if stderr else out()
    micro = "us" if console.options.ascii_only else "µs"
    each = f", {duration(seconds / rows, micro)} an {unit}" if rows else ""
    loss, *others = (f"{value:#.6g}" for value in scores.values())
    more = "".join(f", {name} {value}" for name, value in zip(list(scores)[1:], others, strict=True))
    console.print(Text(f"loss after {where}  {loss}{more}\ntraining time  {duration(seconds, micro)}{each}"))
