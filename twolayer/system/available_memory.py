"""The memory that this process can still allocate."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any


def available() -> int | None:
    """The bytes that the system, the container and the limit of this process leave; None if none of them is known."""
    limits = [limit for limit in (_system(), _container(), _process()) if limit is not None]
    return min(limits, default=None)


def _system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # macOS: the standard library only knows the physical memory
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
            sysconf: Any = getattr(os, "sysconf")  # noqa: B009 (Windows has none)
            return int(sysconf("SC_PHYS_PAGES") * sysconf("SC_PAGE_SIZE"))
    return _windows()


def _windows() -> int | None:
    import ctypes

    windll: Any = getattr(ctypes, "windll", None)
    status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX: its length, and as the third number the available bytes
    if windll is None or not windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status[2])


def _container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the control group leaves: its limit less the memory in use, not counting cache that can be freed."""
    for limit, usage, cache, statistics in (
        (root / "memory.max", root / "memory.current", "inactive_file", root / "memory.stat"),
        (
            root / "memory" / "memory.limit_in_bytes",
            root / "memory" / "memory.usage_in_bytes",
            "total_inactive_file",
            root / "memory" / "memory.stat",
        ),
    ):
        try:
            maximum, used = int(limit.read_text()), int(usage.read_text())  # the limit may be the word "max"
            lines = dict(line.split() for line in statistics.read_text().splitlines())
            return max(0, maximum - used + int(lines.get(cache, 0)))
        except (OSError, ValueError):
            continue
    return None


def _process() -> int | None:
    """What the process's own limit (`ulimit -v`) leaves."""
    try:
        resource: Any = import_module("resource")
        limit = int(resource.getrlimit(resource.RLIMIT_AS)[0])
        if limit == resource.RLIM_INFINITY:
            return None
        page = int(resource.getpagesize())
        return max(0, limit - int(Path("/proc/self/statm").read_text().split()[0]) * page)
    except (ImportError, OSError):  # not Linux
        return None
