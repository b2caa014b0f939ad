"""`sweep`: many trainings from Python, one after another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from twolayer.config.loading import AnyConfig, Override
from twolayer.config.schema import SIZES, Config, document
from twolayer.errors import ConfigError, DivergedError, Origin, Problem
from twolayer.runs.history import Block, join
from twolayer.sweeps.points import Base, Plan, plan_axes
from twolayer.sweeps.values import MAX_POINTS, Axis, Choice
from twolayer.tables.options import FileData
from twolayer.training.loop import fit
from twolayer.training.outcome import Training
from twolayer.training.setup import prepare


def sweep(
    config: AnyConfig = "default", *, seeds: int | Iterable[int] | None = None, **values: Any
) -> Iterator[Training]:
    """Train each combination of values: yields the trainings as they end; the last key varies fastest, then the seed.

    A value that is a list, a tuple, a range or another iterable varies; all others are set, as for `train`. `seeds` is
    how many, from the config's own on, or which. Keys inside `data` are dotted: `sweep("modules", **{"data.noise":
    [0.1, 1]})`. A training that diverges is yielded as well, with `diverged` true. All values are checked before this
    returns: raises ConfigError, with everything that is wrong, or DataError.
    """
    plan = _plan(config, seeds, values)
    return (_trained(point.config) for point in plan.points)


def _plan(config: AnyConfig, seeds: int | Iterable[int] | None, values: dict[str, Any]) -> Plan:
    fixed, axes, problems = list[tuple[Override, Any]](), list[Axis](), list[Problem]()
    for key, value in values.items():
        path = tuple(key.split("."))
        if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
            fixed.append((Override(path, "", f"{key}="), value))
        elif choices := tuple(Choice(Override(path, "", f"{key}="), _plain(one), is_text=False) for one in value):
            axes.append(Axis(key, choices))
        else:
            problems.append(Problem(Origin(f"{key}="), "", "has no values"))
    base = _base(config, fixed)
    if seeds is not None:
        if isinstance(seeds, int):
            try:
                first = base.resolve([axis.choices[0] for axis in axes], read=False).config.seed
            except ConfigError:  # `plan_axes` says why
                first = 0
            seeds = range(first, first + min(seeds, MAX_POINTS + 1))
        chosen = tuple(Choice(Override(("seed",), "", "seeds="), _plain(seed), is_text=False) for seed in seeds)
        axes += [Axis("seed", chosen)] if chosen else []
        problems += [] if chosen else [Problem(Origin("seeds="), "", "must be 1 or more, or a list of seeds")]
    return plan_axes(base, axes, problems)


def _base(config: AnyConfig, fixed: list[tuple[Override, Any]]) -> Base:
    """What all points have in common. A Config has all keys already; a table gives its sizes again."""
    if not isinstance(config, Config):
        return Base(str(config), values=fixed)
    raw = document(config)
    if isinstance(config.data, FileData):
        raw = "".join(line for line in raw.splitlines(keepends=True) if line.partition(":")[0] not in SIZES)
    return Base("config", values=fixed, raw=raw.encode(), environment={})


def _plain(value: Any) -> Any:
    """A number of numpy as Python's."""
    return value.item() if hasattr(value, "item") and not isinstance(value, (str, bytes)) else value


def _trained(config: Config) -> Training:
    """The training with this config; one that has diverged with its last weights, and no final loss."""
    config, data, model = prepare(config)
    training, blocks = fit(model, data, config), list[Block]()
    try:
        blocks.extend(training)
        final = training.finish().loss
    except DivergedError:
        final = math.nan
    whole = join(blocks) if blocks else Block(1, (), 0.0)
    return Training(config, model, data, whole.losses, final, whole.seconds, whole.more)
