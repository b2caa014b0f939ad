"""A trained network in a notebook: one line of text, or a small piece of HTML with a curve and its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from twolayer.formatting import counted, safe
from twolayer.reporting.downsampling import downsample, spans_decades

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 420, 150, 62, 8, 22
_POINTS = 400  # of a curve
_CURVES = ("loss", "val_loss")
# Inside another page, whose theme is light or dark: text has its colour, and curves have colours for both.
_COLOURS = ("#3b93d1", "#d55e00")
_NUMBER = "text-align: right; font-variant-numeric: tabular-nums; padding: 1px 8px"
_TEXT = "text-align: left; padding: 1px 8px"
_NAME = f"{_TEXT}; font-family: monospace"


@dataclass(frozen=True)
class ParameterFigures:
    """A parameter in numbers: its name, its shape (`100 x 1000`), its min, max, mean and standard deviation."""

    name: str
    shape: str
    figures: tuple[float, float, float, float]


def html(
    line: str,
    history: Mapping[str, Sequence[float]],
    parameters: Iterable[ParameterFigures],
    notes: Sequence[str] = (),
) -> str:
    """The line as a heading, the curves of the losses, a table of the parameters, and notes, a line each.

    `history` has the columns of history.csv; its first one is the unit, iteration or epoch.
    """
    curves = {name: history[name] for name in _CURVES if name in history}
    heading, *below = (f"<div>{escape(safe(each))}</div>" for each in (line, *notes))
    return f"<div>{heading}{_svg(curves, next(iter(history)))}{_table(parameters)}{''.join(below)}</div>"


def text(kind: str, shape: str, history: Mapping[str, Sequence[float]], *more: str) -> str:
    """A network in one line: `<Training 64 x 1000 -> 100 -> 10: 500 iterations, loss 628.3 to 1.457e-05>`."""
    unit, losses = next(iter(history)), history["loss"]
    facts = [counted(len(losses), unit), f"loss {losses[0]:.4g} to {losses[-1]:.4g}"] if losses else []
    facts += more
    return f"<{kind} {shape}: {', '.join(facts)}>" if facts else f"<{kind} {shape}>"


def _svg(curves: Mapping[str, Sequence[float]], unit: str) -> str:
    """The curves over 1, 2, ...; empty where there is nothing to draw."""
    shown = {name: [value for value in values if math.isfinite(value)] for name, values in curves.items()}
    values = [value for some in shown.values() for value in some]
    if not values:
        return ""
    is_log = all(spans_decades(some) for some in shown.values() if some) and min(values) > 0
    least, most = min(values), max(values)
    low, high = (math.log10(edge) if is_log else edge for edge in (least, most))
    last = max(map(len, curves.values()))
    right, bottom = _WIDTH - 8, _HEIGHT - _BOTTOM

    def place(index: int, value: float) -> str:
        # Divided first: the largest numbers have no difference.
        above = 0.5 if low == high else (_of(value) / 2 - low / 2) / (high / 2 - low / 2)
        x = _LEFT + (right - _LEFT) * index / max(1, last - 1)
        return f"{x:.1f},{bottom - (bottom - _TOP) * above:.1f}"

    def _of(value: float) -> float:
        return math.log10(value) if is_log else value

    lines, names = [], []
    for (name, curve), colour in zip(curves.items(), _COLOURS, strict=False):
        points = " ".join(place(i, curve[i]) for i in downsample(curve, _POINTS))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        names.append(f'<tspan fill="{colour}">&#9679;</tspan> {name}')
    texts = [
        (_LEFT - 6, _TOP + 8, "end", f"{most:.4g}"),
        (_LEFT - 6, bottom, "end", f"{least:.4g}"),
        (_LEFT, _HEIGHT - 7, "start", "1"),
        (right, _HEIGHT - 7, "end", f"{last} {unit}s" if last != 1 else unit),
        ((_LEFT + right) // 2, _HEIGHT - 7, "middle", " &#160; ".join(names) + (" (log scale)" if is_log else "")),
    ]
    labels = "".join(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{label}</text>' for x, y, anchor, label in texts)
    axes = f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="currentColor" stroke-opacity="0.4"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}"'
    style = 'role="img" aria-label="losses" font-family="sans-serif" font-size="11" fill="currentColor"'
    return f"{head} {style}>{axes}{''.join(lines)}{labels}</svg>"


def _table(parameters: Iterable[ParameterFigures]) -> str:
    header = "".join(
        f'<th style="{_TEXT if not column else _NUMBER}">{name}</th>'
        for column, name in enumerate(("parameter", "shape", "min", "max", "mean", "std"))
    )
    rows = []
    for item in parameters:
        cells = (item.shape, *(f"{figure:.4g}" for figure in item.figures))
        numbers = "".join(f'<td style="{_NUMBER}">{cell}</td>' for cell in cells)
        rows.append(f'<tr><td style="{_NAME}">{escape(item.name)}</td>{numbers}</tr>')
    look = "color: inherit; font-size: inherit; border-collapse: collapse"
    body = "".join(rows)
    return f'<table style="{look}"><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>'
