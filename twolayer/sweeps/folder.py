"""The folder of a sweep: `sweep.json`, which says what its points are, `sweep.csv`, and a run folder a point."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from twolayer.config.schema import Config, variant
from twolayer.errors import RunError
from twolayer.files import (
    Folder,
    make_folders,
    named,
    open_regular,
    remove_folder,
    remove_folders,
    temporary_name,
    unreadable,
    write_all,
)
from twolayer.runs import checksum
from twolayer.runs.folder import now
from twolayer.runs.leftovers import MARKER, remove_leftovers
from twolayer.runs.lock import hold
from twolayer.runs.names import free_place, move_to_free, safe_name
from twolayer.runs.run_files import SWEEP, SWEEP_TABLE, check_writable, is_file, read_info
from twolayer.sweeps import table_files
from twolayer.sweeps.points import Plan, Point
from twolayer.sweeps.results import Result, cells, csv_line, result_of, table
from twolayer.system.folders import flush
from twolayer.version import __version__

INFO, TABLE = SWEEP, SWEEP_TABLE
FORMAT = 1
SEALS = "table_seals"  # the key of sweep.json with the sizes and checksums that `sweep.csv`, or its start, may have
POINT = "point_sha256"  # the key of run.json that says of which point a run is
_MAX_INFO = 256 * 2**20  # bytes


class SweepFolder:
    """A sweep's folder that this process has locked. A context manager. Raises RunError where it cannot be written."""

    def __init__(self, path: Path, plan: Plan, info: Mapping[str, Any], folder: Folder) -> None:
        self.path, self.plan, self.info, self.folder = path, plan, dict(info), folder
        self._table = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._table >= 0:
            os.close(self._table)
        self._table = -1
        self.folder.close()

    def write_table(self, results: Sequence[Result]) -> None:
        """Write the table with these results alone, in the order of the points: it is whole or unchanged.

        Its checksum is in `sweep.json` before, beside those of the ones before: a kill may come between the writes.
        """
        if self._table >= 0:
            os.close(self._table)
            self._table = -1
        with named(self.path / TABLE):
            ordered = sorted(results, key=lambda result: result.point.number)
            data = table(self.plan, ordered).encode()
            seals = self.info.get(SEALS)
            self._seal([*(seals[-2:] if isinstance(seals, list) else []), seal_of(data)])
            self.folder.write(TABLE, data)
            self._seal([seal_of(data)])

    def _seal(self, seals: list[Any]) -> None:
        """Write `sweep.json` with these checksums of the table."""
        self.info[SEALS] = seals
        self.folder.write(INFO, checksum.seal_json({key: self.info[key] for key in self.info if key != "sha256"}))

    def add(self, result: Result) -> None:
        """Add a row to the table, durably."""
        with named(self.path / TABLE):
            if self._table < 0:
                check_writable(self.folder.status(TABLE), self.path / TABLE, in_place=True)
                self._table = self.folder.descriptor(TABLE, os.O_WRONLY | os.O_APPEND)
            write_all(self._table, csv_line(cells(result)).encode())
            flush(self._table)


def create(out: Path | None, plan: Plan, **options: Any) -> SweepFolder:
    """A new folder, locked: `out`, or `runs/<config>-sweep-<n>` with the first free number.

    It is filled under a temporary name. Raises RunError where the place is taken, or it cannot be created.
    """
    name = f"{safe_name(plan.source)}-sweep"
    place = free_place(out, name)
    header = table(plan, ()).encode()
    info = _document(plan) | options | {"started": now(), "twolayer": __version__, SEALS: [seal_of(header)]}
    if found := table_files.recorded(plan, place):
        info["tables"] = found
    made = make_folders(place.parent)
    remove_leftovers(place.parent)
    unfinished, folder = place.parent / temporary_name(), None
    try:
        with named(place):
            unfinished.mkdir()
            folder = hold(unfinished)
            folder.write(MARKER, unfinished.name.encode())
            folder.write(INFO, checksum.seal_json(info))
            folder.write(TABLE, header)
            while not move_to_free(folder.move, place):
                place = free_place(out, name)  # another process was faster
            folder.remove(MARKER)
            with Folder(place.parent) as parent:
                parent.sync()
    except BaseException:
        if folder is not None:
            remove_folder(folder, unfinished)
            folder.close()
        remove_folders(made)
        raise
    return SweepFolder(place, plan, info, folder)


