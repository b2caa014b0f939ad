"""The command `init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twolayer.cli import completion, terminal
from twolayer.cli.options import home
from twolayer.config.bundled import bundled, write_starter
from twolayer.system.console import shell_words

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer init my.yaml")
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write.", callback=home)] = Path(
        "twolayer.yaml"
    ),
    name: Annotated[
        str,
        typer.Option(
            "--from", metavar="NAME", help="The bundled config to copy.", autocompletion=completion.bundled_configs
        ),
    ] = "default",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented config to start from.

    `default` is the network of the rTorch book, with every key and a comment on each; `diabetes` trains on a table,
    which is written next to it. So is the JSON schema by which editors check a config.
    """
    starter = write_starter(path, name, force=force)
    *others, last = map(str, starter.written)
    written = f"{', '.join(others)} and {last}" if others else last
    source = f"./{path}" if str(path) in bundled() else str(path)
    if not starter.has_schema:
        terminal.note(f"{starter.schema} is not a schema of twolayer and was not changed: editors cannot check {path}")
    elif starter.schema not in starter.written:
        written += f" (its schema is {starter.schema})"
    terminal.note(f"wrote {written}; train it with: twolayer train {shell_words([source])}")
