"""The environment, as it can be shown to anybody: versions and hardware, and neither users nor paths."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from twolayer.hardware.threads import cores
from twolayer.version import __version__

# The packages of each extra, by the names under which they are installed; tests compare it with pyproject.toml.
EXTRAS = {
    "data": ("polars",),
    "excel": ("polars", "fastexcel"),
    "report": ("altair", "itables", "jinja2", "pillow", "vl-convert-python"),
    "export": ("polars", "onnx"),
    "tensorboard": ("tensorboard",),
    "fast": ("numba",),
}
_ANSWERS_WITHIN = 10  # seconds, for the programs that are asked


def environment() -> dict[str, str | int | None]:
    """What a problem may depend on, by name; None where it is not known, or not there.

    `extra <name>` has the versions of an extra's packages, and None unless all are installed.
    """
    gpu, driver = _gpu()
    found: dict[str, str | int | None] = {
        "twolayer": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "system": _system(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "threads": cores(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "blas": _blas(),
        "cuda": torch.version.cuda or (f"ROCm {torch.version.hip}" if torch.version.hip else None),
        "gpu": gpu,
        "driver": driver,
    }
    for extra, packages in EXTRAS.items():
        versions = {package: version(package) for package in packages}
        is_whole = None not in versions.values()
        found[f"extra {extra}"] = ", ".join(f"{k} {v}" for k, v in versions.items()) if is_whole else None
    return found


def version(package: str) -> str | None:
    """The version of an installed package; None without it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _system() -> str:
    """The operating system and its version, without the name of the machine."""
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    if platform.system() == "Windows":
        return f"Windows {platform.version()}"
    libc = " ".join(platform.libc_ver()).strip()
    return f"{platform.system()} {platform.release()}" + (f", {libc}" if libc else "")


def _cpu() -> str | None:
    """The name of the CPU."""
    if platform.system() == "Darwin":
        return _said("sysctl", "-n", "machdep.cpu.brand_string")
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:  # not Linux
        return platform.processor() or None
    name = re.search(r"^(?:model name|Model|cpu)\s*:\s*(.+)$", text, flags=re.M)
    return " ".join(name[1].split()) if name else platform.processor() or None


def _blas() -> str | None:
    """The library that computes products on the CPU."""
    text = torch.__config__.show()
    if found := re.search(r"Math Kernel Library Version (\S+?)-", text):
        return f"MKL {found[1]}"
    named = re.search(r"BLAS_INFO=(\w+)", text)
    return named[1] if named else None


def _gpu() -> tuple[str | None, str | None]:
    """The names of the GPUs and the version of their driver, also where PyTorch cannot use them."""
    lines = (_said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") or "").splitlines()
    rows = [line.split(", ") for line in lines if line.count(", ") == 1]
    if rows:
        return ", ".join(name for name, _ in rows), rows[0][1]
    if torch.backends.mps.is_available():
        return "Metal", None
    if torch.cuda.is_available():
        return ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))), None
    return None, None


def _said(program: str, *arguments: str) -> str | None:
    """What a program prints; None where it is missing, fails, or does not answer."""
    if (path := shutil.which(program)) is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 the program is named here
            [path, *arguments], capture_output=True, text=True, timeout=_ANSWERS_WITHIN, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
