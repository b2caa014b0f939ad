"""How much memory this process can still take."""

from __future__ import annotations

import os
from pathlib import Path


def available() -> int | None:
    """The bytes this process can still take, by the system, its container and its own limit; None where none says."""
    limits = [limit for limit in (_system(), _container(), _process()) if limit is not None]
    return min(limits, default=None)


def _system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux: the physical memory is all that the standard library knows
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the control group leaves: its limit less what is in use and is no cache that would give way."""
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
            most, used = int(limit.read_text()), int(usage.read_text())  # the limit may be the word "max"
            lines = dict(line.split() for line in statistics.read_text().splitlines())
            return max(0, most - used + int(lines.get(cache, 0)))
        except (OSError, ValueError):
            continue
    return None


def _process() -> int | None:
    """What the process's own limit (`ulimit -v`) leaves."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        return max(0, limit - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    except (ImportError, OSError):  # no Linux
        return None
