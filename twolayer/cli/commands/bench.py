"""The command `bench`."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.text import Text

from twolayer.cli import columns, process, progress, scaling, terminal
from twolayer.cli.options import (
    ClassesOption,
    ConfigArgument,
    DeviceOption,
    ExcludeOption,
    FormatOption,
    InputsOption,
    MissingOption,
    SetOption,
    TargetOption,
    ThreadsOption,
)
from twolayer.cli.process import computing
from twolayer.cli.resolving import resolve
from twolayer.cli.terminal import Format, out, rows
from twolayer.config.validation import Resolved
from twolayer.errors import DisagreementError
from twolayer.formatting import counted, duration, microseconds_unit

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer bench --device cuda")
def bench(
    context: typer.Context,
    config: ConfigArgument = "default",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    target: TargetOption = None,
    inputs: InputsOption = None,
    exclude: ExcludeOption = None,
    missing: MissingOption = None,
    classes: ClassesOption = False,
    set_: SetOption = None,
    rounds: Annotated[int, typer.Option("--rounds", metavar="INT", min=1, help="Measurements of each engine.")] = 7,
    ranks: Annotated[
        str | None,
        typer.Option(
            "--ranks", metavar="INT,INT", help="Time updates in these numbers of processes instead, such as 1,2,4."
        ),
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """Time every engine on this machine, and check its losses.

    Times are the min, median and max of several rounds; set-up is the time that an engine takes to
    start and to write back the weights. The exit code is 1 if an engine's losses differ from autograd's by more than
    rounding.

    --ranks 1,2,4 times updates in parts in 1, 2 and 4 processes on this machine, beside one process without parts. The
    exit code is 1 if their losses are not the same bits.
    """
    sizes = scaling.numbers_of_ranks(ranks) if ranks is not None else []
    resolved = resolve(config, set_ or [], context)
    raise typer.Exit(
        scaling.scaling(resolved, sizes, rounds, format_) if sizes else _engines(resolved, rounds, format_)
    )


def _engines(resolved: Resolved, rounds: int, format_: Format) -> int:
    """Time every engine; the exit code. Raises TwolayerError."""
    with computing():
        from twolayer.hardware.device import device_name
        from twolayer.training.benchmark import Benchmark  # a second, nearly all of it torch

    process.start_computing()
    full, engines, done, interrupted = resolved.config, Benchmark(resolved.config), 0, False
    if format_ == "table":
        terminal.say(f"{full.shape}, {full.dtype}, on {device_name(engines.device)}; microseconds per iteration\n")
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
        matmul = engines.matmul
        shape = f"{matmul.size} x {matmul.size}, {counted(int(matmul.config.threads), 'thread')}"
        terminal.say("\nGFLOP/s: the operations of the book's loop, for every engine, by the median time")
        terminal.say(f"this machine: {matmul.rate / 1e9:.3g} GFLOP/s in products of {shape}, best round")
        for name, reason in engines.left_out.items():
            terminal.say(f"left out: {name}, which {reason}")
        terminal.say(f"auto chooses {engines.auto}")
    if interrupted:
        return 128 + signal.SIGINT
    if wrong := [engine.name for engine in engines.engines if not engines.agrees(engine)]:
        raise DisagreementError(wrong)
    return 0


def measured(figures: Sequence[Mapping[str, Any]], form: Format) -> None:
    """Print what `bench` has measured, a row per engine; the one that `auto` chooses is bold."""
    if form != "table":
        rows(list(figures[0]), [list(row.values()) for row in figures], form)
        return
    unit = microseconds_unit(out().options.ascii_only)
    lines = [["engine", "threads", "min", "median", "max", "set-up", "GFLOP/s", "agrees"]]
    for number, row in enumerate(figures):
        times = [row[key] for key in ("min_us", "median_us", "max_us")]
        lines.append(
            [
                row["name"],
                str(row["threads"]),
                *(f"{time:.4g}" if time < 1000 else f"{time:.0f}" for time in times),
                duration(row["set_up_us"] / 1e6, unit),
                f"{row['gflops']:.3g}",
                ("yes" if row["agrees"] else "NO") if number else "reference",
            ]
        )
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    drop = [lines[0].index(name) for name in ("set-up", "GFLOP/s", "threads", "min", "max")]
    room = terminal.width()
    kept = range(len(widths)) if room is None else columns.fit(widths, room, drop)
    for number, cells in enumerate(lines):
        last = len(cells) - 1
        padded = (cells[i].ljust(widths[i]) if i in (0, last) else cells[i].rjust(widths[i]) for i in kept)
        is_bold = not number or figures[number - 1]["auto"]
        out().print(Text("  ".join(padded).rstrip(), "bold" if is_bold else ""))
    if left_out := [name for i, name in enumerate(lines[0]) if i not in kept]:
        out().print(terminal.not_shown(left_out))
