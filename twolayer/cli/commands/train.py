"""The command `train`."""

from __future__ import annotations

from typing import Annotated

import typer

from twolayer.cli import process, terminal
from twolayer.cli.options import (
    CheckpointOption,
    ConfigArgument,
    DeviceOption,
    EngineOption,
    EpochsOption,
    FormatOption,
    LogEveryOption,
    LrOption,
    NoSaveOption,
    NoteOption,
    OutOption,
    ResumeOption,
    SeedOption,
    SetOption,
    TargetOption,
    TensorBoardOption,
    ThreadsOption,
    resolve,
    resolve_again,
)
from twolayer.cli.process import computing
from twolayer.runs import folder

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer train scratch --epochs 1000 --set H=64")
def train(
    context: typer.Context,
    config: ConfigArgument = "default",
    device: DeviceOption = None,
    epochs: EpochsOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    log_every: LogEveryOption = None,
    target: TargetOption = None,
    set_: SetOption = None,
    out: OutOption = None,
    no_save: NoSaveOption = False,
    note: NoteOption = None,
    checkpoint_every: CheckpointOption = None,
    resume: ResumeOption = None,
    tensorboard: TensorBoardOption = False,
    format_: FormatOption = "table",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no rows, only the final loss and the time.")
    ] = False,
) -> None:
    """Train the network and print the loss of every iteration.

    The loss in a row is the one before that iteration's update; the loss after the last update is printed below. A run
    folder keeps the history, the checkpoints and the model; --resume continues from it, bit for bit.
    """
    if quiet and format_ != "table":
        raise typer.BadParameter(f"--quiet leaves out the rows that --format {format_} asks for; take one of them")
    if no_save and (out or note or resume or tensorboard or checkpoint_every):
        options = "--out, --note, --resume, --tensorboard or --checkpoint-every"
        raise typer.BadParameter(f"--no-save keeps no run folder; it does not go with {options}")
    if out is not None and not resume:
        folder.check_free(out)
    folder.check_note(note or "")
    if resume is None:
        resolved, run = resolve(config, set_ or [], context, saved=not no_save), None
        given = checkpoint_every or "30s"
    else:
        source = context.get_parameter_source("config")
        if out or note or (source is not None and source.name == "COMMANDLINE"):
            raise typer.BadParameter("--resume goes on with a run as it is; it goes with no CONFIG, --out or --note")
        run = folder.open_for_resume(folder.find(resume))
        resolved = resolve_again(run, set_ or [], context)
        given = checkpoint_every or str(run.info.get("checkpoint_every", "30s"))
        tensorboard = tensorboard or run.info.get("tensorboard") is True
    every = folder.every(given)
    if tensorboard:
        from twolayer.runs.tensorboard import Writer
    with computing():
        from twolayer.cli import training_session  # a second, nearly all of it torch
        from twolayer.training import loop, setup
        from twolayer.training.recorder import Recording, resume_recording, start_recording

    process.start_computing()
    full, data, model = setup.prepare(resolved.config, resolved.table)
    if not no_save:
        terminal.outlive_reader()
    if run is not None:
        fit, damages = resume_recording(run, full, data, model, every, tensorboard=tensorboard)
        for damage in damages:
            terminal.note(damage)
        if not fit.done:
            terminal.note(f"{run.path}: has no good checkpoint; it begins again at iteration 1")
    elif not no_save:
        fit = loop.Fit(model, data, full, cut_every=every.iterations)
        run = start_recording(fit, every, out=out, source=config, note=note or "", tensorboard=tensorboard)
    else:
        fit = loop.Fit(model, data, full)
    recorder = None
    if run is not None:
        writer = Writer(run, full, fit.done) if tensorboard else None
        recorder = Recording(run, fit, every, writer)
    name = config if resume is None else resolved.name
    raise typer.Exit(training_session.follow(fit, recorder, name, format_, quiet=quiet))
