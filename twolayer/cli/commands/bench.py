"""The command `bench`."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.text import Text

from twolayer.cli import process, progress, terminal
from twolayer.cli.options import ConfigArgument, DeviceOption, FormatOption, SetOption, ThreadsOption, resolve
from twolayer.cli.process import computing
from twolayer.cli.terminal import Format, out, rows
from twolayer.errors import DisagreementError
from twolayer.formatting import duration, microseconds_unit

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer bench --device cuda")
def bench(
    context: typer.Context,
    config: ConfigArgument = "default",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    set_: SetOption = None,
    rounds: Annotated[int, typer.Option("--rounds", metavar="INT", min=1, help="Measurements of each engine.")] = 7,
    format_: FormatOption = "table",
) -> None:
    """Time every engine on this machine, and check its losses.

    Times are medians of several rounds, with the minimum and the maximum; set-up is the time that an engine takes to
    start and to write back the weights. The exit code is 1 if an engine's losses differ from autograd's by more than
    rounding.
    """
    resolved = resolve(config, set_ or [], context)
    with computing():
        from twolayer.hardware.device import device_name
        from twolayer.training.benchmark import Bench  # a second, nearly all of it torch

    process.start_computing()
    full, engines, done, interrupted = resolved.config, Bench(resolved.config), 0, False
    if format_ == "table":
        terminal.say(f"{full.shape}, {full.dtype}, on {device_name(engines.device)}; microseconds an iteration\n")
    try:
        with progress.Bar(rounds) as bar:
            bar.draw(0, "rounds")
            for done in engines.rounds(rounds):
                bar.draw(done, "rounds")
    except KeyboardInterrupt:
        terminal.note(f"interrupted after {done} of {rounds} rounds")
        interrupted = True
    if done:
        measured(list(engines.rows()), format_)
    if done and format_ == "table":
        products = engines.products
        terminal.say(
            f"\nshare: of {products.rate / 1e9:.3g} GFLOP/s, the rate of {products.size} x {products.size} products "
            f"with {products.config.threads} threads"
        )
        for name, reason in engines.left_out.items():
            terminal.say(f"left out: {name}, {reason}")
        terminal.say(f"auto takes {engines.auto}")
    if interrupted:
        raise typer.Exit(128 + signal.SIGINT)
    if wrong := [engine.name for engine in engines.engines if not engines.agrees(engine)]:
        raise DisagreementError(wrong)


def measured(figures: Sequence[Mapping[str, Any]], form: Format) -> None:
    """What `bench` has measured, an engine a row; the one that `auto` takes stands out."""
    if form != "table":
        rows(list(figures[0]), [list(row.values()) for row in figures], form)
        return
    unit = microseconds_unit(out().options.ascii_only)
    lines = [["engine", "threads", "median", "least", "most", "set-up", "GFLOP/s", "share", "agrees"]]
    for number, row in enumerate(figures):
        lines.append(
            [
                row["name"],
                str(row["threads"]),
                *(f"{row[key]:.4g}" for key in ("microseconds", "least", "most")),
                duration(row["set_up"] / 1e6, unit),
                f"{row['gflops']:.3g}",
                f"{row['share']:.0%}",
                ("yes" if row["agrees"] else "NO") if number else "itself",
            ]
        )
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for number, (name, *cells, agrees) in enumerate(lines):
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=False))
        is_bold = not number or figures[number - 1]["auto"]
        out().print(Text(f"{name:<{widths[0]}}  {numbers}  {agrees}", "bold" if is_bold else ""))
