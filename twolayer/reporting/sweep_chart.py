"""Charts of a sweep as Vega-Lite specs: curves with bands over seeds, and the heat map of two keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from twolayer.errors import RunError
from twolayer.reporting import chart, chart_theme
from twolayer.reporting.downsampling import Scale, spans_decades
from twolayer.reporting.sweep_curves import Cell, Curve, Curves, Grid, with_seeds
from twolayer.sweeps.saved_sweep import SavedSweep

_MANY_SEEDS = 40  # from this number on the band is the 95 % band
_MAX_NUMBERS = 150  # cells that show their number
_DARK = 0.6  # the part of the colour scale, from its dark end, on which white text is read


def title(sweep: SavedSweep, found: Curves) -> str:
    """The title of the curves, and what their bands are."""
    keys = [key for key in sweep.plan.keys if key != "seed"]
    by = f" by {' and '.join(keys)}" if keys else ""
    return f"{sweep.name}: {found.column}{by}"


def bands(found: Curves) -> str:
    """What lines and bands are; empty where there are no bands."""
    if not with_seeds(found.curves):
        return ""
    counts = {curve.count for curve in found.curves}
    seeds = f"{max(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    inner = "2.5 to 97.5 %" if max(counts) >= _MANY_SEEDS else "the range"
    return f"line: median of {seeds} seeds; dark band: quartiles; light band: {inner}"


def curve_spec(
    sweep: SavedSweep,
    found: Curves,
    *,
    scale: Scale = "auto",
    published: bool = False,
    width: int | Literal["container"] = 720,
    height: int = 400,
    titled: bool = True,
) -> dict[str, Any]:
    """The curves, and with `published` the tutorial's points over them. Raises RunError where none can be drawn."""
    if not found.curves:
        raise RunError("no point of the sweep was completed, so there is no curve to draw", path=sweep.path)
    points = list(found.published.losses.items()) if published and found.published is not None else []
    ends = _outer(found.curves) if with_seeds(found.curves) else ("median", "median")
    every = [value for curve in found.curves for name in ends for value in curve.quantiles[name]]
    every += [loss for _, loss in points]
    how = scale if scale != "auto" else "log" if spans_decades(every) and min(every) > 0 else "linear"
    every = [value for value in every if math.isfinite(value) and (value > 0 or how == "linear")]
    if not every:
        raise RunError("has no loss above zero, as a log scale needs; --scale linear draws it", path=sweep.path)
    space = "width" if width == "container" else str(width)
    labels = [curve.label for curve in found.curves]
    color = {
        "field": "group", "type": "nominal", "sort": None, "scale": {"domain": labels},
        "legend": {**chart.legend(labels, space), "symbolOpacity": 1} if len(labels) > 1 else None,
    }  # fmt: skip
    x = {
        "field": "row", "type": "quantitative", "title": found.unit,
        "scale": {"domain": _ends([row for curve in found.curves for row in curve.rows]), "nice": False, "zero": False},
        "axis": {"grid": False, "labelExpr": chart.WHOLE, "labelFlush": False,
                 "tickCount": {"expr": f"ceil({space} / 70)"}},
    }  # fmt: skip
    y = {
        "type": "quantitative", "title": _name(sweep, found),
        "scale": {"type": how, "domain": chart.domain(min(every), max(every), how), "nice": False},
        "axis": {"labelExpr": chart.NUMBER, "tickCount": 6, **({"format": ",~g"} if how == "log" else {})},
    }  # fmt: skip
    layers = _layers(found.curves, x, y, color)
    if points:
        layers.append(_points(x, y))
    said = [text for text in (bands(found), _about(found) if points else "") if text]
    spec: dict[str, Any] = {
        "$schema": chart.SCHEMA,
        "config": chart_theme.config(max(len(labels), 1), space),
        "width": width,
        "height": height,
        "description": title(sweep, found),
        "data": {"name": "curves"},
        "layer": layers,
        "datasets": {
            "curves": [row for curve in found.curves for row in _rows(curve, how)],
            "published": [{"row": row, "loss": loss} for row, loss in points],
        },
    }
    if titled:
        spec["title"] = {"text": title(sweep, found), "subtitle": said, "subtitleColor": chart_theme.FAINT}
    return spec


