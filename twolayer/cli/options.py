"""The options that commands share, and the config that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from twolayer.cli import completion, terminal
from twolayer.cli.working_command import working_command
from twolayer.config import loading, validation
from twolayer.config.from_table import with_names_split
from twolayer.config.loading import Override
from twolayer.config.schema import Config
from twolayer.errors import ConfigError, DataError, Origin, Problem, TableError, TableProblem
from twolayer.files import expand_home
from twolayer.hardware import memory
from twolayer.reporting.downsampling import Scale
from twolayer.tables.options import FileData, is_table
from twolayer.tables.panics import without_panics

# The keys that have an option of their own.
NAMED = ("device", "epochs", "lr", "seed", "engine", "threads", "log_every")
READING = ("separator", "decimal", "header", "sheet")  # inside `data`
LISTS = ("target", "inputs", "exclude")  # of columns, inside `data`


def home(value: Any) -> Any:
    """A path as it was typed, or several, with `~/` as the home folder: no shell expands it in `--out=~/x`."""
    if isinstance(value, (list, tuple)):
        return [home(one) for one in value]
    return type(value)(expand_home(str(value))) if isinstance(value, (str, Path)) else value


TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="COLUMNS",
        help="Columns of the table to predict, with commas between them; repeatable.",
        autocompletion=completion.columns,
    ),
]
InputsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--inputs",
        metavar="COLUMNS",
        help="Columns of the table to predict from; repeatable.  [default: all others]",
        autocompletion=completion.columns,
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="COLUMNS",
        help="Columns of the table not to use; repeatable.",
        autocompletion=completion.columns,
    ),
]
MissingOption = Annotated[
    str | None,
    typer.Option(
        "--missing",
        metavar="refuse|mean",
        help="What to do with missing inputs.",
        autocompletion=completion.values("data.missing"),
    ),
]
ClassesOption = Annotated[bool, typer.Option("--classes", help="Predict classes, also where they are numbers.")]
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
        metavar="RUN",
        help="A run on a table: its folder, or its name in runs/.",
        autocompletion=completion.runs,
        callback=home,
    ),
]
SavedArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run: its folder, or its name in runs/.", autocompletion=completion.runs, callback=home
    ),
]
RunsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="Runs: their folders, or their names in runs/.",
        show_default=False,
        autocompletion=completion.runs,
        callback=home,
    ),
]
DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A table with the run's input columns; - reads CSV or NDJSON from a pipe.",
        autocompletion=completion.tables,
        callback=home,
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
    Path | None,
    typer.Option("--out", metavar="DIR", help="The run folder.  [default: runs/<config>-<n>]", callback=home),
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
        "--resume",
        metavar="RUN",
        help="Continue a run, up to --epochs in total.",
        autocompletion=completion.runs,
        callback=home,
    ),
]

ScaleOption = Annotated[
    Scale,
    typer.Option("--scale", help="Scale of the loss axis; auto uses log if the losses span a factor of 100."),
]


@dataclass(frozen=True)
class Named:
    """The table that a command line names, before it is read: its targets, which need not be given yet, and the loss.

    `loss` is None unless it is given.
    """

    config: Config
    data: FileData
    targets: list[str]
    loss: str | None


def resolve_data(source: str, sets: Sequence[str], context: typer.Context) -> Named:
    """The table that `source` is or names."""
    overrides = overrides_of(sets, context)
    is_open = is_table(source) and not any(override.path[:2] == ("data", "target") for override in overrides)
    if is_open:
        overrides.append(Override(("data", "target"), "any", "--target"))
    resolved = loading.resolve(source, overrides=overrides, read=False)
    config = resolved.config
    if not isinstance(data := config.data, FileData):
        raise DataError(f"{source}: its data are random, not read from a file; name a table")
    data = with_names_split(data)
    loss = None if str(resolved.origins["loss"]) == "default" else config.loss
    return Named(config, data, [] if is_open else data.target, loss)


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


def resolve(
    source: str, sets: Sequence[str], context: typer.Context, *, saved: bool = False, keep_survey: bool = False
) -> validation.Resolved:
    """The config with options and variables applied, known to fit into memory."""
    malformed = [
        Problem(Origin(f"--set {text}"), "", "must be KEY=VALUE, such as --set lr=1e-3")
        for text in sets
        if text.find("=") < 1
    ]
    overrides = overrides_of(sets, context)
    try:
        with without_panics():
            resolved = loading.resolve(source, overrides=overrides, keep_survey=keep_survey)
    except ConfigError as error:
        raise ConfigError([*error.problems, *malformed]) from None
    except TableError as error:
        if not malformed:
            error.command = working_command(error.problems, source, overrides, typed(context))
            raise
    if malformed:
        raise ConfigError(malformed)
    memory.check(resolved.config, resolved.name, saved=saved)
    return resolved


def training_that_works(
    problems: Sequence[TableProblem], source: str, sets: Sequence[str], context: typer.Context
) -> str:
    """For `data`: the command that trains on its table in spite of these problems; empty if there is none."""
    command, *arguments = typed(context) or [""]
    return working_command(problems, source, overrides_of(sets, context), ["train", *arguments] if command else [])


def typed(context: typer.Context) -> Sequence[str]:
    """The arguments of the command line; none where the command was called in another way."""
    return context.obj if isinstance(context.obj, tuple) else ()


def overrides_of(sets: Sequence[str], context: typer.Context) -> list[Override]:
    """What the options set, in the order in which they were typed: of two that set the same key, the later wins."""
    given = context.params
    found = [
        Override(tuple(key.split(".")), value, f"--set {text}")
        for text in sets
        for key, is_set, value in (text.partition("="),)
        if key and is_set
    ]
    found += [Override(("data", key), text, f"--{key}", literal=True) for key in LISTS for text in given.get(key) or ()]
    if given.get("missing") is not None:
        found.append(Override(("data", "missing"), given["missing"], "--missing"))
    if given.get("classes"):
        found.append(Override(("loss",), "cross_entropy", "--classes"))
    named = ((key, given.get(key)) for key in NAMED)
    found += [Override((key,), text, f"--{key.replace('_', '-')}") for key, text in named if text is not None]
    places = {override.origin: _place(override, typed(context)) for override in found}
    return sorted(found, key=lambda override: places[override.origin])


def _place(override: Override, arguments: Sequence[str]) -> int:
    """The index of the last argument that sets this; before all others where it is not among them."""
    option, _, text = override.origin.partition(" ")
    for index in range(len(arguments) - 1, -1, -1):
        argument = arguments[index]
        if text and (argument == f"--set={text}" or (argument == text and arguments[index - 1] == "--set")):
            return index
        if not text and (argument == option or argument.startswith(f"{option}=")):
            return index
    return -1
