"""A training in front of a user: its rows on the console, its run folder, and the signals that end it."""

from __future__ import annotations

import math
import shlex
from contextlib import suppress

from twolayer import console, process
from twolayer.data import Data
from twolayer.errors import DivergedError, TwolayerError
from twolayer.model import device_name
from twolayer.recording import Recording
from twolayer.runs import MODEL, Run
from twolayer.stepsize import curvature, is_cheap
from twolayer.training import Fit, final_loss, prepare


def begin(fit: Fit, run: Run | None, name: str, form: console.Format, *, quiet: bool) -> None:
    """Say what is trained, where it is kept, and what computes it."""
    if quiet:
        return
    config, aside = fit.config, form != "table"  # csv and jsonl have stdout to themselves
    if run is not None:
        console.note(f"run {run.path}" + (f", from iteration {fit.done + 1}" if fit.done else ""))
    if not aside:
        console.say(str(fit.model))
    if config.lr != "auto" and not fit.done and is_cheap(config):
        limit = curvature(fit.model, fit.data, config).limit
        if config.lr > limit:
            console.note(f"lr {config.lr:g} is above {limit:.3g}, the largest stable step at the start")
    console.about(name, device_name(config.device), config.engine_name, config.threads, config.seed, stderr=aside)


def follow(fit: Fit, data: Data, recorder: Recording | None, view: console.LossView, *, aside: bool) -> int:
    """Train to the end, or until a signal comes; the exit code."""
    seconds, before = 0.0, fit.done
    try:
        with process.Stop() as stop:
            with view:
                for block in fit:
                    seconds += block.seconds
                    if recorder is not None:
                        recorder.add(block)
                    view.show(block)
                    if stop.exit_code:
                        break
            if fit.done < fit.config.epochs:
                if recorder is not None:
                    recorder.interrupt(stop.exit_code)
                console.note(f"interrupted after {fit.done} of {fit.config.epochs} iterations")
                if recorder is not None:
                    console.note(f"go on with: {_again(recorder)}")
                return stop.exit_code
            loss = final_loss(fit.model, data, fit.config)
            if recorder is not None:
                recorder.complete(loss)
    except BaseException as error:
        if isinstance(error, DivergedError):
            with suppress(TwolayerError):  # no memory for it, say: then the message is the shorter one
                _, start_data, start_model = prepare(fit.config)
                limit = curvature(start_model, start_data, fit.config).limit
                lr = math.nan if fit.config.lr == "auto" else error.lr
                error = DivergedError(error.iteration, error.loss, lr, limit)
        if recorder is not None:
            recorder.fail(error)
            if isinstance(error, TwolayerError):  # what went wrong comes first, then what is left
                console.error(error)
                console.note(f"run {recorder.run.path} keeps {_kept(recorder)}")
                return error.exit_code
        raise error from None
    console.summary(loss, seconds, fit.done - before, stderr=aside)
    if recorder is not None:
        console.note(f"saved; for more: {_again(recorder)} --epochs {2 * fit.done}")
    return 0


def _kept(recorder: Recording) -> str:
    """What a run that ended by an error is good for."""
    if recorder.run.info.get("status") == "diverged":
        if not (recorder.run.path / MODEL).exists():
            return "its history; the weights could not be written"
        return "the last weights that gave a finite loss, in model.safetensors"
    return f"its last checkpoint; go on with: {_again(recorder)}"


def _again(recorder: Recording) -> str:
    return f"twolayer train --resume {shlex.quote(str(recorder.run.path))}"
