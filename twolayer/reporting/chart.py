"""The curve of the losses: one definition, a Vega-Lite spec, for files, pages and reports."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, Literal

from twolayer import formatting
from twolayer.errors import RunError, extra
from twolayer.reporting import chart_theme, comparison
from twolayer.reporting.downsampling import Scale, downsample, spans_decades
from twolayer.runs.saved_run import SavedRun

with extra("altair", "report"):
    import altair as alt

KINDS = {"training": "loss", "validation": "val_loss"}  # and the columns of the history that hold them
DATA = "losses"

# Labels of ticks, as Vega's expressions; a log scale leaves most of its own empty.
NUMBER = (
    "!datum.value ? '0' : datum.label && (abs(datum.value) < 1e-4 || abs(datum.value) >= 1e6)"
    " ? format(datum.value, '.12~e') : datum.label"
)
WHOLE = "datum.value % 1 ? '' : format(datum.value, ',d')"

MOST, MOST_IN_ALL = 2000, 24_000  # points of a curve, and of all curves
FEW = 20  # a curve of at most so many points shows them as dots
GREATEST = sys.float_info.max
LAST = ("device", "engine", "form", "threads", "precision", "cuda_graph", "log_every")  # they hardly move the losses


def spec(
    runs: Sequence[SavedRun],
    *,
    scale: Scale = "auto",
    interactive: bool = False,
    width: int | Literal["container"] = 720,
    height: int = 400,
    title: bool = True,
) -> dict[str, Any]:
    """The chart as a Vega-Lite spec: a line a run, validation dashed.

    Its data stand in `datasets` under "losses", rows of run, kind, iteration and loss; its colours in `config`. Runs
    without a loss that can be drawn have no line. Raises RunError where that is so of all.
    """
    how = chosen(runs, scale)
    rows = _rows(runs, how)
    if not rows:
        raise RunError("; ".join(why_not(run, how) for run in runs) or "there is no run to draw")
    shown = list(dict.fromkeys(row["run"] for row in rows))
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]

    color = alt.Color(
        "run:N",
        sort=None,
        scale=alt.Scale(domain=shown),
        legend=_legend(shown) if len(shown) > 1 else None,
    )
    dash = alt.StrokeDash(
        "kind:N",
        sort=None,
        scale=alt.Scale(domain=kinds, range=[[5, 3] if kind == "validation" else [1, 0] for kind in kinds]),
        legend=_legend(kinds) if len(kinds) > 1 else None,
    )
    base = alt.Chart(alt.NamedData(DATA)).encode(x=_across(runs), y=_up(runs, rows, how), color=color)
    line = base.mark_line(strokeWidth=1.75, strokeJoin="round", clip=interactive)
    layers = [line.encode(strokeDash=dash, detail="kind:N")]
    if any(len(values) <= FEW for values in _curves(rows).values()):
        few = base.transform_joinaggregate(points="count()", groupby=["run", "kind"])
        layers.append(few.transform_filter(f"datum.points <= {FEW}").mark_point(filled=True, size=30, opacity=1))
    if interactive:
        layers[0] = layers[0].add_params(alt.selection_interval(name="zoom", bind="scales"))
        layers.append(_nearest(base, runs))
    chart = alt.layer(*layers).properties(width=width, height=height, description=_title(runs))
    if title:
        chart = chart.properties(title=_title(runs))
    made: dict[str, Any] = chart.to_dict()
    made["config"] = chart_theme.config(len(shown))
    made["datasets"] = {DATA: rows}
    if interactive:  # zooming makes the labels longer, and must not push the title out
        made["config"]["axisY"]["minExtent"] = 52
    return made


def chosen(runs: Sequence[SavedRun], scale: Scale) -> Literal["log", "linear"]:
    """The scale that is meant: `auto` takes log where the losses span a factor of 100, and each run has some > 0."""
    if scale != "auto":
        return scale
    finite = [losses for losses in map(_finite, runs) if losses]
    positive = [[loss for loss in losses if loss > 0] for losses in finite]
    if not positive or not all(positive):
        return "linear"
    return "log" if spans_decades(loss for losses in positive for loss in losses) else "linear"


def why_not(run: SavedRun, scale: Literal["log", "linear"]) -> str:
    """Why there is no line for a run; empty where there is one."""
    if not len(run.history):
        return f"{run.path}: has no losses" + (" yet" if run.status == "running" else "")
    if not _finite(run):
        return f"{run.path}: has no loss that is a finite number"
    if scale == "log" and max(_finite(run)) <= 0:
        return f"{run.path}: has no loss above zero, as a log scale needs; --scale linear draws it"
    return ""


def title(runs: Sequence[SavedRun]) -> str:
    """What tells the runs apart; of one run its name, config, shape and step."""
    if len(runs) == 1:
        run, values = runs[0], runs[0].values
        name, config, shape = _short(run.name, 40), _short(run.text("config"), 40), _short(run.text("shape"), 40)
        parts = [
            *([config] if config and not name.startswith(config) else []),
            *([shape] if shape else []),
            *([f"lr {_value(values['lr'])}"] if "lr" in values else []),
        ]
        return f"{name}: {', '.join(parts)}" if parts else name
    keys = _keys(runs)
    if not keys:
        same = " of the same config" if all(run.config for run in runs) else ""
        return f"Loss of {len(runs)} runs{same}"
    if len(keys) > 4:
        keys[3:] = [f"{len(keys) - 3} more"]
    return "Loss by " + (", ".join(keys[:-1]) + " and " if keys[:-1] else "") + keys[-1]


def labels(runs: Sequence[SavedRun]) -> list[str]:
    """What the legend calls the runs: their names, and the values that differ; no two are the same."""
    keys = _telling(runs)[:3]
    found: list[str] = []
    for run, name in zip(runs, comparison.names(runs), strict=True):
        values = run.values
        told = ", ".join(f"{key} {_value(values[key])}" for key in keys if values.get(key) is not None)
        label = whole = _short(name, 40) + (f": {told}" if told else "")
        number = 2
        while label in found:
            label, number = f"{whole} ({number})", number + 1
        found.append(label)
    return found


_title = title  # which is an argument of `spec`


def _keys(runs: Sequence[SavedRun]) -> list[str]:
    """The keys that differ among the configs that can be read, those that matter most first."""
    keys = comparison.differences([run for run in runs if run.config is not None])
    return sorted((_short(key, 24) for key in keys), key=lambda key: key in LAST)


def _telling(runs: Sequence[SavedRun]) -> list[str]:
    """The same keys, first those that together tell the most runs apart."""
    keys, first = _keys(runs), list[str]()

    def apart(chosen: Sequence[str]) -> int:
        return len({tuple(formatting.shown(run.values.get(key)) for key in chosen) for run in runs})

    while rest := [key for key in keys if key not in first]:
        best = max(rest, key=lambda key: apart([*first, key]))
        if apart([*first, best]) == apart(first):
            break
        first.append(best)
    return [*first, *(key for key in keys if key not in first)]


def _value(value: Any) -> str:
    return _short(formatting.shown(value), 24)


def _short(text: str, most: int) -> str:
    """The text, safe to show, without its middle where it is long."""
    text = formatting.shown(text)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def _finite(run: SavedRun) -> list[float]:
    columns = (run.history.columns.get(column, ()) for column in KINDS.values())
    return [value for column in columns for value in column if math.isfinite(value)]


def _rows(runs: Sequence[SavedRun], scale: Literal["log", "linear"]) -> list[dict[str, Any]]:
    """The points, thinned; without losses that are not finite, nor, on a log scale, above zero."""
    curves = [
        (label, kind, run.history.columns[column])
        for run, label in zip(runs, labels(runs), strict=True)
        for kind, column in KINDS.items()
        if column in run.history.columns
    ]
    most = max(200, min(MOST, MOST_IN_ALL // max(1, len(curves))))
    rows: list[dict[str, Any]] = []
    for label, kind, values in curves:
        drawn = [value if value > 0 or scale == "linear" else math.nan for value in values]
        rows += [{"run": label, "kind": kind, "iteration": i + 1, "loss": drawn[i]} for i in downsample(drawn, most)]
    return rows


def _curves(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    curves: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        curves.setdefault((row["run"], row["kind"]), []).append(row["loss"])
    return curves


def _unit(runs: Sequence[SavedRun]) -> str:
    return " or ".join(dict.fromkeys(run.history.unit for run in runs if len(run.history)))


def _across(runs: Sequence[SavedRun]) -> Any:
    last = max(len(run.history) for run in runs)
    domain = [1, last] if last > 1 else [0.5, 1.5]
    ticks = {"values": list(range(1, last + 1))} if last <= 10 else {"tickCount": alt.expr("ceil(width / 70)")}
    return alt.X(
        "iteration:Q",
        title=_unit(runs),
        scale=alt.Scale(domain=domain, nice=False, zero=False),
        axis=alt.Axis(grid=False, labelExpr=WHOLE, labelFlush=False, **ticks),
    )


def _up(runs: Sequence[SavedRun], rows: Sequence[dict[str, Any]], scale: Literal["log", "linear"]) -> Any:
    losses = [row["loss"] for row in rows]
    domain = _domain(min(losses), max(losses), scale)
    look: dict[str, Any] = {"tickCount": 6}
    name = "loss"
    if scale == "log":
        decades = int(math.log10(domain[1]) - math.log10(domain[0]))
        look = {
            "tickCount": 6 if decades < 3 else min(6, decades),  # more than there are decades would be lines in them
            "format": ",~g",
            "gridOpacity": {"condition": {"test": "datum.label", "value": 1}, "value": 0.5},
        }
        if any(value <= 0 for run in runs for value in _finite(run)):
            name = "loss (a loss of 0 is not drawn)"
    return alt.Y(
        "loss:Q",
        title=name,
        scale=alt.Scale(type=scale, domain=domain, nice=False),
        axis=alt.Axis(labelExpr=NUMBER, **look),
    )


def _domain(least: float, most: float, scale: Literal["log", "linear"]) -> list[float]:
    """What the axis covers: a little more than the losses, and from zero where that is not far off.

    Never so narrow, so near to zero or so wide that there are no ticks to be had in float64.
    """
    if scale == "log":
        room = max(math.exp((math.log(most) - math.log(least)) * 0.02), 1.05)
        return [max(least / room, 5e-324), max(min(most * room, GREATEST), 1e-300)]
    floor = 0.0
    if least < 0 or most / 2 < least < most:
        floor = max(least - max((most - least) * 0.05, abs(most) * 1e-12), -GREATEST / 2)
    top = min(most + max((most / 2 - floor / 2) * 0.05, 1e-300), GREATEST if floor >= 0 else GREATEST / 2)
    return [floor, top if most else max(top, 1)]


def _legend(entries: Sequence[str]) -> Any:
    longest = 6 * max(map(len, entries)) + 54  # in pixels, or so
    return alt.Legend(title=None, columns=alt.expr(f"max(1, floor(width / {longest}))"), symbolType="stroke")


def _nearest(base: Any, runs: Sequence[SavedRun]) -> Any:
    """A dot at the point that is nearest to the pointer, and what there is to tell of it."""
    nearest = alt.selection_point(name="nearest", nearest=True, on="pointerover", clear="pointerout", empty=False)
    return (
        base.mark_point(filled=True, size=60, aria=False)
        .encode(
            opacity=alt.condition(nearest, alt.value(1), alt.value(0)),
            tooltip=[
                # By their names alone, Vega-Lite 6 looks for texts on the wrong datum where points are the nearest.
                alt.Tooltip("run:N", formatType="toString", format=""),
                alt.Tooltip("kind:N", formatType="toString", format=""),
                alt.Tooltip("iteration:Q", title=_unit(runs), format=",d"),
                alt.Tooltip("loss:Q", format=".9~g"),
            ],
        )
        .add_params(nearest)
    )
