"""Excel and OpenDocument sheets -> frames, by polars and its calamine engine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from twolayer.errors import DataError, ExtraError
from twolayer.formatting import size
from twolayer.system import available_memory
from twolayer.tables.file_checks import check_size, reworded

_CHILD = Path(__file__).with_name("excel_child.py")
_NO_NAME = "__UNNAMED__"  # calamine's names of columns that have none


def read_sheet(raw: Path | bytes, name: str, sheet: str | None, *, has_header: bool) -> tuple[pl.DataFrame, list[str]]:
    """The cells of a sheet, typed, and its first row as text; without a sheet's name, of the only one with cells.

    A process of its own reads it: a small file may claim billions of cells. Raises DataError.
    """
    if find_spec("fastexcel") is None:
        raise ExtraError(f"{name}: is an Excel file, and this needs fastexcel: pip install 'twolayer[excel]'")
    with tempfile.TemporaryDirectory(prefix="twolayer-", ignore_cleanup_errors=True) as folder:
        out, path = Path(folder) / "sheet.arrow", Path(folder) / "book"
        if isinstance(raw, bytes):
            path.write_bytes(raw)
        else:
            path = raw
        found = _in_child(path, name, sheet or "", "1" if has_header else "0", out)
        if "missing" in found:
            raise DataError(f"{name}: has no sheet {sheet}; its sheets are {', '.join(found['sheets'])}")
        if len(found["sheets"]) > 1:
            listed = ", ".join(found["sheets"])
            raise DataError(f"{name}: has {len(found['sheets'])} sheets ({listed}); set data.sheet to one of them")
        if not found["sheets"] or not found["first"] or not out.exists():
            raise DataError(f"{name}: is empty")
        check_size(2 * out.stat().st_size, name)
        with reworded(name):
            frame = pl.read_ipc(out.read_bytes())
    return frame, _named(frame, found["first"], has_header=has_header)


def _named(frame: pl.DataFrame, first: list[str], *, has_header: bool) -> list[str]:
    """The first row, as long as the frame is wide; calamine's own name where a cell has none."""
    own = [cell if cell.strip() else f"Unnamed: {j}" for j, cell in enumerate(first)]
    own = own if has_header else first
    return [*own, *frame.columns[len(own) :]][: frame.width]


def _in_child(path: Path, name: str, sheet: str, has_header: str, out: Path) -> dict[str, Any]:
    free = available_memory.available()
    command = [sys.executable, "-P", str(_CHILD), str(path.absolute()), sheet, has_header]
    limit = "" if free is None else str(free)
    arguments = [*command, limit, str(out)]
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603 (our own)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:  # it has ended without a word: Rust aborts where there is no memory
        found = {"memory": True}
    if "memory" in found:
        there = "" if free is None else f" ({size(free)})"
        raise DataError(f"{name}: is damaged, or needs more memory than is available{there}; save its sheet as CSV")
    if "error" in found:
        raise DataError(f"{name}: cannot be read: {str(found['error']).splitlines()[0][:200]}")
    return found
