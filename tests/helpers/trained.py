"""Trains runs for tests that only read them."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.forking import run


def train(folder: Path, *commands: str) -> None:
    """Run `twolayer train ...` for each of the commands, in the folder, and in order."""
    for command in commands:
        run(["train", *command.split()], folder)
