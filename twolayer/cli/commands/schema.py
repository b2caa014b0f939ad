"""The command `schema`."""

from __future__ import annotations

import typer

from twolayer.cli import terminal
from twolayer.config.schema import schema

commands = typer.Typer()


@commands.command("schema", epilog="Example:  twolayer schema > twolayer.schema.json")
def schema_command() -> None:
    """Print the JSON Schema of a config.

    Editors complete and check a config by it. The first line of a config names the file to put it into.
    """
    terminal.json_document(schema())
