"""The report on a sweep: a single HTML file that needs no network."""

from __future__ import annotations

import datetime
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twolayer.errors import RunError
from twolayer.files import replacing
from twolayer.formatting import json_number, safe, shown
from twolayer.reporting import chart_theme, sweep_chart, sweep_curves, sweep_summary
from twolayer.reporting.html import page
from twolayer.reporting.html.report import SCALES, check_name, libraries
from twolayer.reporting.html.run_section import moment
from twolayer.reporting.sweep_summary import Table
from twolayer.sweeps.results import FIGURES, Result, ranked, score_name
from twolayer.sweeps.saved_sweep import SavedSweep

_BEST = 20  # points of the table that is printed
_LABELS = {"final_loss": "loss", "final_val_loss": "val_loss", "final_accuracy": "accuracy"}
_LABELS |= {"final_val_accuracy": "val_accuracy", "best_loss": "best", "iterations": "rows", "seconds": "seconds"}


@dataclass(frozen=True)
class SweepReport:
    """What the page shows. Every text is safe to show; `charts` and `points` are what its script reads, as JSON."""

    title: str
    status: str
    created: str
    lines: list[tuple[str, str]]
    remarks: list[str]
    problems: list[str]
    bands: str
    left_out: list[str]
    has_grid: bool
    spreads: Table | None
    values: Table | None
    best: Table
    keys: int  # the first columns of `best`, which have the values that vary
    count: int
    charts: list[dict[str, Any]]
    points: dict[str, Any]


def write(sweep: SavedSweep, path: Path) -> tuple[str, ...]:
    """Write the report; returns what is wrong with the sweep, a line for each problem. Raises RunError."""
    check_name(path)
    report = make_report(sweep)
    text = page.render(
        "sweep.html",
        data={"charts": report.charts, "points": report.points},
        scripts=[*libraries(), page.read("shared.js") + page.read("sweep.js")],
        styles=[page.read("page.css"), page.read("report.css")],
        title=report.title,
        report=report,
    )
    with replacing(path) as file:
        file.write(text.encode())
    return sweep.problems


def make_report(sweep: SavedSweep) -> SweepReport:
    """The content of the page."""
    plan, results = sweep.plan, sweep.results
    found, grid = sweep_curves.curves(sweep), sweep_curves.grid(sweep)
    look: dict[str, Any] = {"width": "container", "titled": False}
    curves: dict[str, Any] = {}
    for scale in SCALES:
        with suppress(RunError):  # there is nothing to draw
            spec = sweep_chart.curve_spec(sweep, found, scale=scale, published=True, height=340, **look)
            curves[scale] = _on_page(spec)
    charts = [curves] if curves else []
    if grid is not None:
        charts.append({"linear": _on_page(sweep_chart.grid_spec(grid, **look))})
    order = ranked(results)
    return SweepReport(
        title=safe(sweep.name),
        status=sweep.status,
        created=moment(datetime.datetime.now(datetime.UTC)),
        lines=[(name, safe(text)) for name, text in sweep_summary.summary_lines(sweep)[1:]],
        remarks=[safe(line) for line in sweep_summary.remarks(plan, results, sweep.path)],
        problems=list(sweep.problems),
        bands=sweep_chart.caption(found),
        left_out=[safe(line) for line in found.left_out],
        has_grid=grid is not None,
        spreads=sweep_summary.spread_table(plan, results) if "seed" in plan.keys and len(results) > 1 else None,
        values=sweep_summary.value_table(plan, results) if [key for key in plan.keys if key != "seed"] else None,
        best=sweep_summary.point_table(plan, order[:_BEST]),
        keys=len(plan.keys),
        count=len(plan.points),
        charts=charts,
        points=_points(sweep, order),
    )


def _on_page(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec in the page's colours."""
    datasets = spec.pop("datasets")
    page_spec: dict[str, Any] = chart_theme.of_a_page(spec)
    config = page_spec["config"]
    return {
        **page_spec,
        "datasets": datasets,
        "config": config | {"padding": {"left": 0, "top": 4, "right": 16, "bottom": 4}},
    }


def _points(sweep: SavedSweep, order: list[Result]) -> dict[str, Any]:
    """The table of all points, as columns of values: numbers, text, or null."""
    keys = sweep.plan.keys
    figures = [name for name in FIGURES if name in _LABELS and any(result.number(name) is not None for result in order)]
    figures.sort(key=lambda name: name != score_name(order))
    columns: dict[str, list[Any]] = {key: [_cell(result.point.values[key]) for result in order] for key in keys}
    columns["status"] = [result.status for result in order]
    for name in figures:
        columns[_LABELS[name] if _LABELS[name] not in columns else name] = [result.number(name) for result in order]
    return {"names": list(columns), "columns": list(columns.values())}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return json_number(value)
    return (
        value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else safe(shown(value))
    )
