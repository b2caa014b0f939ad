"""The command `check`."""

from __future__ import annotations

import typer

from twolayer.cli import terminal
from twolayer.cli.options import (
    ConfigArgument,
    DeviceOption,
    EngineOption,
    EpochsOption,
    FormatOption,
    LogEveryOption,
    LrOption,
    SeedOption,
    SetOption,
    TargetOption,
    ThreadsOption,
    resolve,
)
from twolayer.config.schema import flat

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer check my.yaml --set lr=1e-3")
def check(
    context: typer.Context,
    config: ConfigArgument = "default",
    device: DeviceOption = None,
    epochs: EpochsOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    log_every: LogEveryOption = None,
    target: TargetOption = None,
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Show the config, or all that is wrong with it.

    Every key stands there with its value and where that comes from: the default, a line of the file, the
    environment or an option. Whether the device is there, only `train` and `bench` find out.
    """
    resolved = resolve(config, set_ or [], context)
    rows = [(key, value, str(resolved.origins[key])) for key, value in flat(resolved.config)]
    terminal.rows(("key", "value", "origin"), rows, format_)
