"""The scores of a run's folds, as `train --folds` left them in run.json: texts that are safe to show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twolayer.formatting import safe, with_error

_MAX_ROWS = 1000  # of a table that is shown


@dataclass(frozen=True)
class FoldTable:
    """The mean scores of all folds: `names` are the columns' names, the cells of a row are texts, empty without one."""

    title: str
    names: list[str]
    rows: list[list[str]]


def fold_table(info: Mapping[str, Any], plus_minus: str = "±") -> FoldTable | None:
    """The table of a run's folds; None where there is none, or run.json has no valid one."""
    found = info.get("folds")
    try:
        return _table(found, plus_minus) if isinstance(found, dict) else None
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return None


def _table(found: Mapping[str, Any], plus_minus: str) -> FoldTable:
    count, repeats, rows = int(found["folds"]), int(found["repeats"]), found["scores"][:_MAX_ROWS]
    scores = list(dict.fromkeys(str(score) for row in rows for score in row["figures"]))
    scores.sort(key="loss".__eq__)  # R2 first
    has_target = any(row["target"] is not None for row in rows)
    lines = []
    for row in rows:
        cells = [_cell(row["figures"].get(score), plus_minus) for score in scores]
        start = [safe(row["target"] or "")] if has_target else []
        lines.append([*start, safe(row["model"]), *cells])
    if not lines:
        raise ValueError
    many = f", {repeats} times" if repeats > 1 else ""
    title = f"{int(found['rows']):,} rows in {count} folds{many}, each scored by a network trained on the others"
    return FoldTable(title, [*(["target"] if has_target else []), "model", *map(safe, scores)], lines)


def _cell(figure: Mapping[str, Any] | None, plus_minus: str) -> str:
    if figure is None or figure["value"] is None:
        return ""
    value, error = (None if number is None else float(number) for number in (figure["value"], figure["error"]))
    return with_error(math.nan if value is None else value, error, plus_minus)


def fold_line(info: Mapping[str, Any], plus_minus: str = "±") -> str:
    """The network's first score and those of the baselines in a line; empty where there is none."""
    table = fold_table(info, plus_minus)
    if table is None:
        return ""
    model = table.names.index("model")
    name = next(
        (name for name in table.names[model + 1 :] if any(row[table.names.index(name)] for row in table.rows)), ""
    )
    cells = {
        row[model]: row[table.names.index(name)]
        for row in reversed(table.rows)
        if name and row[table.names.index(name)]
    }
    others = ", ".join(f"{other} {cells[other]}" for other in ("linear", "constant") if other in cells)
    return f"{name} {cells['network']} ({others})" if "network" in cells else ""
