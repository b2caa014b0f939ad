"""The options that commands share, and the config that they make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from twolayer.cli import completion, terminal
from twolayer.config import loading, schema, validation
from twolayer.config.schema import flat
from twolayer.config.validation import show
from twolayer.errors import ConfigError, DataError, Origin, Problem, RunError
from twolayer.hardware import memory
from twolayer.reporting.downsampling import Scale
from twolayer.runs.folder import Run
from twolayer.runs.run_files import CONFIG, read_config
from twolayer.tables.options import FileData, is_table
from twolayer.tables.panics import without_panics

# The keys that have an option of their own, and those that may change when a run is resumed.
NAMED = ("device", "epochs", "lr", "seed", "engine", "threads", "log_every")
READING = ("separator", "decimal", "header", "sheet")  # inside `data`
CHANGEABLE = ("epochs", "log_every", "device")

TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="COLUMN", help="A column of the table to predict; repeatable."),
]
ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, a bundled config (default, scratch, modules, diabetes), or a table, such as my.csv.",
        autocompletion=completion.configs,
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run on a table: its folder, or its name in runs/.", autocompletion=completion.runs
    ),
]
SavedArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run: its folder, or its name in runs/.", autocompletion=completion.runs),
]
RunsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="Runs: their folders, or their names in runs/.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A table with the run's input columns; - reads CSV or NDJSON from a pipe.",
        autocompletion=completion.tables,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where to compute: cpu, cuda, cuda:<n>, mps or auto.",
        autocompletion=completion.values("device"),
    ),
]
EpochsOption = Annotated[str | None, typer.Option("--epochs", metavar="INT", help="Passes over the data.")]
LrOption = Annotated[
    str | None,
    typer.Option("--lr", metavar="FLOAT|auto", help="Learning rate.", autocompletion=completion.values("lr")),
]
SeedOption = Annotated[str | None, typer.Option("--seed", metavar="INT", help="Seed of the random data and weights.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="How gradients are computed: auto, autograd, manual or fused.",
        autocompletion=completion.values("engine"),
    ),
]
ThreadsOption = Annotated[
    str | None,
    typer.Option(
        "--threads",
        metavar="INT|auto",
        help="CPU threads.",
        autocompletion=completion.values("threads"),
    ),
]
LogEveryOption = Annotated[str | None, typer.Option("--log-every", metavar="INT", help="Print every n-th row.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any key of the config, such as H=200 or data.noise=0.5; repeatable.",
        autocompletion=completion.settings,
    ),
]
ReadingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="How DATA is read: data.separator, data.decimal, data.header or data.sheet.  [default: as in training]",
        autocompletion=completion.settings,
    ),
]
FormatOption = Annotated[terminal.Format, typer.Option("--format", help="How to print rows.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run folder.  [default: runs/<config>-<n>]")
]
NoSaveOption = Annotated[bool, typer.Option("--no-save", help="Create no run folder.")]
NoteOption = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A note to save with the run.")]
TensorBoardOption = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard event files into the run folder.")
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint-every",
        metavar="INT|<n>s",
        help="Save a checkpoint every n iterations, or every n seconds.  [default: 30s]",
    ),
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        "--resume", metavar="RUN", help="Continue a run, up to --epochs in total.", autocompletion=completion.runs
    ),
]

ScaleOption = Annotated[
    Scale,
    typer.Option("--scale", help="Scale of the loss axis; auto uses log if the losses span a factor of 100."),
]


def resolve_again(run: Run, sets: Sequence[str], context: typer.Context) -> validation.Resolved:
    """A run's own config, with the values that are changed to resume it."""
    source = str(run.path.absolute() / CONFIG)
    raw = read_config(run.path, run.folder)
    before = loading.resolve(source, environment={}, read=False, raw=raw)
    try:
        with without_panics():
            after = loading.resolve(source, environment={}, overrides=_overrides(sets, context), raw=raw)
    except ConfigError as error:
        if {problem.key for problem in error.problems} <= set(schema.SIZES):  # which only the table can have changed
            what = "; ".join(f"{problem.key} {problem.message}" for problem in error.problems)
            raise RunError(f"its table has changed since: {what}", path=run.path) from None
        raise
    own = dict(flat(before.config))
    changed = [(key, value) for key, value in flat(after.config) if own.get(key) != value]
    if wrong := [
        f"{key} is {show(own.get(key))}, not {show(value)}" for key, value in changed if key not in CHANGEABLE
    ]:
        message = f"{run.path}: {'; '.join(wrong)}: when a run is resumed, only {', '.join(CHANGEABLE)} may change"
        raise RunError(message, usage=True)
    if run.info.get("status") == "diverged":
        raise RunError(
            "has diverged, and would diverge again", path=run.path, hint="try a smaller lr in a new run", usage=True
        )
    memory.check(after.config, after.name, saved=True)
    return validation.Resolved(after.config, str(run.info.get("config", after.name)), after.origins, after.table)


def resolve_data(source: str, sets: Sequence[str], context: typer.Context) -> tuple[FileData, list[str]]:
    """The table that `source` is or names, and its targets, which need not be given yet."""
    overrides = list(_overrides(sets, context))
    is_open = is_table(source) and not any(override.path[:2] == ("data", "target") for override in overrides)
    if is_open:
        overrides.append(loading.Override(("data", "target"), "any", "--target"))
    data = loading.resolve(source, overrides=overrides, read=False).config.data
    if not isinstance(data, FileData):
        raise DataError(f"{source}: its data are random, not read from a file; name a table")
    return data, [] if is_open else data.target


def reading_keys(sets: Sequence[str]) -> dict[str, Any]:
    """The keys of `data` that say how a file is read, by name, as `--set` gives them. Raises ConfigError."""
    wrong = [
        Problem(Origin(f"--set {text}"), "", f"must be one of {', '.join(f'data.{key}' for key in READING)}")
        for text in sets
        if not text.startswith(tuple(f"data.{key}=" for key in READING))
    ]
    if wrong:
        raise ConfigError(wrong)
    parts = [(text, *text.partition("=")[::2]) for text in sets]
    overrides = [loading.Override(tuple(key.split(".")), value, f"--set {text}") for text, key, value in parts]
    raw = b"data: {source: file, path: '-', target: '-'}"
    data = loading.resolve("--set", environment={}, overrides=overrides, read=False, raw=raw).config.data
    given = {key.removeprefix("data.") for _, key, _ in parts}
    return {key: value for key, value in data.model_dump().items() if key in given}


def resolve(source: str, sets: Sequence[str], context: typer.Context, *, saved: bool = False) -> validation.Resolved:
    """The config with options and variables applied, known to fit into memory."""
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
