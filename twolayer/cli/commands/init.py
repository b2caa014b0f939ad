"""The command `init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from twolayer.cli import terminal
from twolayer.config.bundled import bundled, write_starter

commands = typer.Typer()


@commands.command(epilog="Example:  twolayer init my.yaml")
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write.")] = Path("twolayer.yaml"),
    name: Annotated[str, typer.Option("--from", metavar="NAME", help="The bundled config to copy.")] = "default",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented config to start from.

    `default` is the network of the rTorch book, with every key and a comment on each; `diabetes` trains on a table,
    which is written next to it.
    """
    written = " and ".join(map(str, write_starter(path, name, force=force)))
    source = f"./{path}" if str(path) in bundled() else str(path)
    terminal.note(f"wrote {written}; train it with: twolayer train {shlex.quote(source)}")
