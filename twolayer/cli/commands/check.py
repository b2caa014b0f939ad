"""The commands of configs, which compute nothing: `check`, `init`, `schema`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

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
from twolayer.config.bundled import bundled, write_starter
from twolayer.config.schema import flat, schema

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


@commands.command(epilog="Example:  twolayer init my.yaml")
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where to write it.")] = Path("twolayer.yaml"),
    name: Annotated[str, typer.Option("--from", metavar="NAME", help="The bundled config to copy.")] = "default",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented config to start from.

    `default` is the rTorch book's network, with every key there is and a comment on each; `diabetes` trains on a table,
    which is written beside it.
    """
    written = " and ".join(map(str, write_starter(path, name, force=force)))
    source = f"./{path}" if str(path) in bundled() else str(path)
    terminal.note(f"wrote {written}; train it with: twolayer train {shlex.quote(source)}")


@commands.command("schema", epilog="Example:  twolayer schema > twolayer.schema.json")
def schema_command() -> None:
    """Print the JSON Schema of a config.

    Editors complete and check a config by it. The first line of a config names the file to put it into.
    """
    terminal.json_document(schema())
