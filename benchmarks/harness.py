"""What the benchmarks share: their options, quiet between two programs, and results as JSON."""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import math
import os
import platform
import re
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ["twolayer", "torch", "numpy", "jax", "jaxlib", "scikit-learn", "skorch", "pytorch-lightning"]
LONGEST_WAIT = 2.0  # seconds


def options(description: str, rounds: int | None = None) -> argparse.Namespace:
    """The command line: `rounds`, unless there are none, and `json`, the path that the results are written to."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    if rounds is not None:
        parser.add_argument("rounds", type=int, nargs="?", default=rounds, help="measured rounds; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there, too")
    return parser.parse_args()


def settle() -> None:
    """Wait until no thread of this process is busy: those of the program before spin for a while, waiting for work."""
    gc.collect()
    end = time.perf_counter() + LONGEST_WAIT
    while time.perf_counter() < end:
        busy = time.process_time()
        time.sleep(0.05)
        if time.process_time() - busy < 0.002:
            return


def check(name: str, losses: list[float], expected: list[float]) -> None:
    """End it all where a program computes something else."""
    if len(losses) != len(expected):
        raise SystemExit(f"{name} has {len(losses)} losses, not {len(expected)}")
    for t, (loss, other) in enumerate(zip(losses, expected, strict=True), 1):
        if not math.isclose(loss, other, rel_tol=1e-2):
            raise SystemExit(f"{name} computes something else: its loss {t} is {loss}, not {other}")


def environment() -> dict[str, Any]:
    """The hardware, how busy it is, the versions, the command and the date."""
    return {
        "command": " ".join(["python", *sys.argv]),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,  # of the last minute
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": {
            "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory": _first("/proc/meminfo", "MemTotal"),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _versions() -> dict[str, str]:
    """The versions of the libraries that are installed."""
    found = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _first(path: str, key: str) -> str:
    """The value of the first line of `key: value`; empty where there is none."""
    if not Path(path).exists():
        return ""
    return next((line.partition(":")[2].strip() for line in Path(path).open() if line.startswith(key)), "")


def caution(results: dict[str, Any]) -> str:
    """A sentence on results that were measured beside other programs."""
    is_busy = (results["load"] or 0) > 2 * results["hardware"]["cores"]
    return "\nOther programs took the cores: these figures show that it runs, and little else." if is_busy else ""


def section(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- end of name -->` in a page."""
    before, opened, rest = page.read_text().partition(f"<!-- {name} -->\n")
    _, closed, after = rest.partition(f"<!-- end of {name} -->\n")
    if not opened or not closed:
        raise SystemExit(f"{page} has no section {name}")
    page.write_text(f"{before}{opened}{text}\n{closed}{after}")


def save(path: Path | None, results: dict[str, Any]) -> None:
    """Write the results, and what they were measured with, as JSON; nowhere where no path is given."""
    if path is not None:
        text = json.dumps(environment() | results, indent=1)
        text = re.sub(r"\[[^][{}]*\]", lambda numbers: " ".join(numbers[0].split()), text)  # a line for each list
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        print(f"\nwritten to {path}")
