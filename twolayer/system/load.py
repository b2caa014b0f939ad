"""How busy the machine is."""

from __future__ import annotations

import os
from pathlib import Path


def is_busy(now: Path = Path("/proc/loadavg"), cpus: int | None = None) -> bool:
    """Whether others want at least half of the CPUs at this moment; False where the system does not tell (Linux does).

    The fourth word of that file is, as in 3/250, how many threads run or wait for a CPU, this one among them.
    """
    try:
        running = int(now.read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return False
    return 2 * (running - 1) >= (cpus or os.cpu_count() or 1)
