"""Trains runs for tests that only read them, and configs of tables to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.forking import run
from twolayer.config.loading import load_config
from twolayer.config.schema import Config


def train(folder: Path, *commands: str) -> None:
    """Run `twolayer train ...` for each of the commands, in the folder, and in order."""
    for command in commands:
        run(["train", *command.split()], folder)


def config_of(path: Path | None, **values: Any) -> Config:
    """The config of a table whose target is called y, or of the bundled one."""
    if path is None:
        return load_config("diabetes", environment={}, **values)
    data = {"source": "file", "path": str(path), "target": ["y"]}
    return load_config(path, environment={}, data=data, **values)
