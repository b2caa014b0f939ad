"""The command `train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from twolayer.errors import RunError
from twolayer.runs import checkpoint_interval, folder, names
from twolayer.runs.run_files import INFO

if TYPE_CHECKING:
    from twolayer.cli.training_session import Session
    from twolayer.config.validation import Resolved
    from twolayer.runs.tensorboard import Writer

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
    _check_options(context)
    sets = set_ or []
    if resume is not None:
        session = _resumed(resume, sets, context, checkpoint_every, tensorboard=tensorboard)
    elif no_save:
        session = _unsaved(config, sets, context)
    else:
        session = _new(config, sets, context, checkpoint_every, out=out, note=note, tensorboard=tensorboard)
    raise typer.Exit(session.run(format_, quiet=quiet))


def _check_options(context: typer.Context) -> None:
    """Raise BadParameter, or RunError, where options exclude each other or cannot be right."""
    given = context.params
    if given["quiet"] and given["format_"] != "table":
        raise typer.BadParameter(f"--quiet prints no rows, and --format {given['format_']} only rows; use one of them")
    for name in ("out", "note", "resume", "tensorboard", "checkpoint_every"):
        if given["no_save"] and given[name]:
            raise typer.BadParameter(f"--{name.replace('_', '-')} requires a run folder; remove --no-save")
    if given["resume"] is not None:
        source = context.get_parameter_source("config")
        is_config_given = source is not None and source.name == "COMMANDLINE"
        for name, is_given in (("CONFIG", is_config_given), ("--out", given["out"]), ("--note", given["note"])):
            if is_given:
                raise typer.BadParameter(f"--resume continues an existing run; remove {name}")
    elif given["out"] is not None:
        names.check_free(given["out"])
    folder.check_note(given["note"] or "")


def _new(
    config: str,
    sets: list[str],
    context: typer.Context,
    every: str | None,
    *,
    out: Path | None,
    note: str | None,
    tensorboard: bool,
) -> Session:
    """A training in a new run folder."""
    resolved = _told(resolve(config, sets, context, saved=True))
    interval = checkpoint_interval.parse(every or "30s")
    writer = _event_writer() if tensorboard else None
    return _sessions().new(resolved, config, interval, writer, out=out, note=note or "")


def _unsaved(config: str, sets: list[str], context: typer.Context) -> Session:
    """A training without a run folder."""
    resolved = _told(resolve(config, sets, context))
    return _sessions().unsaved(resolved, config)


def _resumed(name: str, sets: list[str], context: typer.Context, every: str | None, *, tensorboard: bool) -> Session:
    """A training that continues in its run folder, with the run's own options where none are given."""
    run = folder.open_for_resume(names.find(name))
    resolved = _told(resolve_again(run, sets, context))
    try:
        interval = checkpoint_interval.parse(every or str(run.info.get("checkpoint_every", "30s")))
    except RunError:
        if every:
            raise
        reason = "is damaged: checkpoint_every: not a valid value"
        raise RunError(reason, path=run.path / INFO, hint="add --checkpoint-every 30s") from None
    writer = _event_writer() if tensorboard or run.info.get("tensorboard") is True else None
    return _sessions().resumed(run, resolved, interval, writer)


def _told(resolved: Resolved) -> Resolved:
    """The same, after the user was told what is to be known about its table."""
    for line in resolved.table.notes if resolved.table is not None else ():
        terminal.note(line)
    return resolved


def _event_writer() -> type[Writer]:
    from twolayer.runs.tensorboard import Writer  # before torch: the library may be missing

    return Writer


def _sessions() -> type[Session]:
    """Import what computes, which takes a second: the config is known to be right by now."""
    with computing():
        from twolayer.cli.training_session import Session

    process.start_computing()
    return Session
