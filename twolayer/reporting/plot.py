"""Writes the loss chart of runs or of a sweep to a file: a picture, or an interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twolayer.errors import RunError, extra
from twolayer.files import replacing
from twolayer.reporting import chart, chart_labels, chart_theme, downsampling, sweep_chart, sweep_curves
from twolayer.reporting.html import page
from twolayer.runs.saved_run import SavedRun
from twolayer.sweeps.saved_sweep import SavedSweep

with extra("vl_convert", "report"):
    import vl_convert

ENDINGS = (".png", ".svg", ".pdf", ".html")


def check_name(path: Path) -> None:
    """Raise RunError where the name's suffix is not one of ENDINGS."""
    if path.suffix.lower() not in ENDINGS:
        raise RunError(f"its name must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}", path=path, usage=True)


def write(runs: Sequence[SavedRun], path: Path, scale: downsampling.Scale = "auto") -> list[str]:
    """Draw the runs' losses to a file; returns a line for each run that is not in it, with the reason.

    Raises RunError where no run has a loss to draw, or the file cannot be written.
    """
    check_name(path)
    missing = chart.missing(runs, scale)
    data = draw(runs, path.suffix.lower(), scale)
    with replacing(path) as file:
        file.write(data)
    return missing


def draw(runs: Sequence[SavedRun], ending: str, scale: downsampling.Scale = "auto") -> bytes:
    """The content of a file with one of ENDINGS. Raises RunError where there is nothing to draw."""
    if ending == ".html":
        return _page(runs, scale).encode()
    return _picture(chart.picture(runs, scale), ending)


def write_sweep(
    sweep: SavedSweep, path: Path, scale: downsampling.Scale = "auto", *, published: bool = False
) -> Sequence[str]:
    """Draw a sweep to a file: its curves, and where two keys vary their heat map; a line for what is not in it.

    With `published` the tutorial's losses are laid over the curves. Raises RunError where there is nothing to draw, or
    no such losses, or the file cannot be written.
    """
    check_name(path)
    found, grid = sweep_curves.curves(sweep), sweep_curves.grid(sweep)
    if published and found.published is None:
        reason = "the published losses are of the configs scratch and modules, with no other key changed than the seed"
        raise RunError(reason, path=sweep.path, usage=True)
    ending = path.suffix.lower()
    if ending == ".html":
        look: dict[str, Any] = {"width": "container", "titled": False}
        specs = [sweep_chart.curve_spec(sweep, found, scale=scale, published=published, height=480, **look)]
        specs += [sweep_chart.grid_spec(grid, **look)] if grid is not None else []
        specs = [chart_theme.of_a_page(spec) for spec in specs]
        data = _html(specs, sweep_chart.title(sweep, found), sweep_chart.bands(found)).encode()
    else:
        specs = [sweep_chart.curve_spec(sweep, found, scale=scale, published=published)]
        specs += [sweep_chart.grid_spec(grid)] if grid is not None else []
        data = _picture(sweep_chart.together(specs), ending)
    with replacing(path) as file:
        file.write(data)
    return found.left_out


def _picture(spec: dict[str, Any], ending: str) -> bytes:
    if ending == ".png":
        return vl_convert.vegalite_to_png(spec, scale=2, allowed_base_urls=[])  # for high-resolution screens
    if ending == ".svg":
        return vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]).encode()
    return vl_convert.vegalite_to_pdf(spec, allowed_base_urls=[])


def _page(runs: Sequence[SavedRun], scale: downsampling.Scale) -> str:
    groups = chart.panels(runs, scale)
    look: dict[str, Any] = {"interactive": True, "width": "container", "height": 480, "title": False}
    pairs = zip(groups, chart.colours(groups), strict=True)
    specs = [chart.spec(group, scale=scale, colours=colours, **look) for group, colours in pairs]
    return _html(specs, chart_labels.title([run for group in groups for run in group]))


def _html(specs: Sequence[dict[str, Any]], title: str, caption: str = "") -> str:
    """A page with these charts, one below the other."""
    for spec in specs:
        spec["config"] = chart_theme.of_a_page(spec["config"]) | {
            "padding": {"left": 4, "top": 4, "right": 12, "bottom": 6}
        }
    return page.render(
        "plot.html",
        data=specs,
        scripts=[vl_convert.javascript_bundle("globalThis.vegaEmbed = vegaEmbed;"), page.read("plot.js")],
        styles=[page.read("page.css")],
        title=title,
        caption=caption,
    )
