"""`train` with --seeds or --sweep: from the options to the points, and a sweep that is resumed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from twolayer.cli import process, terminal
from twolayer.cli.options import checked_jobs
from twolayer.cli.process import computing
from twolayer.cli.resolving import LISTS, NAMED, malformed_sets, overrides_of
from twolayer.errors import ConfigError
from twolayer.files import expand_home
from twolayer.hardware import memory
from twolayer.runs import checkpoint_interval, table_paths
from twolayer.sweeps import folder, points, table_files
from twolayer.sweeps.points import Base, Plan
from twolayer.tables.panics import without_panics

# What a sweep that is resumed keeps.
_FIXED = ("missing", "classes", "ranks", "checkpoint_every", "tensorboard", *LISTS, *NAMED)


_LAUNCHED = "many trainings are not for a launcher; use --jobs for several processes"


def is_sweep(context: typer.Context, *, is_launched: bool) -> bool:
    """Whether a command line of `train` asks for many trainings. Raises BadParameter for options that do not fit.

    `is_launched` says that a launcher has started several processes of it.
    """
    given = context.params
    if given["seeds"] is not None or given["sweep"]:
        for name in ("folds", "repeats", "ranks", "resume_or_start"):
            if given[name] is not None:
                option = name.replace("_", "-")
                raise typer.BadParameter(f"--{option} is for a single training; remove it, or --seeds and --sweep")
        if is_launched:
            raise typer.BadParameter(_LAUNCHED)
        if given["resume"] is not None:
            raise typer.BadParameter("--resume continues what is there; remove it, or --seeds and --sweep")
        return True
    if given["dry_run"]:
        raise typer.BadParameter("--dry-run prints the trainings of --seeds and --sweep; add one of them")
    if given["jobs"] is not None and given["resume"] is None:
        raise typer.BadParameter("--jobs is for many trainings; add --seeds or --sweep")
    return False


def start(config: str, sets: Sequence[str], context: typer.Context) -> int:
    """Train the points of --seeds and --sweep; the exit code."""
    given = context.params
    jobs, every = checked_jobs(given["jobs"]), checkpoint_interval.parse(given["checkpoint_every"] or "30s")
    plan = _plan(config, sets, context)
    if given["dry_run"]:
        terminal.rows(["point", *plan.keys], [[point.number, *point.values.values()] for point in plan.points],
                      given["format_"])  # fmt: skip
        if given["format_"] == "table":
            terminal.note(f"{len(plan.points):,} trainings")
        return 0
    for line in plan.notes:
        terminal.note(line)
    with computing():
        from twolayer.cli import sweep_session
    process.start_computing()
    sweep_session.check(plan)  # before there is a folder
    options = {"note": given["note"] or "", "checkpoint_every": every.text, "tensorboard": given["tensorboard"]}
    if given["no_save"]:
        return sweep_session.unsaved(plan, jobs, given["format_"], quiet=given["quiet"])
    terminal.outlive_reader()
    with folder.create(given["out"], plan, **options) as opened:
        return sweep_session.saved(opened, [], {}, jobs, given["format_"], quiet=given["quiet"])


def _plan(config: str, sets: Sequence[str], context: typer.Context) -> Plan:
    """The points, known to fit into memory. Raises TwolayerError."""
    given, malformed = context.params, malformed_sets(sets)
    try:
        with without_panics():
            plan = points.plan(Base(config, overrides_of(sets, context)), given["sweep"] or [], given["seeds"])
    except ConfigError as error:
        raise ConfigError([*error.problems, *malformed]) from None
    if malformed:
        raise ConfigError(malformed)
    largest = max(plan.points, key=lambda point: memory.needed_by_host(point.config))
    memory.check(largest.config, largest.name, saved=not given["no_save"])
    return plan


def resume(path: Path, context: typer.Context, *, is_launched: bool) -> int:
    """Train what is left of a sweep; the exit code."""
    given = context.params
    if is_launched:
        raise typer.BadParameter(_LAUNCHED)
    if wrong := [name for name in _FIXED if given.get(name)]:
        option = f"--{wrong[0].strip('_').replace('_', '-')}"
        raise typer.BadParameter(f"a sweep is resumed as it was started; remove {option}")
    jobs = checked_jobs(given["jobs"])
    with folder.open_for_resume(path) as opened:
        given_tables = _named_tables(opened.plan, context)
        memory.check(max((point.config for point in opened.plan.points), key=memory.needed_by_host), saved=True)
        with computing():
            from twolayer.cli import sweep_session
        process.start_computing()
        terminal.outlive_reader()
        done, existing = folder.results_of(opened)
        moved = {}
        if len(done) < len(opened.plan.points):
            moved = table_files.places(path, opened.plan, opened.info, given_tables)
        for before, place in moved.items():
            if place not in given_tables.values():
                terminal.note(f"{before}: no such file; {place} is read in its place")
        return sweep_session.saved(opened, done, existing, jobs, given["format_"], quiet=given["quiet"], moved=moved)


def _named_tables(plan: Plan, context: typer.Context) -> dict[str, str]:
    """The paths of tables that `--set` gives, by key. Raises ConfigError, and BadParameter for any other key."""
    sets = context.params.get("set_") or []
    if malformed := malformed_sets(sets):
        raise ConfigError(malformed)
    found = {}
    for override in overrides_of(sets, context):
        key = ".".join(map(str, override.path))
        if key not in table_paths.tables(plan.points[0].config):
            raise typer.BadParameter(f"a sweep is resumed as it was started; remove --set {key}")
        if table_files.several(plan, key):
            raise typer.BadParameter(f"{key} varies in this sweep; put the tables back where they were")
        found[key] = os.path.abspath(expand_home(override.text))  # noqa: PTH100 (it keeps links)
    return found