def open_for_resume(path: Path) -> SweepFolder:
    """An existing sweep's folder, locked. Raises RunError."""
    plan, info = read_plan(path)
    try:
        folder = hold(path)
    except RunError as error:
        if error.usage:
            raise RunError("another process is training this sweep", path=path, usage=True) from None
        raise
    with suppress(OSError):
        folder.remove(MARKER)  # left by a kill just before `create` would have removed it
    folder.remove_leftovers()
    remove_leftovers(path, age=0.0)  # nobody else creates runs in it
    return SweepFolder(path, plan, info, folder)


def seal_of(data: bytes) -> list[int | str]:
    """The size and the SHA-256 of a table."""
    return [len(data), checksum.digest(data)]


def agrees(data: bytes, info: Mapping[str, Any]) -> bool:
    """Whether a table is, or begins with, one that was written; the rows behind it have been added since."""
    seals = info.get(SEALS)
    if seals is None:  # a sweep of an earlier version
        return True
    sizes = {len(data), *(seal[0] for seal in seals if isinstance(seal, list) and seal and isinstance(seal[0], int))}
    return any(size <= len(data) and seal_of(data[:size]) in seals for size in sizes)


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return is_file(path / INFO)


def read_plan(path: Path) -> tuple[Plan, dict[str, Any]]:
    """The points of a sweep, and the content of its `sweep.json`. Raises RunError."""
    file = path / INFO
    try:
        with open_regular(file, _MAX_INFO) as opened:
            data = opened.read()
        info = checksum.parse_json(data)
    except OSError as error:
        raise RunError(unreadable(error), path=file) from None
    except (ValueError, RecursionError):
        raise RunError("is damaged: it is not JSON", path=file) from None
    if not isinstance(info, dict) or not checksum.is_sealed(data, info):
        raise RunError("is damaged or was edited: its checksum does not match", path=file)
    if info.get("format") != FORMAT:
        reason = f"has format {info.get('format')}, and this version of twolayer reads {FORMAT}"
        raise RunError(reason, path=file, hint="install a newer version")
    try:
        base, keys = info["base"], tuple(info["keys"])
        points = tuple(
            Point(number, str(name), dict(zip(keys, given, strict=True)), _config(base, changes))
            for number, (name, given, changes) in enumerate(info["points"], 1)
        )
        if not points or any(not point.name or Path(point.name).name != point.name for point in points):
            raise ValueError("not the names of folders")
        return Plan(str(info["config"]), keys, points), info
    except (KeyError, TypeError, ValueError):
        raise RunError("is damaged: its points cannot be read", path=file) from None


def _config(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Config:
    if (config := variant({**base, **changes})) is None:
        raise ValueError("not a config")
    return config


def _document(plan: Plan) -> dict[str, Any]:
    """The points as JSON: the first one's config, and what is different in the others."""
    base = plan.points[0].config.model_dump()
    points = []
    for point in plan.points:
        own = point.config.model_dump()
        changes = {key: value for key, value in own.items() if value != base[key] or type(value) is not type(base[key])}
        points.append([point.name, list(point.values.values()), changes])
    return {"format": FORMAT, "config": plan.source, "keys": list(plan.keys), "base": base, "points": points}


def results_of(sweep: SweepFolder) -> tuple[list[Result], dict[str, str]]:
    """The results that there are, and the run folders of points that have none yet, by the points' SHA-256.

    A run is recognised by the config that it was started with, whatever its folder is called.
    """
    points = {point.sha256: point for point in sweep.plan.points}
    done, existing = dict[str, Result](), dict[str, str]()
    for name in sorted(sweep.folder.names()):
        info: dict[str, Any] = {}
        with suppress(RunError):
            info = read_info(sweep.path / name) if not name.startswith(".") else {}
        digest = info.get(POINT)
        if not isinstance(digest, str) or digest not in points:
            continue
        result = result_of(points[digest], info, name)
        # A kill may have come between the two writes of a divergence: then its model is missing.
        if result.is_result and ("model_sha256" in info or result.status == "completed"):
            done[digest] = result
        else:
            existing[digest] = name
    return list(done.values()), {digest: name for digest, name in existing.items() if digest not in done}
