"""Runs side by side on the screen: a column each, and beside it how far it is from the first run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from twolayer.cli.terminal import out
from twolayer.formatting import duration, shown
from twolayer.reporting.comparison import Thing

NOWHERE = "nowhere"


def show(things: Sequence[Thing], names: Sequence[str]) -> None:
    """Print the things as rows and the runs as columns: at a time as many beside the first as there is room for."""
    start = 1
    while start < len(names):
        end = start + 1
        while end < len(names) and _width(_table(things, names, start, end + 1)) <= out().width:
            end += 1
        if start > 1:
            out().print()
        table = _table(things, names, start, end)
        # On a terminal what is too long for its column goes on below; elsewhere a line stays a line.
        width = out().width if out().is_terminal else max(1, _width(table))
        for line in out().render_lines(table, out().options.update(width=width), pad=False):
            text = Text.assemble(*((part.text, part.style or "") for part in line))
            text.rstrip()
            out().print(text, no_wrap=True, crop=False)
        start = end


def _width(table: Table) -> int:
    return Measurement.get(out(), out().options.update(width=10**6), table).maximum


def _table(things: Sequence[Thing], names: Sequence[str], start: int, end: int) -> Table:
    """The first run, and those from `start` to `end`."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(Text(""), overflow="fold")
    for place in (0, *range(start, end)):
        table.add_column(Text(names[place]), overflow="fold")
        if place:
            table.add_column(Text("difference"), overflow="fold")
    counts = next(thing.values for thing in things if thing.what in ("iterations", "epochs", "rows"))
    for thing in things:
        places = (0, *range(start, end))
        if all(thing.values[place] is None for place in places) and not any(thing.gaps[place] for place in places):
            continue
        if not thing.is_measured and len({repr(thing.values[place]) for place in places}) == 1:
            continue
        if thing.what.endswith("differs most at") and all(thing.values[place] is None for place in places):
            continue
        cells = [_value(thing, 0)]
        for place in places[1:]:
            cells += [_value(thing, place), _gap(thing, place)]
            if cells[-2] == NOWHERE and len({counts[0], counts[place]}) > 1:
                cells[-2] = f"{NOWHERE} in {min(counts[0], counts[place])}"
        what = thing.what.replace("seconds per", "time per")
        table.add_row(*map(Text, (shown(what), *cells)))
    return table


def _value(thing: Thing, place: int) -> str:
    value = thing.values[place]
    if thing.what.endswith("_sha256"):
        return shown(value)[:12] if value is not None else ""
    if not thing.is_measured:
        return shown(value)
    if value is None:
        return NOWHERE if thing.gaps[place] is not None else ""
    if thing.what.startswith("seconds"):
        return duration(value, _micro())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _gap(thing: Thing, place: int) -> str:
    gap = thing.gaps[place]
    if gap is None or thing.values[place] is None:
        return ""
    difference, relative = gap
    if not difference:
        return "same"
    if thing.what.startswith("seconds") and relative is not None:
        return f"x {1 + relative:.3g}"
    return f"{difference:+.3g}" + (f" ({_share(relative)})" if relative is not None else "")


def _share(relative: float) -> str:
    """A relative difference: in percent, where that is legible."""
    if -0.9 < relative < 10 and abs(relative) >= 1e-4:
        return f"{relative:+.2%}"
    if -1 < relative <= -0.9:
        return f"x {1 + relative:.3g}"
    return f"{100 * relative:+.2g}%" if abs(relative) < 1 else f"x {1 + relative:.3g}"


def _micro() -> str:
    return "us" if out().options.ascii_only else "µs"
