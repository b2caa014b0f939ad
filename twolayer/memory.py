"""How much memory a training needs, and whether there is as much: known before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from twolayer.config import Config
from twolayer.errors import ConfigError, Origin, Problem

_ITEMSIZE = {"float32": 4, "float64": 8}


def needed(config: Config) -> int:
    """The bytes that the data, the parameters, their gradients and the activations take together.

    A lower bound for every engine: N (D_in + D_out) for the data, the parameters and their gradients, one
    activation (N, H) with its gradient, and one output (N, D_out) with its own.
    """
    N, D_in, H, D_out = config.N, config.D_in, config.H, config.D_out
    parameters = H * (D_in + 1) + D_out * (H + 1)
    numbers = N * (D_in + D_out) + 2 * parameters + 2 * N * (H + D_out)
    return numbers * _ITEMSIZE[config.dtype]


def available() -> int | None:
    """The bytes this process can still take, by the system and by its control group; None where neither says."""
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except OSError:  # not Linux: the physical memory is all that the standard library knows
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return min(limits, default=None)


def check(config: Config, name: str = "config") -> None:
    """Raise ConfigError, with the size, for a training that cannot fit into memory."""
    need, free = needed(config), available()
    if free is not None and need > free:
        sizes = f"{config.N} x {config.D_in} -> {config.H} -> {config.D_out}"
        message = f"{sizes} needs at least {size(need)} of memory, and {size(free)} is available"
        raise ConfigError([Problem(Origin(name), "", message)])


def size(count: int) -> str:
    """A number of bytes, in the unit that suits it."""
    amount, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.3g} {units[0]}" if amount < 1000 else f"{amount:.0f} {units[0]}"
