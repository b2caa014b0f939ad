"""Reads a sheet of an Excel file, as a program of its own: its memory has a limit, and its end does not end ours.

Called by `excel`, with the file, the sheet ("" for the only one), 1 if the first row holds names, the bytes that it may
take ("" without a limit) and the Arrow file to write. It prints a JSON object. It imports nothing of twolayer.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import fastexcel
import polars as pl


def _limit_memory(count: int) -> None:
    """Let this process take this number of bytes more. What it holds already is known on Linux only."""
    resource: Any = import_module("resource")  # which not every system has
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = held + count
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _sheets(book: fastexcel.ExcelReader) -> list[str]:
    """The sheets that are visible and not empty."""
    shown = []
    for name in book.sheet_names:
        sheet = book.load_sheet(name, header_row=None, n_rows=1)
        if sheet.visible == "visible" and sheet.width and sheet.total_height:
            shown.append(name)
    return shown


def _read(path: str, sheet: str, has_header: bool, out: str) -> dict[str, Any]:
    content = Path(path).read_bytes()  # its first bytes say which kind of workbook it is, not its name
    book = fastexcel.read_excel(content)
    names = [sheet] if sheet else book.sheet_names
    if sheet and sheet not in book.sheet_names:
        return {"sheets": book.sheet_names, "missing": sheet}
    if len(names) > 1:
        names = _sheets(book)
    if len(names) != 1:
        return {"sheets": names}
    top = book.load_sheet(names[0], header_row=None, n_rows=1, dtypes="string")
    first = [cell or "" for cell in top.to_polars().row(0)] if top.width and top.total_height else []
    if first:
        frame = pl.read_excel(
            content, sheet_name=names[0], engine="calamine", has_header=has_header, infer_schema_length=None,
            drop_empty_cols=False,
        )  # fmt: skip
        frame.write_ipc(out)
    return {"sheets": names, "first": first}


def main() -> None:
    """Read the sheet that the arguments name."""
    path, sheet, has_header, most, out = sys.argv[1:]
    with suppress(ImportError, OSError, ValueError):  # not Linux, or there is no limit
        _limit_memory(int(most))
    try:
        found = _read(path, sheet, has_header == "1", out)
    except MemoryError:
        found = {"memory": True}
    except Exception as error:  # noqa: BLE001 (calamine and polars have many, and each becomes one line)
        found = {"error": str(error)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
