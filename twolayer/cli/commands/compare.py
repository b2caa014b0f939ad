"""The command `compare`: runs side by side on the screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.measure import Measurement
from rich.text import Text
from typer.core import TyperCommand

from twolayer.cli import terminal
from twolayer.cli.options import FormatOption
from twolayer.cli.terminal import out
from twolayer.formatting import duration, microseconds_unit, shown
from twolayer.reporting import comparison
from twolayer.reporting.comparison import Row
from twolayer.runs import saved_run
from twolayer.runs.folder import find

if TYPE_CHECKING:
    from rich.table import Table

commands = typer.Typer()

NOWHERE = "nowhere"


class _BareExpectEqual(TyperCommand):
    """A command whose `--expect-equal` without a value is `--expect-equal=0`, and takes no RUN for one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        end = args.index("--") if "--" in args else len(args)
        full = ["--expect-equal=0" if argument == "--expect-equal" else argument for argument in args[:end]]
        return super().parse_args(ctx, [*full, *args[end:]])


@commands.command("compare", cls=_BareExpectEqual, epilog="Example:  twolayer compare default-1 default-2")
def compare_command(
    run: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Two or more runs: their folders, or their names in runs/.")
    ],
    expect_equal: Annotated[
        str | None,
        typer.Option(
            "--expect-equal",
            metavar="[=RTOL]",
            help="Exit with 1 unless all histories equal the first: exactly, or within relative tolerance RTOL.",
        ),
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """Compare runs with the first one.

    Shows what differs in their configs and environments, their iterations, losses and times, and where and by how much
    their histories differ. csv and jsonl print a row for each item and each run after the first.
    """
    if len(run) < 2:
        raise typer.BadParameter("two runs or more are compared; give another RUN")
    tolerance = _tolerance(expect_equal) if expect_equal is not None else None
    found = [saved_run.read(path) for path in map(find, run)]
    names, things = comparison.names(found), comparison.compared(found)
    if format_ == "table":
        _print(things, names)
    else:
        rows = comparison.rows(things, names)
        plain = [[shown(cell) if isinstance(cell, list) else cell for cell in row] for row in rows]
        terminal.rows(comparison.COLUMNS, plain if format_ == "csv" else rows, format_)
    for problem in dict.fromkeys(problem for one in found for problem in one.problems):
        terminal.note(problem)
    if tolerance is not None:
        unlike = [comparison.disagreement(found[0], one, tolerance) for one in found[1:]]
        for name, what in zip(names[1:], unlike, strict=True):
            if what:
                terminal.error(f"{name}: {what}")
        if any(unlike):
            raise typer.Exit(1)


def _tolerance(text: str) -> float:
    """Read RTOL. Raises BadParameter."""
    with suppress(ValueError):
        if 0 <= (tolerance := float(text)) < math.inf:
            return tolerance
    raise typer.BadParameter(f"--expect-equal: must be a number, 0 or more, not {text!r}")


def _print(things: Sequence[Row], names: Sequence[str]) -> None:
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


def _table(things: Sequence[Row], names: Sequence[str], start: int, end: int) -> Table:
    """The first run, and those from `start` to `end`."""
    from rich.table import Table  # which no other command needs

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


def _value(thing: Row, place: int) -> str:
    value = thing.values[place]
    if thing.what.endswith("_sha256"):
        return shown(value)[:12] if value is not None else ""
    if not thing.is_measured:
        return shown(value)
    if value is None:
        return NOWHERE if thing.gaps[place] is not None else ""
    if thing.what.startswith("seconds"):
        return duration(value, microseconds_unit(out().options.ascii_only))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _gap(thing: Row, place: int) -> str:
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
