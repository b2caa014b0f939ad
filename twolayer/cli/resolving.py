"""From a command line's options to a config, and to a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer

from twolayer.cli.working_command import working_command
from twolayer.config import loading, validation
from twolayer.config.from_table import with_names_split
from twolayer.config.loading import Override
from twolayer.config.schema import Config
from twolayer.errors import ConfigError, DataError, Origin, Problem, TableError, TableProblem
from twolayer.hardware import memory
from twolayer.tables.options import FileData, is_table
from twolayer.tables.panics import without_panics

NAMED = ("device", "epochs", "lr", "seed", "engine", "threads", "log_every")
LISTS = ("target", "inputs", "exclude")  # of columns, inside `data`
READING = ("separator", "decimal", "header", "sheet")  # inside `data`


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
    raw = b"data: {source: file, path: '-', target: '-'}\nH: 1\nlr: 1\nepochs: 1"
    data = loading.resolve("--set", environment={}, overrides=overrides, read=False, raw=raw).config.data
    given = {key.removeprefix("data.") for _, key, _ in parts}
    return {key: value for key, value in data.model_dump().items() if key in given}


def resolve(
    source: str,
    sets: Sequence[str],
    context: typer.Context,
    *,
    saved: bool = False,
    keep_survey: bool = False,
    alone: bool = True,
) -> validation.Resolved:
    """The config with options and variables applied; if one process trains `alone`, known to fit into memory."""
    malformed = malformed_sets(sets)
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
    if alone:
        memory.check(resolved.config, resolved.name, saved=saved)
    return resolved


def malformed_sets(sets: Sequence[str]) -> list[Problem]:
    """What is wrong with the form of `--set` options."""
    return [
        Problem(Origin(f"--set {text}"), "", "must be KEY=VALUE, such as --set lr=1e-3")
        for text in sets
        if text.find("=") < 1
    ]


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
