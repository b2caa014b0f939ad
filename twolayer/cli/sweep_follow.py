"""Follows a sweep that runs: its points as they end, and the best so far."""

from __future__ import annotations

import time

from twolayer.cli import process, progress, sweep_tables, terminal
from twolayer.cli.terminal import Format
from twolayer.formatting import counted, safe
from twolayer.reporting.sweep_summary import best_of
from twolayer.sweeps import results, saved_sweep
from twolayer.sweeps.saved_sweep import SavedSweep

_PAUSE = 0.25  # seconds between two reads of the table


def follow(sweep: SavedSweep, form: Format) -> tuple[SavedSweep, int]:
    """Print the points of a sweep as they end, until it does; the sweep as it is then, and the exit code.

    As a table, each is a line on stderr, or a terminal has a bar with the best one so far; csv and jsonl are rows.
    """
    shown = set[int]()
    count = len(sweep.plan.points)
    if form == "csv":
        terminal.write(results.csv_line(results.columns(sweep.plan)))
    elif form == "table":
        terminal.note(f"sweep {sweep.path}: {counted(count, 'point')}, {sweep.done:,} done")
    with process.Stop() as stop, progress.Bar(count, hidden=form != "table") as bar:
        while True:
            start = time.monotonic()
            for result in sweep.results:
                if result.point.number in shown:
                    continue
                shown.add(result.point.number)
                if form == "csv":
                    terminal.write(results.csv_line(results.cells(result)))
                elif form == "jsonl":
                    terminal.write(sweep_tables.json_line(sweep.plan, result))
                elif not bar.is_shown:
                    terminal.note(f"{len(shown)}/{count} {sweep_tables.in_words(result)}")
            bar.draw(len(shown), _best(sweep))
            if sweep.status != "running" or stop.exit_code:
                break
            # At most a tenth of a core, also where the table is long.
            time.sleep(max(_PAUSE, min(1.0, 9 * (time.monotonic() - start))))
            sweep = saved_sweep.read(sweep.path, sweep)
    return sweep, stop.exit_code


def _best(sweep: SavedSweep) -> str:
    """The best point so far and the loss by which it is the best; empty where there is none."""
    if (best := best_of(sweep.results)) is None:
        return ""
    name = results.score_name(sweep.results)
    return safe(f"best so far: {best.point.name}, {name.removeprefix('final_')} {best.number(name):.6g}")
