"""Draws docs/{loop,growth,roofline}.svg from the results, and writes three sections of docs/performance.md from them.

python benchmarks/plot.py
"""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import altair as alt
import harness
import loop
import million
import roofline

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs"
BLUE, ORANGE, GREY, INK, FAINT = "#1f5fae", "#d9730d", "#8c8c8c", "#333333", "#e4e4e4"
GREEN = "#2a7f3f"
PANELS = 4  # in a line
POWERS = [10**power for power in range(7)]
# 20000 -> 20 ms, in Vega's language
DURATION = "datum.value < 1e3 ? datum.value + ' µs' : datum.value < 1e6 ? datum.value / 1e3 + ' ms' : '1 s'"


def read(name: str) -> dict[str, Any]:
    """The results of one benchmark."""
    found: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return found


def duration(microseconds: float) -> str:
    """A time of three digits, in the unit that suits it."""
    value, unit = (microseconds, "µs") if microseconds < 999.5 else (microseconds / 1e3, "ms")
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f} {unit}"


def short(shape: list[int]) -> str:
    """A shape in few words; of batches their rows alone."""
    return re.sub(r"batches of (\d+) of \d+", r"\1", loop.name_of_shape(shape))


def log_scale(values: list[float]) -> alt.Scale:
    """A logarithmic scale with some room around the values."""
    return alt.Scale(type="log", domain=[min(values) / 1.6, max(values) * 1.6], nice=False)


def loops() -> alt.VConcatChart:
    """A panel for each shape, a row for each program: microseconds per iteration."""
    shapes = read("loop.json")["shapes"]
    names = ["twolayer", *(name for name in shapes[0]["times"] if not name.startswith("twolayer"))]
    found = [
        {name: statistics.median(one["times"][one["auto"] if name == "twolayer" else name]) for name in names}
        for one in shapes
    ]
    # All panels span the same ratio, so that a distance means the same everywhere.
    half = max(math.sqrt(max(medians.values()) / min(medians.values())) for medians in found)
    panels = []
    for one, medians in zip(shapes, found, strict=True):
        middle = math.sqrt(max(medians.values()) * min(medians.values()))
        rows = [
            {"program": name, "median": median, "text": duration(median), "far": median > middle * half**0.4}
            for name, median in medians.items()
        ]
        ours = "datum.program == 'twolayer'"
        axis = {
            "labels": shapes.index(one) % PANELS == 0,
            "minExtent": 0 if shapes.index(one) % PANELS else 170,
            "labelFontWeight": alt.condition("datum.value == 'twolayer'", alt.value("bold"), alt.value("normal")),
        }
        base = alt.Chart(
            alt.Data(values=rows), title=short(one["shape"]).replace("->", "→"), width=150, height=24 * len(names)
        ).encode(
            alt.X("median:Q", scale=log_scale([middle / half, middle * half]), title=None).axis(
                values=POWERS, labelExpr=DURATION
            ),
            alt.Y("program:N", sort=names, title=None).axis(**axis),
        )
        dots = base.mark_point(filled=True, size=80, opacity=1).encode(
            color=alt.condition(ours, alt.value(BLUE), alt.value(GREY))
        )
        labels = [
            base.transform_filter(where)
            .mark_text(align=align, dx=dx, fontSize=11)
            .encode(text="text:N", color=alt.condition(ours, alt.value(BLUE), alt.value(INK)))
            for where, align, dx in (("!datum.far", "left", 9), ("datum.far", "right", -9))
        ]
        panels.append(alt.layer(dots, *labels))
    lines = [alt.hconcat(*panels[i : i + PANELS], spacing=30) for i in range(0, len(panels), PANELS)]
    return alt.vconcat(*lines, spacing=22)


