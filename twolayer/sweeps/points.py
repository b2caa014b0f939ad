"""The points of a sweep: each combination of the values that vary, as a config that is known to be right."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twolayer.config import from_table, loading, yaml12
from twolayer.config.loading import Override
from twolayer.config.schema import Config, document, flat, settled, variant
from twolayer.config.validation import Resolved
from twolayer.config.yaml12 import MAX_PROBLEMS
from twolayer.errors import ConfigError, Origin, Problem, TableError, TableProblem
from twolayer.formatting import shown
from twolayer.sweeps import values
from twolayer.sweeps.values import MAX_POINTS, Axis, Choice
from twolayer.tables.options import FileData

_MAX_NAME = 100  # characters of a folder's name


@dataclass(frozen=True)
class Point:
    """One training of a sweep: its number (from 1), its name, the values of the keys that vary, and its config."""

    number: int
    name: str
    values: Mapping[str, Any]
    config: Config

    @property
    def sha256(self) -> str:
        """The SHA-256 of the config: a point is recognised by it, whatever its number and its name are."""
        return hashlib.sha256(document(self.config).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """The points of a sweep, in order: the last key varies fastest. `source` is the config as the user named it."""

    source: str
    keys: tuple[str, ...]
    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()  # about the table


@dataclass(frozen=True)
class Base:
    """What all points have in common: the config's name, its content where that was read, and what is set besides."""

    source: str
    overrides: Sequence[Override] = ()
    values: Sequence[tuple[Override, Any]] = ()
    raw: bytes | None = None
    environment: Mapping[str, str] | None = None

    def resolve(self, chosen: Sequence[Choice], *, read: bool) -> Resolved:
        """The config of a point. Raises ConfigError and DataError."""
        return loading.resolve(
            self.source,
            environment=self.environment,
            overrides=[*self.overrides, *(choice.override for choice in chosen if choice.is_text)],
            values=[*self.values, *((choice.override, choice.value) for choice in chosen if not choice.is_text)],
            read=read,
            raw=self.raw,
            saved=False,
        )


def plan(base: Base, sweeps: Sequence[str], seeds: str | None) -> Plan:
    """The points of `--sweep` and `--seeds`, checked. Raises ConfigError, with all that is wrong, and DataError."""
    axes, problems = list[Axis](), list[Problem]()
    for text in sweeps:
        axis, wrong = values.parse(text)
        axes += [axis] if axis is not None else []
        problems += wrong
    if seeds is not None:
        first = 0
        try:
            first = base.resolve([axis.choices[0] for axis in axes], read=False).config.seed
        except ConfigError as error:
            problems += error.problems
        axis, wrong = values.seeds(seeds, first)
        axes += [axis] if axis is not None else []
        problems += wrong
    return plan_axes(base, axes, problems)


def plan_axes(base: Base, axes: Sequence[Axis], problems: Sequence[Problem] = ()) -> Plan:
    """The points of these axes. Raises ConfigError, also with these `problems`, and DataError."""
    found = [*problems, *_conflicts(base, axes)]
    if (count := math.prod(len(axis.choices) for axis in axes)) > MAX_POINTS:
        found.append(Problem(Origin("--sweep"), "", f"{count:,} points are too many; at most {MAX_POINTS:,}"))
    configs = list[Config]()
    # First each value beside the first values of all others: what is wrong with it is found, and but once.
    found += _configs(base, axes, _star(axes))[1]
    if found:  # where no config is valid, equal values have not been compared
        found += _configs(base, sound := _without(axes, found), _star(sound))[1]
    else:
        configs, found = _configs(base, axes, itertools.product(*(axis.choices for axis in axes)))
    if found:
        unique = list(dict.fromkeys(found))
        if (more := len(unique) - MAX_PROBLEMS) > 0:
            unique[MAX_PROBLEMS:] = [Problem(Origin("--sweep"), "", f"and {more} more problems")]
        raise ConfigError(unique)
    notes: tuple[str, ...] = ()
    if isinstance(configs[0].data, FileData):
        configs, notes = _with_tables(base, axes)
    keys = tuple(axis.key for axis in axes)
    varied = [{key: value for key, value in flat(config) if key in keys} for config in configs]
    varied = [{key: each[key] for key in keys} for each in varied]
    made = zip(_names(varied), varied, configs, strict=True)
    points = (Point(number, name, each, settled(config)) for number, (name, each, config) in enumerate(made, 1))
    return Plan(base.source, keys, tuple(points), notes)


