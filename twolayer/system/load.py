"""How busy the machine is."""

from __future__ import annotations

import os
from pathlib import Path


def free_cpus(now: Path = Path("/proc/loadavg"), cpus: int | None = None) -> int:
    """How many CPUs no other thread wants at this moment; all of them where the system does not say (Linux does).

    The fourth word of that file is, as in 3/250, how many threads run or wait for a CPU, this one among them.
    """
    cpus = cpus or os.cpu_count() or 1
    try:
        running = int(now.read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return cpus
    return max(0, cpus - max(0, running - 1))


def is_busy() -> bool:
    """Whether others want at least half of the CPUs at this moment."""
    return 2 * free_cpus() <= (os.cpu_count() or 1)
