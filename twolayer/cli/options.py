"""The options that commands share, and the config that they make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from twolayer.cli import terminal
from twolayer.config import loading, schema, validation
from twolayer.config.bundled import bundled
from twolayer.config.schema import flat
from twolayer.config.validation import show
from twolayer.errors import ConfigError, DataError, Origin, Problem, RunError
from twolayer.hardware import memory
from twolayer.runs.folder import Run
from twolayer.runs.run_files import CONFIG, read_config
from twolayer.tables.options import FileData, is_table
from twolayer.tables.panics import without_panics

# The keys that have an option of their own, and those that may be others when a run goes on.
NAMED = ("device", "epochs", "lr", "seed", "engine", "threads", "log_every")
CHANGEABLE = ("epochs", "log_every", "device")

TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="COLUMN", help="The column of a table to predict; repeatable."),
]
ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, a bundled config (default, scratch, modules, diabetes), or a table, such as my.csv.",
        autocompletion=lambda: list(bundled()),
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run of a table: its folder, or its name in runs.")]
SavedArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run: its folder, or its name in runs.")]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN", help="Runs: their folders, or their names in runs.", show_default=False)
]
DataArgument = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A table with the run's input columns; - reads CSV or NDJSON from a pipe."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:<n>, mps or auto.")
]
EpochsOption = Annotated[str | None, typer.Option("--epochs", metavar="INT", help="Passes over the data.")]
LrOption = Annotated[str | None, typer.Option("--lr", metavar="FLOAT|auto", help="The step of gradient descent.")]
SeedOption = Annotated[str | None, typer.Option("--seed", metavar="INT", help="Draws the data and the weights.")]
EngineOption = Annotated[
    str | None, typer.Option("--engine", metavar="ENGINE", help="auto, autograd, manual or fused.")
]
ThreadsOption = Annotated[str | None, typer.Option("--threads", metavar="INT|auto", help="CPU threads.")]
LogEveryOption = Annotated[
    str | None, typer.Option("--log-every", metavar="INT", help="Print every so many iterations.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of the config, such as H=200 or data.noise=0.5; repeatable.",
    ),
]
FormatOption = Annotated[terminal.Format, typer.Option("--format", help="How rows are printed.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run folder; runs/<config>-<n>, unless given.")
]
NoSaveOption = Annotated[bool, typer.Option("--no-save", help="Keep no run folder.")]
NoteOption = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A note to keep with the run.")]
TensorBoardOption = Annotated[
    bool, typer.Option("--tensorboard", help="Write TensorBoard's event files into the run folder, too.")
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint-every",
        metavar="INT|<n>s",
        help="A checkpoint every so many iterations, or seconds; 30s, unless given.",
    ),
]
ResumeOption = Annotated[
    str | None, typer.Option("--resume", metavar="RUN", help="Go on with a run, up to --epochs iterations in all.")
]

ScaleOption = Annotated[
    Literal["auto", "log", "linear"],
    typer.Option("--scale", help="Of the loss; auto takes log where losses span a factor of 100."),
]


def resolve_again(run: Run, sets: Sequence[str], context: typer.Context) -> validation.Resolved:
    """A run's own config, with what may be changed for its continuation."""
    source = str(run.path.absolute() / CONFIG)
    raw = read_config(run.path, run.folder)
    before = loading.resolve(source, environment={}, read=False, raw=raw)
    try:
        with without_panics():
            after = loading.resolve(source, environment={}, overrides=_overrides(sets, context), raw=raw)
    except ConfigError as error:
        if {problem.key for problem in error.problems} <= set(schema.SIZES):  # which only the table can have changed
            what = "; ".join(f"{problem.key} {problem.message}" for problem in error.problems)
            raise RunError(f"{run.path}: its table has changed since: {what.removesuffix('; leave it out')}") from None
        raise
    own = dict(flat(before.config))
    changed = [(key, value) for key, value in flat(after.config) if own.get(key) != value]
    if wrong := [
        f"{key} is {show(own.get(key))}, not {show(value)}" for key, value in changed if key not in CHANGEABLE
    ]:
        message = f"{run.path}: {'; '.join(wrong)}: a run goes on as it began; only {', '.join(CHANGEABLE)} may change"
        raise RunError(message, usage=True)
    if run.info.get("status") == "diverged":
        raise RunError(f"{run.path}: has diverged, and would again; start a new run with a smaller lr", usage=True)
    memory.check(after.config, after.name, saved=True)
    return validation.Resolved(after.config, str(run.info.get("config", after.name)), after.origins, after.table)


def resolve_data(source: str, sets: Sequence[str], context: typer.Context) -> tuple[FileData, list[str]]:
    """The table that a config names, or that stands in its place, and the targets, which may still be missing."""
    overrides = list(_overrides(sets, context))
    is_open = is_table(source) and not any(override.path[:2] == ("data", "target") for override in overrides)
    if is_open:
        overrides.append(loading.Override(("data", "target"), "any", "--target"))
    data = loading.resolve(source, overrides=overrides, read=False).config.data
    if not isinstance(data, FileData):
        raise DataError(f"{source}: its data are drawn, not read from a file")
    return data, [] if is_open else data.target


def resolve(source: str, sets: Sequence[str], context: typer.Context, *, saved: bool = False) -> validation.Resolved:
    """The config with all that comes over it, known to fit into memory. Does not import torch."""
    malformed = [
        Problem(Origin(f"--set {text}"), "", "must be KEY=VALUE, such as --set lr=1e-3")
        for text in sets
        if text.find("=") < 1
    ]
    try:
        with without_panics():
            resolved = loading.resolve(source, overrides=_overrides(sets, context))
    except ConfigError as error:
        raise ConfigError([*error.problems, *malformed]) from None
    if malformed:
        raise ConfigError(malformed)
    memory.check(resolved.config, resolved.name, saved=saved)
    return resolved


def _overrides(sets: Sequence[str], context: typer.Context) -> Iterator[loading.Override]:
    for text in sets:
        key, _, value = text.partition("=")
        if text.find("=") > 0:
            yield loading.Override(tuple(key.split(".")), value, f"--set {text}")
    if given := context.params.get("target"):
        yield loading.Override(("data", "target"), json.dumps(given), "--target")
    for key in NAMED:
        if (given := context.params.get(key)) is not None:
            yield loading.Override((key,), given, f"--{key.replace('_', '-')}")
