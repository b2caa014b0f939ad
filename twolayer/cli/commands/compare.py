"""The command `compare`: runs side by side on the screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from typer.core import TyperCommand

from twolayer.cli import completion, sweep_tables, terminal
from twolayer.cli.options import FormatOption, home, sweep_alone
from twolayer.cli.terminal import out
from twolayer.formatting import duration, microseconds_unit, shown
from twolayer.reporting import comparison
from twolayer.reporting.comparison import Row
from twolayer.runs import saved_run
from twolayer.runs.names import find

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
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Two or more runs, or one sweep: their folders, or their names in runs/.",
            autocompletion=completion.runs,
            callback=home,
        ),
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
    """Compare runs with the first one, or the points of a sweep.

    Shows what differs in their configs and environments, their iterations, losses and times, and where and by how much
    their histories differ. csv and jsonl print a row for each item and each run after the first. Of a sweep it shows
    the losses with each value of each key, over all values of the other keys.
    """
    paths = list(map(find, run))
    if (sweep := sweep_alone(paths)) is not None:
        if expect_equal is not None:
            raise typer.BadParameter("--expect-equal compares runs; remove it, or name two runs")
        sweep_tables.print_values(sweep, format_)
        for problem in sweep.problems:
            terminal.note(problem)
        return
    if len(run) < 2:
        raise typer.BadParameter("compare needs two or more runs, or a sweep")
    tolerance = _tolerance(expect_equal) if expect_equal is not None else None
    found = list(map(saved_run.read, paths))
    names, rows = comparison.names(found), comparison.compare(found)
    if format_ == "table":
        _print(rows, names)
    else:
        tidy = comparison.tidy(rows, names)
        plain = [[shown(cell) if isinstance(cell, list) else cell for cell in row] for row in tidy]
        terminal.rows(comparison.COLUMNS, plain if format_ == "csv" else tidy, format_)
    for problem in dict.fromkeys(problem for one in found for problem in one.problems):
        terminal.note(problem)
    if tolerance is not None:
        wrong = [comparison.disagreement(found[0], one, tolerance) for one in found[1:]]
        for name, what in zip(names[1:], wrong, strict=True):
            if what:
                terminal.error(f"{name}: {what}")
        if any(wrong):
            raise typer.Exit(1)


def _tolerance(text: str) -> float:
    """Read RTOL. Raises BadParameter."""
    with suppress(ValueError):
        if 0 <= (tolerance := float(text)) < math.inf:
            return tolerance
    raise typer.BadParameter(f"--expect-equal: must be a number, 0 or more, not {text!r}")


def _print(rows: Sequence[Row], names: Sequence[str]) -> None:
    """Print the runs as columns: beside the first as many as there is room for, the others below."""
    start, room = 1, terminal.width() or math.inf
    while start < len(names):
        end = start + 1
        while end < len(names) and _width(_lines(rows, names, start, end + 1)) <= room:
            end += 1
        if start > 1:
            out().print()
        terminal.table(_lines(rows, names, start, end), spare=names)  # the differences stay
        start = end


def _width(lines: Sequence[Sequence[str]]) -> int:
    return sum(max(map(cell_len, column)) + 2 for column in zip(*lines, strict=True)) - 2


def _lines(rows: Sequence[Row], names: Sequence[str], start: int, end: int) -> list[list[str]]:
    """The cells of the first run, and of those from `start` to `end`; the first line has the names."""
    others = range(start, end)
    counts = next(row.values for row in rows if row.kind == "rows")
    lines = [["", names[0], *(cell for place in others for cell in (names[place], "difference"))]]
    for row in rows:
        if _is_empty(row, (0, *others)):
            continue
        name = row.name.replace("seconds", "time") if row.kind == "time" else row.name
        cells = [shown(name), _value(row, 0)]
        for place in others:
            value = _value(row, place)
            if value == NOWHERE and counts[0] != counts[place]:
                value = f"{NOWHERE} in {min(counts[0], counts[place])}"
            cells += [value, _difference(row, place)]
        lines.append(cells)
    return lines


def _is_empty(row: Row, places: Sequence[int]) -> bool:
    """Whether a row has nothing to show for these runs: no values, or equal settings."""
    values = [row.values[place] for place in places]
    if row.kind in ("setting", "checksum"):
        return len(set(map(repr, values))) == 1
    has_differences = row.kind != "largest_difference" and any(row.differences[place] for place in places)
    return all(value is None for value in values) and not has_differences


def _value(row: Row, place: int) -> str:
    value = row.values[place]
    if row.kind == "setting":
        return shown(value)
    if row.kind == "first_difference" and value is None:
        return NOWHERE if row.differences[place] is not None else ""
    if value is None:
        return ""
    if row.kind == "checksum":
        return shown(value)[:12]
    if row.kind == "time":
        return duration(value, microseconds_unit(out().options.ascii_only))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _difference(row: Row, place: int) -> str:
    if row.values[place] is None:
        return ""
    change = row.differences[place]
    if change is None:
        return row.not_compared[place]
    difference, relative = change
    if not difference:
        return "same"
    if row.kind == "time" and relative is not None:
        return f"x {1 + relative:.3g}"
    return f"{difference:+.3g}" + (f" ({_share(relative)})" if relative is not None else "")


def _share(relative: float) -> str:
    """A relative difference: in percent, where that is legible."""
    if -0.9 < relative < 10 and abs(relative) >= 1e-4:
        return f"{relative:+.2%}"
    if -1 < relative <= -0.9:
        return f"x {1 + relative:.3g}"
    return f"{100 * relative:+.2g}%" if abs(relative) < 1 else f"x {1 + relative:.3g}"
