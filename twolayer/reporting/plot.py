"""The chart of runs as a file: a picture for paper or screen, or a page to move about in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twolayer.errors import RunError, extra
from twolayer.files import replacing
from twolayer.reporting import chart, chart_theme, downsampling
from twolayer.reporting.html import page
from twolayer.runs.saved_run import SavedRun

with extra("vl_convert", "report"):
    import vl_convert

ENDINGS = (".png", ".svg", ".pdf", ".html")


def check_name(path: Path) -> None:
    """Raise RunError for a file that is none of what is drawn."""
    if path.suffix.lower() not in ENDINGS:
        raise RunError(f"its name must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}", path=path, usage=True)


def write(runs: Sequence[SavedRun], path: Path, scale: downsampling.Scale = "auto") -> list[str]:
    """Draw the runs' losses to a file; a line for each run that is not in it, which says why.

    Raises RunError where none has a loss to draw, or the file cannot be written.
    """
    check_name(path)
    how = chart.chosen(runs, scale)
    missing = [reason for run in runs if (reason := chart.why_not(run, how))]
    drawn = [run for run in runs if not chart.why_not(run, how)]
    if not drawn:
        raise RunError("; ".join(missing))
    data = draw(drawn, path.suffix.lower(), how)
    with replacing(path) as file:
        file.write(data)
    return missing


def draw(runs: Sequence[SavedRun], ending: str, scale: downsampling.Scale = "auto") -> bytes:
    """The chart as a file with one of ENDINGS holds it."""
    if ending == ".html":
        return _page(runs, scale).encode()
    spec = chart.spec(runs, scale=scale)
    if ending == ".png":
        return vl_convert.vegalite_to_png(spec, scale=2, allowed_base_urls=[])  # as many pixels as screens have today
    if ending == ".svg":
        return vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]).encode()
    return vl_convert.vegalite_to_pdf(spec, allowed_base_urls=[])


def _page(runs: Sequence[SavedRun], scale: downsampling.Scale) -> str:
    spec = chart.spec(runs, scale=scale, interactive=True, width="container", height=480, title=False)
    spec["config"] = chart_theme.of_a_page(spec["config"]) | {
        "padding": {"left": 4, "top": 4, "right": 12, "bottom": 6}
    }
    return page.render(
        "plot.html",
        data=spec,
        scripts=[vl_convert.javascript_bundle("globalThis.vegaEmbed = vegaEmbed;"), page.read("plot.js")],
        styles=[page.read("page.css")],
        title=chart.title(runs),
    )
