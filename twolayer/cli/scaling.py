"""`bench --ranks`: the times of updates on one rank and on several, as a table."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from twolayer.cli import process, progress, ranks, terminal
from twolayer.cli.process import computing
from twolayer.cli.terminal import Format, out
from twolayer.config.validation import Resolved
from twolayer.errors import Origin, RankError
from twolayer.formatting import counted, duration, microseconds_unit, size
from twolayer.hardware import memory

if TYPE_CHECKING:
    from twolayer.training.scaling import Scaling

ALONE = "no parts"


def numbers_of_ranks(text: str) -> list[int]:
    """`2,4` as 1, 2 and 4. Raises BadParameter."""
    try:
        found = {1, *map(int, text.split(","))}
    except ValueError:
        found = {0}
    if min(found) < 1:
        raise typer.BadParameter(f"--ranks must be numbers from 1 on, such as 1,2,4, not {text!r}")
    return sorted(found)


def scaling(resolved: Resolved, sizes: Sequence[int], rounds: int, form: Format) -> int:
    """Time updates on each of these numbers of ranks, the first of which is 1; the exit code."""
    most = sizes[-1]
    resolved = ranks.in_parts(resolved, most, Origin("--ranks"))
    for count in sizes:
        memory.check(resolved.config, resolved.name, ranks=count, idle=most - count)
    with ranks.on_this_machine(most) as others:
        if others is not None:
            others.start()
        with computing():
            from twolayer.hardware.device import device_name
            from twolayer.training.scaling import Scaling

        process.start_computing()
        timed = Scaling(resolved.config, resolved.table, ranks.met(others), sizes)
        config = timed.config
        if form == "table":
            where = f"{config.dtype}, on {device_name(config.device)}"
            terminal.say(f"{config.shape}, {where}, {counted(config.parts or 1, 'part')} of {config.split}\n")
        code = _measure(timed, others, rounds)
        if timed.ranks[0].seconds:
            _show(timed, form)
        if not code:
            timed.end()
    wrong = [one.ranks for one in timed.ranks if one.seconds and not timed.has_same_bits(one)]
    if wrong and not code:
        raise RankError(f"the losses are other bits than on one rank: on {', '.join(map(str, wrong))} ranks")
    return code


def _measure(timed: Scaling, others: ranks.Others | None, rounds: int) -> int:
    """Measure all rounds, or until a signal comes to one of the processes; the exit code."""
    done = code = 0
    try:
        with progress.Bar(rounds) as bar:
            bar.draw(0, "rounds")
            for done in timed.rounds(rounds):
                bar.draw(done, "rounds")
                if others is not None and (code := others.signalled()):
                    break
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    if code:
        terminal.note(f"interrupted after {done} of {rounds} rounds")
    return code


def _show(timed: Scaling, form: Format) -> None:
    """Print what was measured, and what is fastest."""
    figures = list(timed.rows())
    if form != "table":
        terminal.rows(list(figures[0]), [list(row.values()) for row in figures], form)
        return
    unit = microseconds_unit(out().options.ascii_only)
    lines = [["ranks", "update", "exchanging", "speed-up", "efficiency", "bits"]]
    lines += [_cells(row, unit) for row in figures]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        first, *middle, last = cells
        padded = [first.ljust(widths[0]), *map(str.rjust, middle, widths[1:-1]), last]
        out().print("  ".join(padded).rstrip())
    terminal.say("")
    for line in _remarks(timed, figures):
        terminal.say(line)


def _cells(row: dict[str, Any], unit: str) -> list[str]:
    median, exchanging = (duration(row[key] / 1e6, unit) for key in ("median_us", "exchanging_us"))
    speed_up = f"{row['speed_up']:.2f}"
    if row["parts"] is None:
        return [ALONE, median, "", speed_up, "", ""]
    if row["ranks"] == 1:
        return ["1", median, "", speed_up, "100 %", ""]
    bits = "same" if row["same_bits"] else "OTHER"
    return [str(row["ranks"]), median, exchanging, speed_up, f"{100 * row['efficiency']:.0f} %", bits]


def _remarks(timed: Scaling, figures: Sequence[dict[str, Any]]) -> list[str]:
    one, cores = timed.one, timed.cores
    lines = []
    if timed.alone is None:
        lines.append(f"{ALONE}: not timed, one process needs {size(memory.needed(one))} of memory")
    else:
        threads = counted(int(one.threads), "thread")
        lines.append(f"{ALONE}: one process as without --ranks, {one.engine_name}, {threads}")
    if (most := timed.ranks[-1].ranks) > cores and timed.device == "cpu":
        lines.append(f"{most} ranks share {counted(cores, 'core')}")
    best = min(figures, key=lambda row: row["median_us"])
    name = "no parts" if best["parts"] is None else counted(best["ranks"], "rank")
    lines.append(f"fastest: {name}")
    return lines