def _conflicts(base: Base, axes: Sequence[Axis]) -> Iterator[Problem]:
    """Keys that vary twice, and keys that vary and have a single value as well."""
    counts = Counter(axis.key for axis in axes)
    for key in [key for key, count in counts.items() if count > 1]:
        options = sorted(
            {choice.override.origin.partition(" ")[0] for a in axes if a.key == key for choice in a.choices}
        )
        message = f"{key} varies twice; give all its values together, such as --sweep {key}=A,B"
        yield Problem(Origin(" and ".join(options)), "", message)
    for override in [*base.overrides, *(override for override, _ in base.values)]:
        if (key := ".".join(map(str, override.path))) in counts:
            yield Problem(Origin(override.origin), "", f"{key} varies already; remove one of the two")


def _star(axes: Sequence[Axis]) -> Iterator[tuple[Choice, ...]]:
    """Each value of each axis beside the first values of the others."""
    firsts = tuple(axis.choices[0] for axis in axes)
    for place, axis in enumerate(axes):
        yield from ((*firsts[:place], choice, *firsts[place + 1 :]) for choice in axis.choices)


def _without(axes: Sequence[Axis], problems: Sequence[Problem]) -> list[Axis]:
    """The axes without the values that have a problem."""
    wrong = {problem.origin for problem in problems}
    kept = [Axis(axis.key, tuple(c for c in axis.choices if Origin(c.override.origin) not in wrong)) for axis in axes]
    return [axis for axis in kept if axis.choices]


def _configs(
    base: Base, axes: Sequence[Axis], products: Iterable[tuple[Choice, ...]]
) -> tuple[list[Config], list[Problem]]:
    """The configs of these points, without reading their tables; and what is wrong with them."""
    configs, problems = list[Config](), dict[Problem, None]()
    seen: list[dict[str, Choice]] = [{} for _ in axes]  # the first choice of each axis with a value
    dump: dict[str, Any] = {}  # of the first config
    for chosen in products:
        config = _quick(dump, chosen) if dump else None
        if config is None:
            try:
                config = base.resolve(chosen, read=False).config
            except ConfigError as error:
                problems |= dict.fromkeys(error.problems)
                if len(problems) > MAX_PROBLEMS:
                    break
                continue
        if not dump and not isinstance(config.data, FileData):  # whose defaults depend on what is given
            dump = config.model_dump()
        configs.append(config)
        known = dict(flat(config)) if any("." in axis.key for axis in axes) else config.__dict__
        for axis, choice, choices in zip(axes, chosen, seen, strict=True):
            first = choices.setdefault(repr(known.get(axis.key)), choice)
            if first is not choice:
                text = f"is the same value as {first.shown}" if first.shown != choice.shown else "is given twice"
                problem = Problem(Origin(choice.override.origin), axis.key, f"{text}; remove one of them")
                problems[problem] = None
    return configs, list(problems)


def _quick(dump: Mapping[str, Any], chosen: Sequence[Choice]) -> Config | None:
    """The config of a point from that of another one, in a tenth of the time; None where that is not so simple."""
    changes = dict[str, Any]()
    for choice in chosen:
        if len(choice.override.path) > 1:
            return None
        value = choice.value
        if choice.is_text:
            try:
                parsed = yaml12.parse(choice.override.text, "", lines=False)
            except ConfigError:
                return None
            if parsed.problems:
                return None
            value = parsed.value
        changes[str(choice.override.path[0])] = value
    return variant({**dump, **changes})


def _with_tables(base: Base, axes: Sequence[Axis]) -> tuple[list[Config], tuple[str, ...]]:
    """The configs with what their tables add; and the notes on these. Raises TableError with all that is wrong."""
    configs, notes, wrong = list[Config](), dict[str, None](), list[TableError]()
    shared: from_table.Tables = []
    for chosen in itertools.product(*(axis.choices for axis in axes)):
        try:
            with from_table.sharing(shared):
                resolved = base.resolve(chosen, read=True)
        except TableError as error:
            wrong.append(error)
            continue
        configs.append(resolved.config)
        if resolved.table is not None:
            notes |= dict.fromkeys(resolved.table.notes)
    if wrong:
        problems: dict[TableProblem, None] = dict.fromkeys(problem for error in wrong for problem in error.problems)
        raise TableError(wrong[0].name, problems)
    return configs, tuple(notes)


def _names(varied: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the points' folders, all different, also where a file system knows no upper case."""
    plain = [",".join(f"{key}={_plain(value)}" for key, value in each.items()) for each in varied]
    counts = Counter(name.lower() for name in plain)
    return [
        name if len(name) <= _MAX_NAME and counts[name.lower()] == 1 else _shortened(name, each)
        for name, each in zip(plain, varied, strict=True)
    ]


def _plain(value: Any) -> str:
    """A value as it may stand in a folder's name."""
    return re.sub(r"[^\w.+-]+", "-", shown(value)).strip("-") or "-"


def _shortened(name: str, each: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(repr(dict(each)).encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9].rstrip('.-,=')}-{digest}"
