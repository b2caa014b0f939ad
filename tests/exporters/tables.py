"""Random tables for models that are exported: the cells of a CSV, and the values that they stand for."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.tablerun import make_run

Numbers = np.ndarray[Any, np.dtype[Any]]
NAMES = ["size", "größe, €", 'a "b"', "class", "probability", "x", "output", "_", "two words", "ящик"]
WORDS = ["red", "green ü", 'quote "', "comma, and it's", "007", "-1", "back\\slash", "漢字"]
FORMS = {  # a number as such columns have it
    "number": "{:.6g}",
    "dollars": "${:,.2f}",
    "metres": "{:.3f} m",
    "per cent": "{:.1f}%",
}
KINDS = [*FORMS, "euros", "category", "boolean", "date", "moment", "day first", "time"]


@dataclass(frozen=True)
class Made:
    """A table: by column its cells, and their values as an ONNX file or a JSON takes them (see `sample.rows`)."""

    cells: dict[str, list[str]]
    values: dict[str, Numbers]

    @property
    def text(self) -> str:
        """The CSV."""
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow(self.cells)
        writer.writerows(zip(*self.cells.values(), strict=True))
        return file.getvalue()


def made(kinds: list[str], seed: int, *, missing: bool, rows: int = 40) -> Made:
    """A table with a column of each of these kinds."""
    random = np.random.default_rng(seed)
    cells: dict[str, list[str]] = {}
    values: dict[str, Numbers] = {}
    for name, kind in zip(NAMES, kinds, strict=False):
        column = _column(kind, random, rows)
        gone = random.random(rows) < (0.25 if missing else 0)
        gone[:8] = False  # of each kind of cell there is one
        cells[name] = ["" if is_gone else text for (text, _), is_gone in zip(column, gone, strict=True)]
        plain = [value for _, value in column]
        if isinstance(plain[0], str):
            values[name] = np.array(["" if is_gone else value for value, is_gone in zip(plain, gone, strict=True)])
        else:
            values[name] = np.where(gone, np.nan, np.array(plain))
    return Made(cells, values)


def _column(kind: str, random: Any, rows: int) -> list[tuple[str, Any]]:
    """Cells, and what each stands for."""
    if kind == "category":
        words = [WORDS[k] for k in random.permutation(len(WORDS))[:3]]
        return [(word, word) for word in (words[k % 3] for k in range(rows))]
    if kind == "boolean":
        return [(("False", "true")[k], float(k)) for k in [0, 1, *random.integers(0, 2, rows - 2).tolist()]]
    if kind in ("date", "moment", "day first", "time"):
        seconds = random.integers(-(10**9), 2 * 10**9, rows).tolist()
        return [_date(kind, second) for second in seconds]
    sizes = (random.normal(size=rows) * 1500).round(1).tolist()
    if kind == "euros":
        texts = [f"{size:,.2f} €".translate(str.maketrans(",.", ".,")) for size in sizes]
    else:
        texts = [FORMS[kind].format(size) for size in sizes]
    return list(zip(texts, [float(f"{size:.6g}") if kind == "number" else size for size in sizes], strict=True))


def _date(kind: str, second: int) -> tuple[str, float]:
    when = datetime(1970, 1, 1) + timedelta(seconds=second)
    if kind == "time":
        return f"{when:%H:%M}", (when.hour * 60 + when.minute) / 1440
    if kind == "moment":
        return f"{when:%Y-%m-%dT%H:%M:%S}", second / 86_400
    days = second // 86_400
    day = datetime(1970, 1, 1) + timedelta(days=days)
    return (f"{day:%Y-%m-%d}" if kind == "date" else f"{day.day}.{day.month}.{day.year}"), float(days)


def run_of(path: Path, table: Made, target: str, *, dtype: str = "float32", seed: int = 0, **data: Any) -> Made:
    """A run on the table with a target of `numbers`, `two` such columns, or `classes`; the table with its targets."""
    random, rows = np.random.default_rng(seed), len(next(iter(table.cells.values())))
    if target == "classes":
        more = {"kind": [("cat", "dog, too", "ä")[k % 3] for k in range(rows)]}
    else:
        more = {name: [f"{v:.4f} kg" for v in random.normal(50, 9, rows)] for name in ("mass", "net")}
    if target == "numbers":
        del more["net"]
    whole = Made(table.cells | more, table.values)
    texts = [name for name, column in table.values.items() if column.dtype.kind == "U"]
    settings = {"date_order": "dmy", "exclude": [], "categories": texts, **data}
    make_run(path, whole.text, target=list(more), dtype=dtype, **settings)
    return whole
