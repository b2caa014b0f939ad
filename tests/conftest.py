"""What tests share: the installed command in a clean environment, and the published numbers."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("twolayer")
REFERENCE = Path(__file__).parent / "reference"
BASE = "N: 8\nD_in: 3\nH: 4\nD_out: 2\nlr: 1e-3\nepochs: 5\n"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what changes our output."""
    ours = {"NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES", "LC_ALL", "LANG", "PYTHONWARNINGS"}
    kept = {key: value for key, value in os.environ.items() if key not in ours and not key.startswith("TWOLAYER_")}
    return kept | {"LC_ALL": "C.UTF-8"} | more


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("TWOLAYER_")]:
        monkeypatch.delenv(key)


@pytest.fixture
def twolayer(tmp_path: Path) -> Run:
    """Run the real command, in an empty folder."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            cwd=tmp_path,
            env=clean_environment(**environment),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Write a config; its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "my.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def published(name: str, column: str) -> list[float]:
    """A column of the published numbers."""
    with (REFERENCE / name).open() as file:
        return [float(row[column]) for row in csv.DictReader(file)]
