"""The command `check`."""

from __future__ import annotations

import typer

from twolayer.cli import terminal
from twolayer.cli.options import (
    ClassesOption,
    ConfigArgument,
    DeviceOption,
    EngineOption,
    EpochsOption,
    ExcludeOption,
    FormatOption,
    InputsOption,
    LogEveryOption,
    LrOption,
    MissingOption,
    SeedOption,
    SetOption,
    TargetOption,
    ThreadsOption,
)
from twolayer.cli.resolving import resolve
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
    inputs: InputsOption = None,
    exclude: ExcludeOption = None,
    missing: MissingOption = None,
    classes: ClassesOption = False,
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Show the config, or everything that is wrong with it.

    A row for each key: its value, and where that was set: by default, in a line of the file, in the environment or by
    an option. Whether the device is available is known only to `train` and `bench`.
    """
    resolved = resolve(config, set_ or [], context)
    rows = [(key, value, str(resolved.origins[key])) for key, value in flat(resolved.config)]
    terminal.rows(("key", "value", "origin"), rows, format_)