def growth() -> alt.HConcatChart:
    """A panel for N, D_in and H each: the microseconds measured, and the operations as a line."""
    results = read("growth.json")
    points, centre = results["points"], results["centre"]
    for point in points:
        point["median"] = statistics.median(point["times"])
    scale = statistics.median(p["median"] / p["operations"] for p in points if p["size"] == centre[p["of"]])
    for point in points:
        point["scaled"] = point["operations"] * scale  # through the default's point
    heights = log_scale([point[what] for point in points for what in ("median", "scaled")])
    panels = []
    for of in ("N", "D_in", "H"):
        rows = [point for point in points if point["of"] == of]
        fixed = ", ".join(f"{name} = {size}" for name, size in centre.items() if name != of)
        title = alt.TitleParams(of, subtitle=fixed)
        axis = alt.Axis(values=POWERS, labelExpr=DURATION, title=None, labels=of == "N")
        measured, scaled = (alt.Y(f"{what}:Q", scale=heights, axis=axis) for what in ("median", "scaled"))
        form = alt.Color("form:N", title=None, scale=alt.Scale(domain=["dual", "primal"], range=[BLUE, ORANGE]))
        base = alt.Chart(alt.Data(values=rows), title=title, width=250, height=260).encode(
            alt.X("size:Q", scale=log_scale([row["size"] for row in rows]), title=None).axis(
                values=POWERS, format="~s", grid=False, ticks=True, tickColor=GREY
            )
        )
        layers = [
            base.mark_line(color=GREY, strokeDash=[4, 3]).encode(scaled),
            base.mark_point(filled=True, size=70, opacity=1).encode(measured, form),
        ]
        if of == "H":
            end = base.transform_filter(f"datum.size == {rows[-1]['size']}")
            name = {"text": "operations, scaled", "align": "right", "dy": -14, "color": GREY, "fontSize": 11}
            layers.append(end.mark_text(**name).encode(scaled))
        panels.append(alt.layer(*layers))
    return alt.hconcat(*panels, spacing=24)


def limits() -> alt.LayerChart:
    """A row for each shape: the GFLOP/s of each engine, the product's as a line, and the memory's as a tick."""
    results = read("roofline.json")
    most = results["limits"][str(results["cores"])]
    names = [short(one["shape"]) for one in results["shapes"]]
    rows, memory = [], []
    for name, one in zip(names, results["shapes"], strict=True):
        for engine, found in one["engines"].items():
            rows.append({"shape": name, "engine": engine.removeprefix("twolayer "), "rate": max(found["rates"])})
        auto = one["engines"][one["auto"]]
        rows[[*one["engines"]].index(one["auto"]) - len(one["engines"])]["auto"] = True
        memory.append({"shape": name, "rate": auto["operations"] / auto["bytes"] * most["bandwidth"]})
    engines = {"autograd": GREY, "manual": "#b5a642", "fused (primal)": ORANGE, "fused (dual)": BLUE, "compiled": GREEN}
    rate = alt.X("rate:Q", title="GFLOP/s", scale=log_scale([row["rate"] for row in (*rows, *memory)])).axis(
        values=POWERS, format="~s"
    )
    place = alt.Y("shape:N", sort=names, title=None).axis(labelLimit=300)
    color = alt.Color("engine:N", title=None, scale=alt.Scale(domain=[*engines], range=[*engines.values()]))
    base = alt.Chart(alt.Data(values=rows), width=560, height=30 * len(names))
    product = alt.Chart(alt.Data(values=[{"rate": most["product"], "text": "a large product"}])).encode(rate)
    ends = alt.Chart(alt.Data(values=memory)).encode(rate, place)
    return alt.layer(
        product.mark_rule(color=INK, strokeDash=[4, 3]),
        product.mark_text(align="right", dx=-5, y=-7, fontSize=11, color=INK).encode(text="text:N"),
        ends.mark_tick(color=INK, thickness=2, size=18),
        ends.transform_filter(f"datum.shape == '{names[0]}'")
        .mark_text(align="left", dx=6, fontSize=11, color=INK)
        .encode(text=alt.value("memory")),
        base.mark_point(filled=True, size=70, opacity=1).encode(rate, place, color),
        base.transform_filter("datum.auto").mark_point(size=190, strokeWidth=1.5).encode(rate, place, color),
    )


def save(chart: alt.TopLevelMixin, name: str) -> None:
    """Write a plot, in the style of both, on a white ground, for light pages and dark ones."""
    sides = {"left": 36, "right": 12, "top": 12, "bottom": 12}  # where there is no Helvetica, labels are wider
    chart = (
        chart.configure(background="white", font="Helvetica, Arial, sans-serif", padding=sides)
        .configure_view(stroke=None)
        .configure_axis(
            gridColor=FAINT, domain=False, ticks=False, labelColor=INK, labelFontSize=12, labelPadding=8, labelLimit=200
        )
        .configure_title(color=INK, fontSize=13, subtitleColor=GREY, subtitleFontSize=11, fontWeight="bold", offset=10)
        .configure_legend(labelColor=INK, labelFontSize=12, orient="bottom")
    )
    chart.save(DOCS / name)


def main() -> None:
    """Draw the three, and write the sections."""
    save(loops(), "loop.svg")
    save(growth(), "growth.svg")
    save(limits(), "roofline.svg")
    for name, told in (("loop", loop.told), ("roofline", roofline.told), ("million", million.told)):
        harness.section(DOCS / "performance.md", name, told(read(f"{name}.json")))


if __name__ == "__main__":
    main()