def _layers(found: Sequence[Curve], x: Any, y: Any, color: Any) -> list[dict[str, Any]]:
    """The bands from the widest on, then the lines with a dot at the end of the best, and what the pointer shows."""
    few = len(found) == 1
    shades = (
        [(*_outer(found), 0.18 if few else 0.1), ("lower", "upper", 0.3 if few else 0.2)] if with_seeds(found) else []
    )
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "area", "opacity": opacity, "line": False},
            "encoding": {"x": x, "y": {**y, "field": low}, "y2": {"field": high}, "color": color},
        }
        for low, high, opacity in shades
    ]
    lines = {"x": x, "y": {**y, "field": "median"}, "color": color}
    wide = {"strokeWidth": {"condition": {"test": "datum.best", "value": 3.5}, "value": 1.6}}
    tips = [("group", None), ("row", ",d"), ("median", ".6~g"), ("lower", ".6~g"), ("upper", ".6~g")]
    tooltip = [{"field": name, **({"format": form} if form else {})} for name, form in tips]
    layers.append({"mark": {"type": "line", "strokeJoin": "round"}, "encoding": {**lines, **wide}})
    layers.append({"mark": {"type": "point", "opacity": 0, "size": 60}, "encoding": {**lines, "tooltip": tooltip}})
    best = [{"filter": "datum.best"}, {"joinaggregate": [{"op": "max", "field": "row", "as": "end"}]}]
    layers.append({
        "transform": [*best, {"filter": "datum.row === datum.end"}],
        "mark": {"type": "text", "align": "right", "dx": -4, "dy": -10, "fontWeight": 600, "text": "best"},
        "encoding": {**lines},
    })  # fmt: skip
    return layers


def _outer(found: Sequence[Curve]) -> tuple[str, str]:
    """The ends of the light band: of few seeds their range."""
    return ("low", "high") if max(curve.count for curve in found) >= _MANY_SEEDS else ("least", "largest")


def _points(x: Any, y: Any) -> dict[str, Any]:
    """The published losses."""
    return {
        "data": {"name": "published"},
        "mark": {"type": "point", "shape": "circle", "size": 34, "filled": True, "opacity": 1,
                 "color": chart_theme.INK, "stroke": chart_theme.PAPER, "strokeWidth": 1},
        "encoding": {"x": x, "y": {**y, "field": "loss"},
                     "tooltip": [{"field": "row", "title": "published, at"}, {"field": "loss"}]},
    }  # fmt: skip


def caption(found: Curves) -> str:
    """What lines, bands and dots are."""
    return "; ".join(text for text in (bands(found), _about(found)) if text)


def _about(found: Curves) -> str:
    return f"dots: the losses of {found.published.name}" if found.published is not None else ""


def _rows(curve: Curve, how: str) -> list[dict[str, Any]]:
    """The points of a curve; a log scale has nothing at or below zero."""
    names = list(curve.quantiles)
    return [
        {"group": curve.label, "row": row, "best": curve.is_best, **dict(zip(names, values, strict=True))}
        for row, *values in zip(curve.rows, *curve.quantiles.values(), strict=True)
        if how == "linear" or values[0] > 0
    ]


def _ends(rows: Sequence[int]) -> list[float]:
    return [1, max(rows)] if max(rows) > 1 else [0.5, 1.5]


def _name(sweep: SavedSweep, found: Curves) -> str:
    config = sweep.plan.points[0].config
    return f"{found.column} ({config.loss}, {config.reduction})"


