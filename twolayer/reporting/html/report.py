"""Runs -> one HTML file that can be read anywhere: what its page shows, as plain data, and the page."""

from __future__ import annotations

import base64
import datetime
import zlib
from array import array
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from twolayer.errors import RunError, extra
from twolayer.files import replacing
from twolayer.formatting import safe
from twolayer.reporting import chart, chart_labels, chart_theme, comparison
from twolayer.reporting.html import page, run_section
from twolayer.runs.saved_run import SavedRun

with extra("vl_convert", "report"):
    import vl_convert

ENDINGS = (".html", ".htm")


def check_name(path: Path) -> None:
    """Raise RunError for a file that is no page."""
    if path.suffix.lower() not in ENDINGS:
        raise RunError("a report is an HTML page", path=path, hint="its name must end in .html", usage=True)


def write(runs: Sequence[SavedRun], path: Path) -> list[str]:
    """Write the report of one run or several; what is wrong with them, a line each.

    Raises RunError where the file cannot be written.
    """
    check_name(path)
    content = contents(runs)
    with replacing(path) as file:
        file.write(html(content).encode())
    return [problem for part in content["parts"] for problem in part["problems"]]


def contents(runs: Sequence[SavedRun]) -> dict[str, Any]:
    """What the page shows: text that is safe to show, and numbers."""
    names = comparison.names(runs)
    drawn, colours = _chart(runs)
    parts = [
        run_section.run_section(run, name) | {"colour": colour}
        for run, name, colour in zip(runs, names, colours, strict=True)
    ]
    return {
        "title": " and ".join(names) if len(runs) < 3 else f"{len(runs)} runs",
        "made": run_section.moment(datetime.datetime.now(datetime.UTC)),
        "parts": parts,
        "summary": _summary(parts),
        "differences": run_section.differences(runs) if len(runs) > 1 else [],
        "alike": all(run.config is not None and run.info for run in runs),
        "chart": drawn,
        "tables": [
            {"name": name, "unit": run.history.unit, "rows": len(run.history), "columns": _packed(run.history.columns)}
            for run, name in zip(runs, names, strict=True)
        ],
    }


def _summary(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of all runs, a run a row."""
    names = list(dict.fromkeys(figure["name"] for part in parts for figure in part["figures"]))
    names.sort(key=lambda name: (name not in ("iterations", "epochs"), name.startswith("time")))
    rows = [{figure["name"]: figure["value"] for figure in part["figures"]} for part in parts]
    return {"names": names, "rows": [[row.get(name, "") for name in names] for row in rows]}


def html(content: Mapping[str, Any]) -> str:
    """The page of `contents`."""
    return page.render(
        "report.html",
        data={"chart": content["chart"], "tables": content["tables"]},
        scripts=[*_libraries(), page.read("report.js")],
        styles=[page.read("page.css"), page.read("report.css")],
        **{key: value for key, value in content.items() if key != "chart"},
        charted=content["chart"] is not None,
    )


@cache
def _libraries() -> tuple[str, str]:
    """The scripts of others: vegaEmbed, which takes a second to be bundled, and DataTable."""
    with extra("itables", "report"):
        tables = (files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    return (
        vl_convert.javascript_bundle("globalThis.vegaEmbed = vegaEmbed;"),
        page.published(tables, "DataTable"),
    )


def _chart(runs: Sequence[SavedRun]) -> tuple[dict[str, Any] | None, list[str]]:
    """The chart on both scales, None where there is nothing to draw; and the runs' colours in it, "" without a line."""
    found: dict[str, Any] = {}
    for scale in ("linear", "log"):
        try:
            found[scale] = chart.spec(runs, scale=scale, interactive=True, width="container", height=340, title=False)
        except RunError:
            continue
    if not found:
        return None, [""] * len(runs)
    curves = {scale: _curves(spec.pop("datasets")[chart.DATA]) for scale, spec in found.items()}
    if curves.get("log") == curves["linear"]:
        del curves["log"]
    palette = found["linear"]["config"]["range"]["category"]
    for spec in found.values():
        spec["config"] = chart_theme.of_a_page(spec["config"]) | {
            "padding": {"left": 0, "top": 4, "right": 16, "bottom": 4}
        }
    shown = list(dict.fromkeys(curve["run"] for curve in curves["linear"]))
    colours = {label: palette[number % len(palette)] for number, label in enumerate(shown)}
    drawn = {"specs": found, "curves": curves, "first": chart.chosen(runs, "auto"), "name": chart.DATA}
    return drawn, [colours.get(label, "") for label in chart_labels.labels(runs)]


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points of a chart, a curve each: a third of what they are as rows."""
    curves: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        new = {"run": row["run"], "kind": row["kind"], "iteration": [], "loss": []}
        curve = curves.setdefault((row["run"], row["kind"]), new)
        curve["iteration"].append(row["iteration"])
        curve["loss"].append(row["loss"])
    return list(curves.values())


def _packed(columns: Mapping[str, array[float]]) -> list[dict[str, Any]]:
    """The columns of a history: as float32 where that holds the very numbers, else float64.

    Of all numbers the first bytes come first, then the second ones, and so on, which compresses better.
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
