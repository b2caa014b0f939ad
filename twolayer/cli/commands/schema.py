"""The command `schema`."""

from __future__ import annotations

import typer

from twolayer.cli import terminal
from twolayer.config.schema import schema

commands = typer.Typer()


@commands.command("schema", epilog="Example:  twolayer schema > twolayer.schema.json")
def schema_command() -> None:
    """Print the JSON Schema of configs, for editors.

    An editor with YAML support completes and checks a config with it. The first line of a config names the schema file.
    """
    terminal.json_document(schema())