def grid_spec(grid: Grid, *, width: int | Literal["container"] = 720, titled: bool = True) -> dict[str, Any]:
    """The heat map: a column for each value of the key that varies faster, a row for each of the other."""
    losses = [cell.loss for cell in grid.cells if cell.loss is not None]
    is_log = min(losses, default=0.0) > 0 and max(losses) > 10 * min(losses)
    x = {"field": "x", "type": "nominal", "title": grid.x, "sort": list(grid.x_values), "axis": _AXIS}
    y = {"field": "y", "type": "nominal", "title": grid.y, "sort": list(grid.y_values), "axis": _AXIS}
    name = f"median {grid.column}" if grid.has_seeds else grid.column
    scale = {"type": "log" if is_log else "linear", "scheme": "viridis", "nice": False}
    legend = {"orient": "right", "gradientLength": 140, "format": ".3~g", "title": name}
    legend |= {"titleColor": chart_theme.INK, "titleFontWeight": "normal"}
    color = {"field": "loss", "type": "quantitative", "title": name, "legend": legend}
    color["scale"] = scale if is_log else scale | {"zero": False}
    each = max(24, min(56, 320 // len(grid.y_values)))
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rect", "stroke": chart_theme.PAPER, "strokeWidth": 1},
            "transform": [{"filter": "isValid(datum.loss)"}],
            "encoding": {"x": x, "y": y, "color": color,
                         "tooltip": [{"field": "x", "title": grid.x}, {"field": "y", "title": grid.y},
                                     {"field": "loss", "title": name, "format": ".6~g"}]},
        },
        {
            "mark": {"type": "text", "fontSize": 11, "color": chart_theme.FAINT, "text": "\u00d7"},
            "transform": [{"filter": "!isValid(datum.loss)"}],
            "encoding": {"x": x, "y": y},
        },
        {
            "mark": {"type": "rect", "filled": False, "stroke": "#d55e00", "strokeWidth": 3},
            "transform": [{"filter": "datum.best"}],
            "encoding": {"x": x, "y": y},
        },
    ]  # fmt: skip
    if len(grid.cells) <= _MAX_NUMBERS:
        layers.insert(1, {
            "mark": {"type": "text", "fontSize": 11},
            "transform": [{"filter": "isValid(datum.loss)"}],
            "encoding": {"x": x, "y": y, "text": {"field": "shown"},
                         "color": {"field": "text", "type": "nominal", "scale": None, "legend": None}},
        })  # fmt: skip
    spec: dict[str, Any] = {
        "$schema": chart.SCHEMA,
        "config": chart_theme.config(1, "width" if width == "container" else str(width)),
        "width": width,
        "height": each * len(grid.y_values),
        "description": f"{name} by {grid.y} and {grid.x}",
        "data": {"name": "cells"},
        "layer": layers,
        "resolve": {"scale": {"color": "independent"}},
        "datasets": {"cells": [_cell(cell, losses, is_log=is_log) for cell in grid.cells]},
    }
    if titled:
        said = "the best has a frame" + (
            "; \u00d7: no point was completed" if None in [c.loss for c in grid.cells] else ""
        )
        spec["title"] = {
            "text": f"{name} by {grid.y} and {grid.x}", "subtitle": said, "subtitleColor": chart_theme.FAINT,
        }  # fmt: skip
    return spec


def together(specs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several charts below each other as one picture."""
    if len(specs) == 1:
        return specs[0]
    datasets = {name: rows for spec in specs for name, rows in spec.pop("datasets").items()}
    schema, config = specs[0]["$schema"], specs[0]["config"]
    for spec in specs:
        for key in ("$schema", "config"):
            spec.pop(key)
    return {
        "$schema": schema,
        "config": config,
        "vconcat": list(specs),
        "spacing": 36,
        "datasets": datasets,
        "resolve": {"scale": {"color": "independent", "x": "independent", "y": "independent"}},
    }


_AXIS = {"grid": False, "ticks": False, "domain": False, "labelAngle": 0, "labelOverlap": True}


def _cell(cell: Cell, losses: Sequence[float], *, is_log: bool) -> dict[str, Any]:
    row = {"x": cell.x, "y": cell.y, "loss": cell.loss, "best": cell.is_best, "text": "#ffffff", "shown": ""}
    if cell.loss is not None:
        row["shown"] = f"{cell.loss:,.0f}" if 1000 <= abs(cell.loss) < 1e6 else f"{cell.loss:.3g}"
        low, high, value = min(losses), max(losses), cell.loss
        if is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        place = (value - low) / (high - low) if high > low else 0.5
        row["text"] = "#ffffff" if place < _DARK else "#000000"
    return row
