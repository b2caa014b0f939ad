"""Charts of losses as Vega-Lite specs, for pictures, pages and reports."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, Literal

from twolayer.errors import RunError, extra
from twolayer.reporting import chart_labels, chart_theme
from twolayer.reporting.downsampling import Scale, downsample, spans_decades
from twolayer.runs.saved_run import SavedRun

with extra("altair", "report"):
    import altair as alt

ROLES = {"training": "loss", "validation": "val_loss"}  # the curves of a run, and their columns in the history
DATA = "losses"
SCHEMA = alt.SCHEMA_URL  # of Vega-Lite

# Labels of ticks, as Vega expressions; on a log scale most of Vega's own labels are empty.
NUMBER = (
    "!datum.value ? '0' : datum.label && (abs(datum.value) < 1e-4 || abs(datum.value) >= 1e6)"
    " ? format(datum.value, '.12~e') : datum.label"
)
WHOLE = "datum.value % 1 ? '' : format(datum.value, ',d')"

MAX_POINTS, MAX_ALL_POINTS = 2000, 24_000  # of a curve, and of all curves
FEW = 20  # a curve of at most this many points shows them as dots
LARGEST = sys.float_info.max


def panels(runs: Sequence[SavedRun], scale: Scale = "auto") -> list[list[SavedRun]]:
    """The runs that can be drawn, one group for each kind of loss: numbers of different kinds cannot be compared.

    Raises RunError where no run can be drawn.
    """
    groups = _by_loss_kind(runs)
    drawn = [[run for run in group if not why_not(run, chosen(group, scale))] for group in groups]
    if not any(drawn):
        raise RunError("; ".join(missing(runs, scale)) or "there is no run to draw")
    return [group for group in drawn if group]


def colours(panels: Sequence[Sequence[SavedRun]]) -> list[list[str]]:
    """The colours of the runs in each panel, all different; empty for a single panel, which has its own."""
    if len(panels) == 1:
        return [[]]
    palette = iter(chart_theme.palette(sum(map(len, panels))))
    return [[next(palette) for _ in panel] for panel in panels]


def missing(runs: Sequence[SavedRun], scale: Scale = "auto") -> list[str]:
    """The reason for each run that cannot be drawn."""
    reasons = (why_not(run, chosen(group, scale)) for group in _by_loss_kind(runs) for run in group)
    return [reason for reason in reasons if reason]


def _by_loss_kind(runs: Sequence[SavedRun]) -> list[list[SavedRun]]:
    """The runs in groups of one kind of loss each; a run whose kind is unknown is in the first group."""
    first_kind = next((run.loss_kind for run in runs if run.loss_kind), "")
    found: dict[str, list[SavedRun]] = {}
    for run in runs:
        found.setdefault(run.loss_kind or first_kind, []).append(run)
    return list(found.values())


def picture(runs: Sequence[SavedRun], scale: Scale = "auto") -> dict[str, Any]:
    """The chart of a picture file: a panel for each kind of loss. Raises RunError as `panels` does."""
    groups = panels(runs, scale)
    if len(groups) == 1:
        return spec(groups[0], scale=scale)
    parts = [
        spec(group, scale=scale, title=False, colours=its_colours)
        for group, its_colours in zip(groups, colours(groups), strict=True)
    ]
    schema = parts[0]["$schema"]
    config = max((part["config"] for part in parts), key=lambda config: len(config["range"]["category"]))
    datasets = {}
    for number, part in enumerate(parts):
        datasets[f"{DATA}-{number}"] = part.pop("datasets")[DATA]
        part["data"] = {"name": f"{DATA}-{number}"}
        for layer in part["layer"]:
            layer.pop("data", None)
        for key in ("config", "$schema"):
            part.pop(key)
    return {
        "$schema": schema,
        "config": config,
        "title": chart_labels.title([run for group in groups for run in group]),
        "vconcat": parts,
        "datasets": datasets,
        "resolve": {"scale": {"color": "independent", "strokeDash": "independent"}},
    }


def spec(
    runs: Sequence[SavedRun],
    *,
    scale: Scale = "auto",
    interactive: bool = False,
    width: int | Literal["container"] = 720,
    height: int = 400,
    title: bool = True,
    colours: Sequence[str] = (),
) -> dict[str, Any]:
    """One chart as a Vega-Lite spec: a line for each run, validation dashed.

    Its data are in `datasets` under "losses", rows of run, kind, iteration and loss; its colours in `config`. Runs
    without a loss that can be drawn have no line. `colours` are those of the runs in one of several panels, where a
    single run has a legend, too. Raises RunError where no run can be drawn.
    """
    how = chosen(runs, scale)
    rows = _rows(runs, how)
    if not rows:
        raise RunError("; ".join(why_not(run, how) for run in runs) or "there is no run to draw")
    shown = list(dict.fromkeys(row["run"] for row in rows))
    kinds = [kind for kind in ROLES if any(row["kind"] == kind for row in rows)]

    space = "width" if width == "container" else str(width)  # of Vega's expressions, in pixels
    pairs = zip(chart_labels.labels(runs), colours, strict=True) if colours else ()
    range_ = [colour for label, colour in pairs if label in shown] or alt.Undefined  # else that of the config
    color = alt.Color(
        "run:N",
        sort=None,
        scale=alt.Scale(domain=shown, range=range_),
        legend=legend(shown, space) if colours or len(shown) > 1 else None,
    )
    dash = alt.StrokeDash(
        "kind:N",
        sort=None,
        scale=alt.Scale(domain=kinds, range=[[5, 3] if kind == "validation" else [1, 0] for kind in kinds]),
        legend=legend(kinds, space) if len(kinds) > 1 else None,
    )
    base = alt.Chart(alt.NamedData(DATA)).encode(x=_x(runs, space), y=_y(runs, rows, how), color=color)
    line = base.mark_line(strokeWidth=1.75, strokeJoin="round", clip=interactive)
    layers = [line.encode(strokeDash=dash, detail="kind:N")]
    if any(len(values) <= FEW for values in _curves(rows).values()):
        few = base.transform_joinaggregate(points="count()", groupby=["run", "kind"])
        layers.append(few.transform_filter(f"datum.points <= {FEW}").mark_point(filled=True, size=30, opacity=1))
    if interactive:
        layers[0] = layers[0].add_params(alt.selection_interval(name="zoom", bind="scales"))
        layers.append(_nearest(base, runs))
    chart = alt.layer(*layers).properties(width=width, height=height, description=chart_labels.title(runs))
    if title:
        chart = chart.properties(title=chart_labels.title(runs))
    made: dict[str, Any] = chart.to_dict()
    made["config"] = chart_theme.config(len(shown), space)
    made["datasets"] = {DATA: rows}
    if interactive:  # zooming makes the labels longer: keep room for them
        made["config"]["axisY"]["minExtent"] = 52
    return made


def chosen(runs: Sequence[SavedRun], scale: Scale) -> Literal["log", "linear"]:
    """The scale: with `auto`, log where the losses span a factor of 100 and each run has losses above 0."""
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


def _finite(run: SavedRun) -> list[float]:
    columns = (run.history.columns.get(column, ()) for column in ROLES.values())
    return [value for column in columns for value in column if math.isfinite(value)]


def _rows(runs: Sequence[SavedRun], scale: Literal["log", "linear"]) -> list[dict[str, Any]]:
    """The points, downsampled; without losses that are not finite, or on a log scale not above zero."""
    curves = [
        (label, kind, run.history.columns[column])
        for run, label in zip(runs, chart_labels.labels(runs), strict=True)
        for kind, column in ROLES.items()
        if column in run.history.columns
    ]
    limit = max(200, min(MAX_POINTS, MAX_ALL_POINTS // max(1, len(curves))))
    rows: list[dict[str, Any]] = []
    for label, kind, values in curves:
        drawn = [value if value > 0 or scale == "linear" else math.nan for value in values]
        rows += [{"run": label, "kind": kind, "iteration": i + 1, "loss": drawn[i]} for i in downsample(drawn, limit)]
    return rows


def _curves(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    curves: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        curves.setdefault((row["run"], row["kind"]), []).append(row["loss"])
    return curves


def _unit(runs: Sequence[SavedRun]) -> str:
    return " or ".join(dict.fromkeys(run.history.unit for run in runs if len(run.history)))


def _x(runs: Sequence[SavedRun], space: str) -> Any:
    last = max(len(run.history) for run in runs)
    domain = [1, last] if last > 1 else [0.5, 1.5]
    ticks = {"values": list(range(1, last + 1))} if last <= 10 else {"tickCount": alt.expr(f"ceil({space} / 70)")}
    return alt.X(
        "iteration:Q",
        title=_unit(runs),
        scale=alt.Scale(domain=domain, nice=False, zero=False),
        axis=alt.Axis(grid=False, labelExpr=WHOLE, labelFlush=False, **ticks),
    )


def _y(runs: Sequence[SavedRun], rows: Sequence[dict[str, Any]], scale: Literal["log", "linear"]) -> Any:
    losses = [row["loss"] for row in rows]
    ends = domain(min(losses), max(losses), scale)
    look: dict[str, Any] = {"tickCount": 6}
    kind = runs[0].loss_kind
    name = f"loss ({kind})" if kind and all(run.loss_kind == kind for run in runs) else "loss"
    if scale == "log":
        decades = int(math.log10(ends[1]) - math.log10(ends[0]))
        look = {
            "tickCount": 6 if decades < 3 else min(6, decades),  # one for each decade, at most
            "format": ",~g",
            "gridOpacity": {"condition": {"test": "datum.label", "value": 1}, "value": 0.5},
        }
        if any(value <= 0 for run in runs for value in _finite(run)):
            name += "; 0 is not drawn"
    return alt.Y(
        "loss:Q",
        title=name,
        scale=alt.Scale(type=scale, domain=ends, nice=False),
        axis=alt.Axis(labelExpr=NUMBER, **look),
    )


def domain(low: float, high: float, scale: Literal["log", "linear"]) -> list[float]:
    """The range of the axis: a little more than the losses, from zero where that is near.

    Never so narrow, so near to zero or so wide that float64 has no ticks in it.
    """
    if scale == "log":
        room = max(math.exp((math.log(high) - math.log(low)) * 0.02), 1.05)
        return [max(low / room, 5e-324), max(min(high * room, LARGEST), 1e-300)]
    floor = 0.0
    if low < 0 or high / 2 < low < high:
        floor = max(low - max((high - low) * 0.05, abs(high) * 1e-12), -LARGEST / 2)
    top = min(high + max((high / 2 - floor / 2) * 0.05, 1e-300), LARGEST if floor >= 0 else LARGEST / 2)
    return [floor, top if high else max(top, 1)]


def legend(entries: Sequence[str], space: str) -> Any:
    """The legend with these entries, in as many columns as there is space for, a Vega expression in pixels."""
    longest = 6 * max(map(len, entries)) + 54  # pixels, approximately
    columns = {"expr": f"max(1, floor({space} / {longest}))"}
    return {"title": None, "columns": columns, "symbolType": "stroke"}


def _nearest(base: Any, runs: Sequence[SavedRun]) -> Any:
    """A dot at the point nearest to the pointer, with a tooltip."""
    nearest = alt.selection_point(name="nearest", nearest=True, on="pointerover", clear="pointerout", empty=False)
    return (
        base.mark_point(filled=True, size=60, aria=False)
        .encode(
            opacity=alt.condition(nearest, alt.value(1), alt.value(0)),
            tooltip=[
                # With names alone, Vega-Lite 6 looks up the texts in the wrong datum for a nearest point.
                alt.Tooltip("run:N", formatType="toString", format=""),
                alt.Tooltip("kind:N", formatType="toString", format=""),
                alt.Tooltip("iteration:Q", title=_unit(runs), format=",d"),
                alt.Tooltip("loss:Q", format=".9~g"),
            ],
        )
        .add_params(nearest)
    )
