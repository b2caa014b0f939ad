"""A sweep read back from its folder, also while it runs. Nothing is written or locked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twolayer.errors import RunError
from twolayer.files import open_regular, unreadable
from twolayer.formatting import safe, shown
from twolayer.runs.listing import RunRow
from twolayer.runs.lock import is_held
from twolayer.sweeps.folder import INFO, TABLE, agrees, is_sweep, read_plan
from twolayer.sweeps.points import Plan
from twolayer.sweeps.results import Result, read_table

_MAX_TABLE = 2**30  # bytes
_FEW = 4  # values of a key that are named


@dataclass(frozen=True)
class SavedSweep:
    """The content of a sweep's folder; `results` are those of its table, in the order in which points ended.

    `status` is "running", "completed", "failed" where points have failed, or "interrupted". `problems` says what is
    wrong with the folder, a line for each problem.
    """

    path: Path
    plan: Plan
    info: Mapping[str, Any]
    results: tuple[Result, ...]
    status: str
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name or self.path.resolve().name

    @property
    def done(self) -> int:
        """How many points have come to their end."""
        return sum(result.is_result for result in self.results)

    @property
    def note(self) -> str:
        """The user's note."""
        note = self.info.get("note")
        return safe(note) if isinstance(note, str) else ""


def read(path: Path, before: SavedSweep | None = None) -> SavedSweep:
    """The sweep in a folder; its points are known if it was read `before`.

    Raises RunError where its `sweep.json` cannot be read.
    """
    plan, info = read_plan(path) if before is None else (before.plan, before.info)
    results, problem = list[Result](), ""
    try:
        data = _table(path)
        if not agrees(data, info):  # both may have been written meanwhile
            _, info = read_plan(path)
            data = _table(path)
        results, problem = read_table(plan, data.decode(errors="replace"))
        if not problem and not agrees(data, info):
            problem = f"is damaged: its checksum is not the one in {INFO}"
    except OSError as error:
        problem = unreadable(error)
    problems = [safe(f"{path / TABLE}: {problem}; `train --resume` writes it again")] if problem else []
    is_failed = any(result.status == "failed" for result in results)
    if is_held(path):
        status = "running"
    elif len(results) < len(plan.points):
        status = "interrupted"
    else:
        status = "failed" if is_failed else "completed"
    return SavedSweep(path, plan, info, tuple(results), status, tuple(problems))


def _table(path: Path) -> bytes:
    with open_regular(path / TABLE, _MAX_TABLE) as file:
        return file.read()


def varied(plan: Plan) -> dict[str, str]:
    """The keys that vary, with their values in few words: `0.0001, 0.001`, or `0 to 199 (200 values)`."""
    found = {}
    for key in plan.keys:
        values = list({repr(point.values[key]): point.values[key] for point in plan.points}.values())
        if len(values) <= _FEW:
            found[key] = ", ".join(map(shown, values))
        elif all(isinstance(value, (int, float)) for value in values):
            found[key] = f"{shown(min(values))} to {shown(max(values))} ({len(values):,} values)"
        else:
            found[key] = f"{shown(values[0])} to {shown(values[-1])} ({len(values):,} values)"
    return found


def list_sweeps(folder: Path) -> tuple[list[tuple[str, RunRow]], list[str]]:
    """The sweeps in a folder of runs, each with its time of start, as rows of a list of runs; and their problems.

    A row's losses are the smallest of all points.
    """
    rows, problems = list[tuple[str, RunRow]](), list[str]()
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".") and is_sweep(path)]
    except OSError:  # the list of runs says so
        return [], []
    for path in paths:
        try:
            sweep = read(path)
        except RunError as error:
            problems.append(str(error))
            continue
        problems += sweep.problems
        rows.append((str(sweep.info.get("started", "")), _row(sweep)))
    return rows, problems


def _row(sweep: SavedSweep) -> RunRow:
    config, keys = sweep.plan.points[0].config, sweep.plan.keys
    note = f"{sweep.done:,} of {len(sweep.plan.points):,} points" + (f": {sweep.note}" if sweep.note else "")
    return RunRow(
        run=sweep.name,
        status=sweep.status,
        config=sweep.plan.source,
        shape=config.shape if not {"N", "D_in", "H", "D_out"} & {*keys} else None,
        engine=None,
        lr=None if "lr" in keys else config.lr,
        seed=None if "seed" in keys else config.seed,
        iterations=None,
        first_loss=None,
        best_loss=_least(sweep, "best_loss"),
        last_loss=_least(sweep, "last_loss"),
        seconds=sum(result.number("seconds") or 0.0 for result in sweep.results),
        device=None if "device" in keys else config.device,
        note=note,
        target="",
        loss=f"{config.loss}, {config.reduction}",
        val_loss=_least(sweep, "final_val_loss"),
    )


def _least(sweep: SavedSweep, name: str) -> float | None:
    numbers = [result.number(name) for result in sweep.results if result.status == "completed"]
    return min((number for number in numbers if number is not None), default=None)
