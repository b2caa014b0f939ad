"""Which columns of a table are inputs and which are targets."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from twolayer.errors import TableError, TableProblem
from twolayer.tables.encoding import listed, shown
from twolayer.tables.options import FileData
from twolayer.tables.sources import Source


def select_columns(source: Source, data: FileData, targets: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """The names of the input columns and of the target columns; the name of an array stands for all its columns.

    `targets` replaces those of `data`. Raises TableError if a column does not exist or has two roles, or if no input
    is left.
    """
    there = set(source.names)
    problems: list[str | TableProblem] = []

    def resolve(key: str, names: Sequence[str]) -> list[str]:
        found: list[str] = []
        for name in names:
            if name in there:
                found.append(name)
            elif name in source.groups:
                found += source.groups[name]
            else:
                problems.append(f"data.{key}: there is no column {name}{_nearest(name, source)}")
        return list(dict.fromkeys(found))

    chosen_targets = resolve("target", data.target if targets is None else targets)
    out = set(resolve("exclude", data.exclude))
    both = set(resolve("categories", data.categories)) & set(resolve("numbers", data.numbers))
    problems += [f"data.numbers: column {shown(name)} is also in data.categories" for name in sorted(both)]
    chosen = list(source.names) if data.inputs is None else resolve("inputs", data.inputs)
    if double := [name for name in chosen_targets if data.inputs is not None and name in chosen]:
        problems.append(f"data.inputs: {listed(double)} also the target")
    if double := [name for name in chosen_targets if name in out]:
        problems.append(f"data.exclude: {listed(double)} the target")
    if problems:
        raise TableError(source.name, problems)
    taken = [name for name in chosen if name not in out and name not in chosen_targets]
    if not taken:
        raise TableError(source.name, ["no column is left to predict from"])
    return taken, chosen_targets


def resolved(names: Sequence[str], source: Source) -> frozenset[str]:
    """The columns that names stand for; those that do not exist are left out."""
    return frozenset(column for name in names for column in source.groups.get(name, (name,)))


def _nearest(name: str, source: Source) -> str:
    if close := get_close_matches(name, [*source.names, *source.groups], 1, 0.6):
        return f"; did you mean {close[0]}?"
    some = ", ".join(source.names[:10])
    return f"; its columns are {some}{' ...' if len(source.names) > 10 else ''}"
