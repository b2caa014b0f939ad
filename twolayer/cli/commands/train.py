"""The command `train`."""

from __future__ import annotations

import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twolayer.cli import process, sweeping, terminal
from twolayer.cli.options import (
    CheckpointOption,
    ClassesOption,
    ConfigArgument,
    DeviceOption,
    DryRunOption,
    EngineOption,
    EpochsOption,
    ExcludeOption,
    FoldsOption,
    FormatOption,
    InputsOption,
    JobsOption,
    LogEveryOption,
    LrOption,
    MissingOption,
    NoSaveOption,
    NoteOption,
    OutOption,
    RepeatsOption,
    ResumeOption,
    SeedOption,
    SeedsOption,
    SetOption,
    SweepOption,
    TargetOption,
    TensorBoardOption,
    ThreadsOption,
    home,
)
from twolayer.cli.process import computing
from twolayer.cli.ranks import EXCHANGE, JOIN, ExchangeOption, JoinOption, Others, RanksOption, dismissed, together
from twolayer.cli.resolving import resolve
from twolayer.cli.resume import needs_more, resolve_again
from twolayer.errors import RunError
from twolayer.runs import checkpoint_interval, folder, names
from twolayer.runs.run_files import INFO
from twolayer.sweeps.folder import is_sweep

if TYPE_CHECKING:
    from twolayer.cli.training_session import Session
    from twolayer.config.validation import Resolved
    from twolayer.runs.tensorboard import Writer

QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print no rows, only the final loss and the time.")]
ResumeOrStartOption = Annotated[
    Path | None,
    typer.Option(
        "--resume-or-start",
        metavar="DIR",
        help="Continue the run in DIR, or start it there: one command for jobs that are started again.",
        callback=home,
    ),
]

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
    inputs: InputsOption = None,
    exclude: ExcludeOption = None,
    missing: MissingOption = None,
    classes: ClassesOption = False,
    set_: SetOption = None,
    out: OutOption = None,
    no_save: NoSaveOption = False,
    note: NoteOption = None,
    checkpoint_every: CheckpointOption = None,
    resume: ResumeOption = None,
    resume_or_start: ResumeOrStartOption = None,
    folds: FoldsOption = None,
    repeats: RepeatsOption = None,
    seeds: SeedsOption = None,
    sweep: SweepOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    tensorboard: TensorBoardOption = False,
    format_: FormatOption = "table",
    quiet: QuietOption = False,
    ranks: RanksOption = None,
    join_timeout: JoinOption = JOIN,
    exchange_timeout: ExchangeOption = EXCHANGE,
) -> None:
    """Train the network and print the loss of every iteration.

    The loss in a row is the one before that iteration's update; the loss after the last update is printed below. A run
    folder keeps the history, the checkpoints and the model; --resume continues from it, bit for bit.

    With --folds 5 the rows of a table are split at random into five folds. Five networks are trained, each without one
    fold, and scored on that fold, beside a linear model and a constant. The means are the scores to expect on new rows.
    Then one network is trained on the whole table, as without --folds.

    With --seeds 10, or --sweep lr=1e-4,1e-3 --sweep H=32,64, each combination is trained as it would be alone, and a
    table compares them. They are saved together, and --resume continues what was stopped.

    --ranks 2 trains in two processes, with the same bits as `--set parts=12` in one. torchrun and its like start them
    on several machines.
    """
    with together(context) as others:
        _check_options(context)
        raise typer.Exit(_trained(config, set_ or [], context, others))


def _trained(config: str, sets: list[str], context: typer.Context, others: Others | None) -> int:
    """Train what the command line asks for; the exit code."""
    given = context.params
    if sweeping.is_sweep(context, is_launched=others is not None):
        return sweeping.start(config, sets, context)
    resume, place = given["resume"], given["resume_or_start"]
    if resume is not None and is_sweep(found := names.find(resume)):
        return sweeping.resume(found, context, is_launched=others is not None)
    if others is not None and given["folds"] is not None:
        raise typer.BadParameter("--folds trains in one process; remove it, or the ranks")
    if place is not None and place.is_dir():
        if not needs_more(place, resolve(config, sets, context, saved=True, alone=others is None).config):
            return dismissed(others)
        resume = str(place) if place.is_absolute() or place.parent.name else f"./{place}"
    every, tensorboard = given["checkpoint_every"], given["tensorboard"]
    try:
        if resume is not None:
            session = _resumed(resume, sets, context, every, others, tensorboard=tensorboard)
        elif given["no_save"]:
            session = _unsaved(config, sets, context, others)
        else:
            out = given["out"] or place
            session = _new(config, sets, context, every, others, out=out, note=given["note"], tensorboard=tensorboard)
    except KeyboardInterrupt:
        terminal.note("stopped before the training began: there is nothing to save")
        return process.exit_code(signal.SIGINT)
    with closing(session):
        code = session.run(given["format_"], quiet=given["quiet"])
        session.dismiss()
    return code


