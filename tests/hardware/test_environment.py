"""What `doctor` says of a machine."""

from __future__ import annotations

import os
import platform
import re
import tomllib
from pathlib import Path

import pytest
import torch

from twolayer import __version__
from twolayer.hardware import environment

ROOT = Path(__file__).parents[2]


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {
        extra: {re.split(r"[\[>=;]", line)[0].strip() for line in lines}
        for extra, lines in project["optional-dependencies"].items()
        if extra not in ("all", "bench", "dev")
    }
    for extra, packages in extras.items():
        if "twolayer" in packages:  # twolayer[data]
            extras[extra] = packages - {"twolayer"} | extras["data"]
    assert {extra: set(packages) for extra, packages in environment.EXTRAS.items()} == extras


def test_versions_are_those_of_the_packages() -> None:
    found = environment.environment()
    assert found["twolayer"] == __version__
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["cpus"] == os.cpu_count()
    assert str(found["extra fast"]).startswith("numba ")


def test_a_gpu_is_named_with_its_driver_also_where_torch_cannot_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'NVIDIA H100 80GB HBM3, 550.54.15\\nNVIDIA L4, 550.54.15\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = environment.environment()
    assert found["gpu"] == "NVIDIA H100 80GB HBM3, NVIDIA L4"
    assert found["driver"] == "550.54.15"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert environment.environment()["driver"] is None
