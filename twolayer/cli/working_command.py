"""The command that works where a table cannot be trained on as it was typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twolayer.config import loading
from twolayer.config.loading import Override
from twolayer.errors import TableError, TableProblem, TwolayerError
from twolayer.system.console import shell_words
from twolayer.tables.options import COLUMN_LISTS, FileData
from twolayer.tables.panics import without_panics

_TRIES = 3  # what is mended can show other problems
_OPTIONS = {
    **{f"data.{key}": f"--{key}" for key in ("target", "inputs", "exclude", "missing")},
    **{key: f"--{key.replace('_', '-')}" for key in ("device", "epochs", "lr", "seed", "engine", "threads")},
}

Fixes = dict[str, list[str]]  # the values by key; of a list of columns there may be several


def working_command(
    problems: Iterable[TableProblem], source: str, overrides: Sequence[Override], typed: Sequence[str]
) -> str:
    """What was typed, with options that mend every problem; empty if there are none, or they do not suffice.

    The command is tried out: the table is read with these options.
    """
    fixes: Fixes = {}
    for _ in range(_TRIES):
        problems = tuple(problems)
        if not typed or not problems or not all(problem.fix for problem in problems):
            return ""
        _add(fixes, problems, source, overrides)
        try:
            with without_panics():
                loading.resolve(source, overrides=[*overrides, *_as_overrides(fixes)])
        except TableError as error:
            problems = error.problems
        except TwolayerError:
            return ""
        else:
            return _with_options(typed, fixes)
    return ""


def _add(fixes: Fixes, problems: Iterable[TableProblem], source: str, overrides: Sequence[Override]) -> None:
    """Add the problems' fixes; a list of columns that replaces one of the file contains the file's."""
    for key, value in (pair for problem in problems for pair in problem.fix):
        path = tuple(key.split("."))
        if path[-1] not in COLUMN_LISTS:
            fixes[key] = [value]
            continue
        if key not in fixes:
            is_typed = any(override.path == path for override in overrides)
            fixes[key] = [] if is_typed else _of_file(source, path[-1])
        if value not in fixes[key]:
            fixes[key].append(value)


def _of_file(source: str, key: str) -> list[str]:
    """A list of columns that a config file has."""
    target = Override(("data", "target"), "any", "--target")  # a table itself has none
    data = loading.resolve(source, overrides=[target], read=False).config.data
    return list(getattr(data, key) or ()) if isinstance(data, FileData) else []


def _texts(values: Sequence[str]) -> list[str]:
    """The columns as texts for an option: with commas between them, where no name has any."""
    alone = [value for value in values if "," in value]
    together = [value for value in values if "," not in value]
    return [",".join(together), *alone] if together else alone


def _as_overrides(fixes: Fixes) -> list[Override]:
    found = []
    for key, values in fixes.items():
        path = tuple(key.split("."))
        is_list = path[-1] in COLUMN_LISTS
        found += [Override(path, text, key, literal=is_list) for text in (_texts(values) if is_list else values)]
    return found


def _with_options(typed: Sequence[str], fixes: Fixes) -> str:
    """The command line with options for the fixes; those that it has stay, since they add up, or the later wins."""
    more: list[str] = []
    for key, values in fixes.items():
        for text in _texts(values) if key.rpartition(".")[2] in COLUMN_LISTS else values:
            if (key, text) == ("loss", "cross_entropy"):
                more.append("--classes")
            elif key not in _OPTIONS:
                more += ["--set", f"{key}={text}"]
            elif text.startswith("-"):  # which alone would be an option
                more.append(f"{_OPTIONS[key]}={text}")
            else:
                more += [_OPTIONS[key], text]
    end = typed.index("--") if "--" in typed else len(typed)
    command = shell_words(["twolayer", *typed[:end], *more, *typed[end:]])
    return command if command.isprintable() else ""
