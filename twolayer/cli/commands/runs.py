"""The commands that look at runs: `runs`, `show`, `plot`, `report`, `compare`."""

from __future__ import annotations

import math
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from twolayer.cli import terminal
from twolayer.cli.options import FormatOption, RunsArgument, SavedArgument
from twolayer.formatting import shown
from twolayer.reporting import comparison
from twolayer.runs import listing, saved_run
from twolayer.runs.folder import RUNS, find

commands = typer.Typer()

ScaleOption = Annotated[
    Literal["auto", "log", "linear"],
    typer.Option("--scale", help="Of the loss; auto takes log where losses span a factor of 100."),
]


@commands.command("runs", epilog="Example:  twolayer runs --format csv")
def runs_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the runs are.")] = RUNS,
    format_: FormatOption = "table",
) -> None:
    """List the runs, newest first."""
    rows, broken = listing.listed(folder)
    columns: tuple[str, ...] = listing.COLUMNS
    if format_ == "table":  # in eighty columns; the other formats have every column and every digit
        columns, rows = listing.brief(rows)
    terminal.rows(columns, rows, format_)
    for message in broken:
        terminal.note(message)


@commands.command(epilog="Example:  twolayer show default-1 --follow")
def show(
    run: SavedArgument,
    everything: Annotated[bool, typer.Option("--all", help="Print all rows, not as many as the screen holds.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Stay with a run that is going on, until it ends.")] = False,
    scale: ScaleOption = "auto",
    format_: FormatOption = "table",
) -> None:
    """Show a run: in brief, its loss as a curve, and its table.

    csv and jsonl print all rows with every digit, and nothing else. With --follow a terminal is redrawn; at a pipe all
    rows come, as they are computed.
    """
    if follow and everything:
        raise typer.BadParameter(
            "--follow redraws the screen, and at a pipe prints all rows; it does not go with --all"
        )
    found = saved_run.read(find(run))
    from twolayer.cli import run_view  # a tenth of a second, nearly all of it numpy

    if follow and (found.status == "running" or not run_view.can_redraw(format_)):
        raise typer.Exit(run_view.follow(found, format_, scale))
    is_there = not found.history.problem or len(found.history) or (format_ == "table" and (found.info or found.config))
    if is_there:
        run_view.show(found, format_, scale, everything=everything)
    for problem in found.problems:
        terminal.note(problem)
    if not is_there or (format_ != "table" and found.is_history_damaged):  # a script would believe the rows
        raise typer.Exit(1)


@commands.command(epilog="Example:  twolayer plot default-1 default-2 -o loss.png")
def plot(
    names: RunsArgument,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FILE", help="A .png, .svg, .pdf or .html to write; one that is there is replaced."
        ),
    ],
    scale: ScaleOption = "auto",
) -> None:
    """Draw the losses of runs, a line each; those of validation dashed.

    A page (.html) is one file and asks the network for nothing: it tells the numbers, moves and zooms.
    """
    from twolayer.reporting import plot as plotting

    plotting.check_name(out)
    found = [saved_run.read(path) for path in dict.fromkeys(map(find, names))]
    for problem in (problem for run in found for problem in run.problems):
        terminal.note(problem)
    for reason in plotting.write(found, out, scale):
        terminal.note(reason)
    terminal.note(f"wrote {out}")


@commands.command(epilog="Example:  twolayer report default-1 default-2 --open")
def report(
    names: RunsArgument,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="The page to write; one that is there is replaced.")
    ] = Path("report.html"),
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write a page of one run, or of several beside each other.

    It is one file and asks the network for nothing: the config, what computed, the curve, every row of the history, and
    a picture of the weights.
    """
    from twolayer.reporting.html.report import check_name, write

    check_name(out)
    problems = write([saved_run.read(find(name)) for name in names], out)
    for problem in problems:
        terminal.note(problem)
    terminal.note(f"wrote {out}")
    if open_ and not webbrowser.open(out.absolute().as_uri()):
        terminal.note("no browser was found to open it with")


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
        list[str], typer.Argument(metavar="RUN", help="Two runs or more: their folders, or their names in runs.")
    ],
    expect_equal: Annotated[
        str | None,
        typer.Option(
            "--expect-equal",
            metavar="[=RTOL]",
            help="Exit with 1 unless all histories agree with the first: exactly, or to a share RTOL of it.",
        ),
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """Hold runs against the first of them.

    What differs in their configs and in what computed them; iterations, losses and time; and from which row on the
    histories differ, and by how much. csv and jsonl print a row for each thing and run but the first.
    """
    if len(run) < 2:
        raise typer.BadParameter("two runs or more are compared; give another RUN")
    tolerance = _tolerance(expect_equal) if expect_equal is not None else None
    found = [saved_run.read(path) for path in map(find, run)]
    names, things = comparison.names(found), comparison.compared(found)
    if format_ == "table":
        from twolayer.cli.commands import compare

        compare.show(things, names)
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
