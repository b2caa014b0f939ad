"""The style of charts: colours, fonts and grid."""

from __future__ import annotations

from typing import Any

# The Okabe-Ito palette without its black and yellow, and two more colours: safe for colour-blind readers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6652", "#7f7f7f")
# For more runs: one ramp, so that neighbours in the legend have similar colours.
RAMP = ("#3b3fa8", "#0072b2", "#00918f", "#35a853", "#b5a300", "#e58b00", "#d55e00", "#b8336a", "#7d3c98")
INK, FAINT, GRID, PAPER = "#3d4248", "#71777d", "#e6e8ea", "#ffffff"
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"

# Their counterparts on a page, whose stylesheet, `page.css`, also has a dark mode.
OF_A_PAGE = {
    INK: "var(--ink)",
    FAINT: "var(--muted)",
    GRID: "var(--rule)",
    PAPER: "transparent",
    FONT: "system-ui, sans-serif",
}


def config(lines: int, width: str) -> dict[str, Any]:
    """Vega-Lite's `config` for a chart of `lines` lines; `width` is a Vega expression, in pixels."""
    return {
        "font": FONT,
        "background": PAPER,
        "padding": 16,
        "customFormatTypes": True,  # the expression language's own toString
        "view": {"stroke": None},
        "range": {"category": palette(lines)},
        "title": {
            "color": INK,
            "fontSize": 15,
            "fontWeight": 600,
            "anchor": "start",
            "frame": "group",
            "offset": 14,
            "limit": {"expr": width},
        },
        "axis": {
            "labelColor": FAINT,
            "titleColor": INK,
            "gridColor": GRID,
            "domainColor": FAINT,
            "tickColor": FAINT,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 10,
            "tickSize": 4,
        },
        "axisY": {"domain": False, "ticks": False, "labelPadding": 8},
        "legend": {
            "orient": "top",
            "labelColor": INK,
            "labelFontSize": 12,
            "labelLimit": {"expr": f"{width} - 40"},
            "symbolStrokeWidth": 2,
            "symbolSize": 300,
            "columnPadding": 24,
            "layout": {"top": {"direction": "vertical", "anchor": "start", "margin": 6}},
        },
    }


def palette(count: int) -> list[str]:
    """At least `count` colours."""
    if count <= len(COLOURS):
        return list(COLOURS)
    stops = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in RAMP]
    mixed = []
    for number in range(count):
        place = number * (len(stops) - 1) / (count - 1)
        below = min(int(place), len(stops) - 2)
        pairs = zip(stops[below], stops[below + 1], strict=True)
        mixed.append("#" + "".join(f"{round(a + (b - a) * (place - below)):02x}" for a, b in pairs))
    return mixed


def of_a_page(value: Any) -> Any:
    """A `config`, or a part of it or of a chart, with the page's colours and font in place of the chart's."""
    if isinstance(value, dict):
        return {key: of_a_page(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(of_a_page, value))
    return OF_A_PAGE.get(value, value) if isinstance(value, str) else value
