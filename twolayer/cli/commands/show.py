"""The command `show`."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.control import Control
from rich.segment import ControlType

from twolayer.cli import process, sweep_follow, sweep_tables, terminal
from twolayer.cli.options import FormatOption, SavedArgument, ScaleOption, sweep_alone
from twolayer.cli.progress import LossView
from twolayer.cli.terminal import Format, note, out
from twolayer.reporting.downsampling import Scale
from twolayer.reporting.summary import summary_lines
from twolayer.runs import saved_run
from twolayer.runs.history import Block, Reader
from twolayer.runs.names import find
from twolayer.runs.saved_run import SavedRun
from twolayer.sweeps.saved_sweep import SavedSweep

commands = typer.Typer()

PAUSE = 0.25  # seconds between two reads of a running training


@commands.command(epilog="Example:  twolayer show default-1 --follow")
def show(
    run: SavedArgument,
    everything: Annotated[bool, typer.Option("--all", help="Print all rows, not only those that fit.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Follow a running training, or a sweep, until it ends.")
    ] = False,
    scale: ScaleOption = "auto",
    format_: FormatOption = "table",
) -> None:
    """Show a run, its loss curve and its rows, or the points of a sweep.

    csv and jsonl print all rows with every digit, and nothing else. --follow redraws a terminal; into a pipe it prints
    all rows as they are computed.
    """
    if follow and everything:
        raise typer.BadParameter(
            "--follow cannot be used with --all: it redraws the screen, and prints all rows into a pipe"
        )
    path = find(run)
    if (sweep := sweep_alone([path])) is not None:
        _show_sweep(sweep, format_, follow=follow, everything=everything)
        return
    found = saved_run.read(path)
    if follow and (found.status == "running" or not can_redraw(format_)):
        raise typer.Exit(_follow(found, format_, scale))
    is_there = not found.history.problem or len(found.history) or (format_ == "table" and (found.info or found.config))
    if is_there:
        _print_run(found, format_, scale, everything=everything)
    for problem in found.problems:
        terminal.note(problem)
    if not is_there or (format_ != "table" and found.is_history_damaged):  # a script must not take the rows for good
        raise typer.Exit(1)


def _show_sweep(sweep: SavedSweep, form: Format, *, follow: bool, everything: bool) -> None:
    """Print a sweep, or as csv and jsonl only its rows."""
    code = 0
    is_followed = follow and (sweep.status == "running" or form != "table")
    if is_followed:
        sweep, code = sweep_follow.follow(sweep, form)
    if is_followed and (form != "table" or code):
        pass  # its rows are printed, or the user has seen enough
    elif form == "table" and not everything:
        sweep_tables.print_sweep(sweep)
    else:
        sweep_tables.print_rows(sweep.plan, sweep.results, form)
    for problem in sweep.problems:
        terminal.note(problem)
    if code or (sweep.problems and form != "table"):  # a script must not take the rows for good
        raise typer.Exit(code or 1)


def _print_run(run: SavedRun, form: Format, scale: Scale, *, everything: bool = False) -> None:
    """Print a run: summary, curve and table, or as csv and jsonl only its rows."""
    from twolayer.cli import run_view  # takes a tenth of a second, mostly for numpy

    if form != "table":
        with LossView((run.history.unit, *run.history.columns), 0, 1, form, bar=False) as view:
            view.show(_block(run.history, 0))
        return
    for line in run_view.view(run, scale, with_table=not everything):
        out().print(line)
    if everything and len(run.history):
        columns = run_view.fit_columns(run.history)
        for line in columns.head(run.history):
            out().print(line)
        out().print(columns.rows(run.history, range(len(run.history))), end="")
        for line in columns.foot(len(run.history), len(run.history)):
            out().print(line)


def can_redraw(form: Format) -> bool:
    """Whether stdout is a terminal on which a run can be redrawn."""
    return form == "table" and sys.stdout.isatty() and not out().is_dumb_terminal


def _follow(run: SavedRun, form: Format, scale: Scale) -> int:
    """Show a run until its training ends: redrawn in place on a terminal, elsewhere every new row.

    Returns the exit code: 0, or a signal's.
    """
    with process.Stop() as stop:
        run = _watch(run, scale, stop) if can_redraw(form) else _tail(run, form, stop)
    for problem in run.problems:
        note(problem)
    return stop.exit_code


def _tail(run: SavedRun, form: Format, stop: process.Stop) -> SavedRun:
    shown = 0
    with LossView((run.history.unit, *run.history.columns), 0, 1, form, bar=False) as view:
        while True:
            if len(run.history) < shown:
                shown = len(run.history)
                note(f"{run.path}: rows after {shown} were removed; the new ones follow")
            if len(run.history) > shown:
                view.show(_block(run.history, shown))
                shown = len(run.history)
            if run.status != "running" or stop.exit_code:
                break
            time.sleep(PAUSE)
            run = saved_run.read(run.path, run)
    if run.status != "running":
        note(dict(summary_lines(run))["run"])
    return run


def _block(history: Reader, start: int) -> Block:
    loss, *others = (tuple(column[start:]) for column in history.columns.values())
    return Block(start + 1, loss, 0.0, dict(zip(list(history.columns)[1:], others, strict=True)))


def _watch(run: SavedRun, scale: Scale, stop: process.Stop) -> SavedRun:
    """Redraw the run in place. The terminal is never in a state that a kill would leave behind, such as no cursor."""
    from twolayer.cli import run_view  # takes a tenth of a second, mostly for numpy

    frame = run_view.Frame()
    began, count = time.monotonic(), len(run.history)
    while True:
        start = time.monotonic()
        gained = len(run.history) - count
        each = (start - began) / gained if gained > 0 and run.status == "running" else None
        size = out().size
        frame.paint(list(run_view.view(run, scale, each=each, height=size.height)), size)
        if run.status != "running" or stop.exit_code:
            break
        # Takes a tenth of a core, with a million rows a little more; a signal takes effect within a second.
        time.sleep(max(PAUSE, min(1.0, 9 * (time.monotonic() - start))))
        run = saved_run.read(run.path, run)
    if stop.exit_code:  # the terminal has echoed ^C
        out().control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
    return run