def _check_options(context: typer.Context) -> None:
    """Raise BadParameter, or RunError, where options exclude each other or cannot be right."""
    given = context.params
    if given["quiet"] and given["format_"] != "table":
        raise typer.BadParameter(f"--quiet prints no rows, and --format {given['format_']} only rows; use one of them")
    for name in ("out", "note", "resume", "tensorboard", "checkpoint_every"):
        if given["no_save"] and given[name]:
            raise typer.BadParameter(f"--{name.replace('_', '-')} requires a run folder; remove --no-save")
    if given["folds"] is not None and given["folds"] < 2:
        raise typer.BadParameter(f"--folds must be 2 or more, such as --folds 5, not {given['folds']}")
    if given["repeats"] is not None and (given["folds"] is None or given["repeats"] < 1):
        raise typer.BadParameter("--repeats must be 1 or more, and requires --folds, such as --folds 5 --repeats 3")
    for name in ("resume", "out", "no_save", "folds"):
        if given["resume_or_start"] is not None and given[name]:
            raise typer.BadParameter(f"--resume-or-start names the run; remove --{name.replace('_', '-')}")
    if given["resume"] is not None:
        if given["folds"] is not None:
            raise typer.BadParameter("--folds scores new trainings; remove it, or --resume")
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
    others: Others | None,
    *,
    out: Path | None,
    note: str | None,
    tensorboard: bool,
) -> Session:
    """A training in a new run folder."""
    resolved = _with_notes(_resolved(config, sets, context, others, saved=True))
    interval = checkpoint_interval.parse(every or "30s")
    writer = _event_writer() if tensorboard else None
    sessions = _sessions(others)
    resolved, found = _with_fold_scores(resolved, context)
    return sessions.new(resolved, config, interval, writer, others, out=out, note=note or "", more=found)


def _unsaved(config: str, sets: list[str], context: typer.Context, others: Others | None) -> Session:
    """A training without a run folder."""
    resolved = _with_notes(_resolved(config, sets, context, others, saved=False))
    sessions = _sessions(others)
    resolved, _ = _with_fold_scores(resolved, context)
    return sessions.unsaved(resolved, config, others)


def _resolved(config: str, sets: list[str], context: typer.Context, others: Others | None, *, saved: bool) -> Resolved:
    """The config, with --folds known to be of a table. Raises TwolayerError or BadParameter."""
    is_folded = context.params["folds"] is not None
    resolved = resolve(config, sets, context, saved=saved, keep_survey=is_folded, alone=others is None)
    if is_folded and resolved.table is None:
        raise typer.BadParameter("--folds requires a table: the data of this config are drawn, not read from a file")
    return resolved if others is None else others.check(resolved, saved=saved)


def _with_fold_scores(resolved: Resolved, context: typer.Context) -> tuple[Resolved, dict[str, Any]]:
    """With --folds show the scores of the folds; the config with what is left to train, and the scores for run.json."""
    if (count := context.params["folds"]) is None or resolved.table is None:
        return resolved, {}
    from twolayer.cli.folds_session import score_folds

    found = score_folds(resolved, count, context.params["repeats"] or 1, context.params["format_"])
    rest = replace(resolved, table=replace(resolved.table, survey=None))  # frees the rows as they were read
    return rest, {"folds": found}


def _resumed(
    name: str,
    sets: list[str],
    context: typer.Context,
    every: str | None,
    others: Others | None,
    *,
    tensorboard: bool,
) -> Session:
    """A training that continues in its run folder, with the run's own options where none are given."""
    run = folder.open_for_resume(names.find(name))
    resolved = _with_notes(resolve_again(run, sets, context, alone=others is None))
    if others is not None:
        resolved = others.check(resolved, saved=True, resumed=True)
    try:
        interval = checkpoint_interval.parse(every or str(run.info.get("checkpoint_every", "30s")))
    except RunError:
        if every:
            raise
        reason = "is damaged: checkpoint_every: not a valid value"
        raise RunError(reason, path=run.path / INFO, hint="add --checkpoint-every 30s") from None
    writer = _event_writer() if tensorboard or run.info.get("tensorboard") is True else None
    return _sessions(others).resumed(run, resolved, interval, writer, others)


def _with_notes(resolved: Resolved) -> Resolved:
    """The same, after the notes on its table have been printed."""
    for line in resolved.table.notes if resolved.table is not None else ():
        terminal.note(line)
    return resolved


def _event_writer() -> type[Writer]:
    from twolayer.runs.tensorboard import Writer  # before torch: the library may be missing

    return Writer


def _sessions(others: Others | None) -> type[Session]:
    """Import what computes, which takes a second: the config is known to be right by now."""
    if others is not None:
        others.start()
    with computing():
        from twolayer.cli.training_session import Session

    process.start_computing()
    return Session
