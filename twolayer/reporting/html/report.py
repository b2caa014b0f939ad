"""The report: runs as a single HTML file that needs no network."""

from __future__ import annotations

import base64
import datetime
import zlib
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from twolayer.errors import RunError, extra
from twolayer.files import replacing
from twolayer.formatting import safe
from twolayer.reporting import chart, chart_theme, comparison
from twolayer.reporting.html import page
from twolayer.reporting.html.run_section import RunSection, differences, moment, run_section
from twolayer.runs.saved_run import SavedRun

with extra("vl_convert", "report"):
    import vl_convert

ENDINGS = (".html", ".htm")
SCALES: tuple[Literal["linear", "log"], ...] = ("linear", "log")
LOOK: dict[str, Any] = {"interactive": True, "width": "container", "height": 340, "title": False}


@dataclass(frozen=True)
class Summary:
    """The figures of all runs: their names, and for each run their values."""

    names: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """What the page shows. Every text is safe to show; `charts` and `tables` are what its scripts read, as JSON."""

    title: str
    created: str
    runs: list[RunSection]
    summary: Summary
    differences: list[tuple[str, list[str]]]
    is_complete: bool  # every config and run.json could be read
    charts: list[dict[str, Any]]
    tables: list[dict[str, Any]]


def check_name(path: Path) -> None:
    """Raise RunError where the name does not end in .html or .htm."""
    if path.suffix.lower() not in ENDINGS:
        raise RunError("a report is an HTML page", path=path, hint="its name must end in .html", usage=True)


def write(runs: Sequence[SavedRun], path: Path) -> list[str]:
    """Write the report on one or more runs; returns what is wrong with them, a line for each problem.

    Raises RunError where the file cannot be written.
    """
    check_name(path)
    report = make_report(runs)
    with replacing(path) as file:
        file.write(html(report).encode())
    return [problem for run in report.runs for problem in run.problems]


def make_report(runs: Sequence[SavedRun]) -> Report:
    """The content of the page."""
    names = comparison.names(runs)
    charts, colours = _charts(runs)
    sections = [run_section(run, name, colours.get(id(run), "")) for run, name in zip(runs, names, strict=True)]
    return Report(
        title=" and ".join(names) if len(runs) < 3 else f"{len(runs)} runs",
        created=moment(datetime.datetime.now(datetime.UTC)),
        runs=sections,
        summary=_summary(sections),
        differences=differences(runs) if len(runs) > 1 else [],
        is_complete=all(run.config is not None and run.info for run in runs),
        charts=charts,
        tables=[
            {"name": name, "unit": run.history.unit, "rows": len(run.history), "columns": _packed(run.history.columns)}
            for run, name in zip(runs, names, strict=True)
        ],
    )


def _summary(sections: Sequence[RunSection]) -> Summary:
    names = list(dict.fromkeys(figure.name for section in sections for figure in section.figures))
    names.sort(key=lambda name: (name not in ("iterations", "epochs"), name.startswith("time")))
    rows = [{figure.name: figure.value for figure in section.figures} for section in sections]
    return Summary(names, [[row.get(name, "") for name in names] for row in rows])


def html(report: Report) -> str:
    """The page of a report."""
    return page.render(
        "report.html",
        data={"charts": report.charts, "tables": report.tables},
        scripts=[*libraries(), page.read("shared.js") + page.read("report.js")],
        styles=[page.read("page.css"), page.read("report.css")],
        title=report.title,
        report=report,
    )


@cache
def libraries() -> tuple[str, str]:
    """Third-party scripts: vegaEmbed, which takes a second to bundle, and DataTable."""
    with extra("itables", "report"):
        tables = (files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    return (
        vl_convert.javascript_bundle("globalThis.vegaEmbed = vegaEmbed;"),
        page.published(tables, "DataTable"),
    )


def _charts(runs: Sequence[SavedRun]) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """A chart on both scales for each kind of loss; and the colours of the runs, by `id`, that have a curve."""
    try:
        groups = chart.panels(runs, "linear")
    except RunError:  # there is nothing to draw
        return [], {}
    charts, colours = [], dict[int, str]()
    for group, its_colours in zip(groups, chart.colours(groups), strict=True):
        specs: dict[str, Any] = {}
        for scale in SCALES:
            with suppress(RunError):
                specs[scale] = chart.spec(group, scale=scale, colours=its_colours, **LOOK)
        curves = {scale: _curves(spec.pop("datasets")[chart.DATA]) for scale, spec in specs.items()}
        if curves.get("log") == curves["linear"]:
            del curves["log"]
        palette = its_colours or specs["linear"]["config"]["range"]["category"]
        for spec in specs.values():
            spec["config"] = chart_theme.of_a_page(spec["config"]) | {
                "padding": {"left": 0, "top": 4, "right": 16, "bottom": 4}
            }
        charts.append({"specs": specs, "curves": curves, "first": chart.chosen(group, "auto"), "name": chart.DATA})
        colours |= {id(run): palette[number % len(palette)] for number, run in enumerate(group)}
    return charts, colours


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points of a chart as columns, one pair for each curve: a third of the size of rows."""
    curves: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        new = {"run": row["run"], "kind": row["kind"], "iteration": [], "loss": []}
        curve = curves.setdefault((row["run"], row["kind"]), new)
        curve["iteration"].append(row["iteration"])
        curve["loss"].append(row["loss"])
    return list(curves.values())


def _packed(columns: Mapping[str, array[float]]) -> list[dict[str, Any]]:
    """The columns of a history, compressed: as float32 where that is exact, else as float64.

    The first bytes of all numbers come first, then the second bytes, and so on: that compresses better.
    """
    found = []
    for name, values in columns.items():
        numbers = np.asarray(values, dtype="<f8")
        with np.errstate(over="ignore"):
            short = numbers.astype("<f4")
        if np.array_equal(short.astype("<f8"), numbers, equal_nan=True):
            numbers = short
        size = numbers.itemsize
        data = zlib.compress(numbers.view(np.uint8).reshape(-1, size).T.tobytes(), 9)
        found.append({"name": safe(name), "size": size, "data": base64.b64encode(data).decode()})
    return found
