"""The config of a run that is resumed: its own, with what may change, and its tables where they are now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import typer

from twolayer.cli import terminal
from twolayer.cli.resolving import overrides_of
from twolayer.config import from_table, loading, schema, validation
from twolayer.config.loading import Override
from twolayer.config.schema import Config, flat
from twolayer.config.validation import show
from twolayer.errors import ConfigError, Origin, RunError, extra
from twolayer.formatting import counted, safe
from twolayer.hardware import memory
from twolayer.runs import table_paths
from twolayer.runs.folder import Run
from twolayer.runs.run_files import CONFIG, read_config, read_info
from twolayer.tables.options import FileData
from twolayer.tables.panics import without_panics

# The keys that may change. So may the paths of tables: their fingerprints say whether they are the same.
CHANGEABLE = ("epochs", "log_every", "device")
_SHOWN = 6  # columns that are named


def resolve_again(run: Run, sets: Sequence[str], context: typer.Context, *, alone: bool = True) -> validation.Resolved:
    """A run's own config, with the values that are changed to resume it; see `resolving.resolve`."""
    source = str(run.path.absolute() / CONFIG)
    raw = read_config(run.path, run.folder)
    as_saved = loading.resolve(source, environment={}, read=False, raw=raw)
    is_older = isinstance(as_saved.config.data, FileData) and as_saved.origins["data.stratify"] == Origin("default")
    # Version 0.1.0 drew no rows by class. (A run's own config has every key of its version.)
    older = [Override(("data", "stratify"), "false", source)] if is_older else []
    before = loading.resolve(source, environment={}, overrides=older, read=False, raw=raw)
    given = overrides_of(sets, context)
    overrides = [*older, *_moved_tables(run, before.config, given), *given]
    planned = loading.resolve(source, environment={}, overrides=overrides, read=False, raw=raw)
    _check_changes(run, before.config, planned.config)
    try:
        with without_panics():
            as_then = _as_read_then(planned.config, source) if is_older else []
            after = loading.resolve(source, environment={}, overrides=overrides, values=as_then, raw=raw)
    except ConfigError as error:
        if {problem.key for problem in error.problems} <= set(schema.SIZES):  # which only the table can have changed
            what = [f"{problem.key} {problem.message}" for problem in error.problems]
            config = loading.resolve(source, environment={}, overrides=overrides, values=as_then, read=False, raw=raw)
            what += _columns_that_differ(run, config.config)
            reason = f"its table is another one, or has changed since: {'; '.join(what)}"
            hint = "or this version of twolayer reads it otherwise than 0.1.0 did: then train anew" if is_older else ""
            raise RunError(reason, path=run.path, hint=hint) from None
        raise
    if run.info.get("status") == "diverged":
        raise RunError(
            "has diverged, and would diverge again", path=run.path, hint="try a smaller lr in a new run", usage=True
        )
    if alone:
        memory.check(after.config, after.name, saved=True)
    return validation.Resolved(after.config, str(run.info.get("config", after.name)), after.origins, after.table)


def needs_more(path: Path, config: Config) -> bool:
    """Whether the run in this folder, which is of this config, is not completed; says so if it is.

    Raises RunError where it is of another config: `auto`, paths, and parts that are not named, are not compared.
    """
    info = read_info(path)
    source = str(path.absolute() / CONFIG)
    own = dict(flat(loading.resolve(source, environment={}, read=False).config))
    left_open = {"log_every", "device", *table_paths.tables(config)} | ({"parts"} if config.parts is None else set())
    wrong = [
        f"{key} is {show(own.get(key))}, not {show(value)}"
        for key, value in flat(config)
        if value not in ("auto", own.get(key)) and key not in left_open
    ]
    if wrong == [f"epochs is {show(own['epochs'])}, not {show(config.epochs)}"] and config.epochs > int(own["epochs"]):
        return True
    if wrong:
        raise RunError("is a run of another config", path=path, hint="; ".join(wrong), usage=True)
    if info.get("status") == "completed":
        terminal.note(f"run {path} is completed")
    return info.get("status") != "completed"


def _as_read_then(config: Config, source: str) -> list[tuple[Override, Any]]:
    """The keys with which the table of a run of version 0.1.0 is read as that version did."""
    with extra("polars", "data"):
        from twolayer.tables import older

    keys = older.keys_of_0_1_0(cast(FileData, config.data))
    return [(Override(("data", key), "", source), value) for key, value in keys.items()]


def _columns_that_differ(run: Run, config: Config) -> list[str]:
    """The columns that give another number of inputs or classes than in the run, as its model says.

    Where it has none yet, the columns that give several.
    """
    from twolayer.runs.model_file import encoding_of

    now = from_table.table_of(config).columns
    count = Counter(feature.column for feature in now.features)
    try:
        before = encoding_of(run.path)
    except RunError:
        several = [f"{safe(name)} {number}" for name, number in count.items() if number > 1]
        return [f"columns that give several inputs: {', '.join(several[:_SHOWN])}"] if several else []
    then = Counter(feature.column for feature in before.features)
    found = [
        f"column {safe(name)} gives {counted(count[name], 'input')}, not {then[name]}"
        for name in dict.fromkeys([*then, *count])
        if count[name] != then[name]
    ]
    if now.classes is not None and before.classes is not None and len(now.classes) != len(before.classes):
        found.append(f"target {safe(now.targets[0].column)} has {len(now.classes)} classes, not {len(before.classes)}")
    return found[:_SHOWN] + ([f"and {len(found) - _SHOWN} more columns"] if len(found) > _SHOWN else [])


def _moved_tables(run: Run, config: Config, given: Sequence[Override]) -> list[Override]:
    """The paths of tables that are no longer there, but beside the run as they were; says so."""
    typed = {".".join(map(str, override.path)) for override in given}
    before = table_paths.tables(config)
    moved = {key: path for key, path in table_paths.moved(run.path, run.info, config).items() if key not in typed}
    for key, path in moved.items():
        terminal.note(f"{before[key]}: no such file; {path} is read in its place")
    return [Override(tuple(key.split(".")), path, key, literal=True) for key, path in moved.items()]


def _check_changes(run: Run, before: Config, after: Config) -> None:
    """Raise RunError where a key differs that may not, or a table is nowhere."""
    own, tables = dict(flat(before)), table_paths.tables(before)
    may_change = {*CHANGEABLE, *(tables.keys() & table_paths.tables(after).keys())}
    changed = [(key, value) for key, value in flat(after) if own.get(key) != value]
    if wrong := [
        f"{key} is {show(own.get(key))}, not {show(value)}" for key, value in changed if key not in may_change
    ]:
        rule = f"when a run is resumed, only {', '.join([*CHANGEABLE, *tables])} may change"
        raise RunError(f"{run.path}: {'; '.join(wrong)}: {rule}", usage=True)
    for key, path in table_paths.tables(after).items():
        if not table_paths.is_there(path):
            reason = f"its table is not at {path}"
            raise RunError(reason, path=run.path, hint=f"if it was moved, add --set {key}=PATH")
