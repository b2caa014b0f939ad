"""What reading a table and preparing it costs: polars' read_csv and twolayer's read of one file in turn, and memory.

Also the CPU time of `twolayer data`, whole processes, for a table of 10,000 columns, beside one of 2.

python benchmarks/reading.py [rounds] [--json PATH]
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import harness
import numpy as np
import polars as pl

from twolayer.tables.dataset import read
from twolayer.tables.options import FileData

ROWS, MOST_ROWS, COLUMNS = 1_000_000, 10_000_000, 20
GOAL = 1.5
MEMORY_GOAL = 4 * 2**30  # bytes
WIDE_ROWS, WIDE_COLUMNS, WIDE_GOAL = 100, 10_000, 2.0  # the goal in CPU seconds beyond those of two columns
TWOLAYER = str(Path(sys.executable).with_name("twolayer"))


def write(path: Path, rows: int, columns: int = COLUMNS) -> None:
    """A table of normal numbers, as CSV or as Parquet."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({f"c{j}": rng.normal(size=rows) for j in range(columns)})
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)


def prepare(path: Path) -> Any:
    """The table as training takes it, a tenth held out."""
    data = FileData(source="file", path=str(path), target=[f"c{COLUMNS - 1}"])
    return read(data, validation=0.1, seed=0, loss=None)


def seconds(work: Callable[[], Any]) -> float:
    """What a call takes, its result thrown away."""
    harness.settle()
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 4)


def looking(path: Path) -> float:
    """The CPU seconds of `twolayer data`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([TWOLAYER, "data", str(path), "--target", "c0"], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, 4)


def apart(work: Callable[[], Any]) -> int:
    """Do it in a process of its own; the most bytes that this had in memory."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            os.write(writer, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as answer:
        peak = answer.read()
    os.waitpid(pid, 0)
    return int(peak)


def main() -> None:
    """Memory first, while polars has no threads yet, which a fork would not take along; then both in turn."""
    options = harness.options(__doc__ or "", rounds=15)
    times: dict[str, list[float]] = {"read": [], "read_csv": []}
    with TemporaryDirectory() as folder:
        table, large = Path(folder, "table.csv"), Path(folder, "large.parquet")
        wide, narrow = Path(folder, "wide.csv"), Path(folder, "narrow.csv")
        apart(lambda: write(large, MOST_ROWS))
        peak = apart(lambda: prepare(large))
        large.unlink()
        apart(lambda: write(table, ROWS))
        apart(lambda: write(wide, WIDE_ROWS, WIDE_COLUMNS))
        apart(lambda: write(narrow, WIDE_ROWS, 2))
        work = {"read": lambda: prepare(table), "read_csv": lambda: pl.read_csv(table)}
        for turn in range(options.rounds + 1):
            for name in sorted(work, reverse=bool(turn % 2)):
                taken = seconds(work[name])
                if turn:  # the first is a warm-up
                    times[name].append(taken)
        looks = [[looking(path) for path in (wide, narrow)] for _ in range(max(3, options.rounds // 3))]

    print(f"{options.rounds} rounds, {ROWS} x {COLUMNS} numbers, seconds\n")
    print("| call | median | min | max |\n|---|---|---|---|")
    for name, taken_all in times.items():
        print(f"| {name} | {statistics.median(taken_all):.3f} | {min(taken_all):.3f} | {max(taken_all):.3f} |")
    medians = [statistics.median(taken_all) for taken_all in times.values()]
    pairs = [ours / theirs for ours, theirs in zip(*times.values(), strict=True)]
    print("\n| ratio | | goal | met |\n|---|---|---|---|")
    for name, ratio in (("of medians", medians[0] / medians[1]), ("median of ratios", statistics.median(pairs))):
        print(f"| {name} | {ratio:.3f} | at most {GOAL} | {'yes' if ratio <= GOAL else 'NO'} |")
    met = "yes" if peak <= MEMORY_GOAL else "NO"
    print(f"| peak memory, {MOST_ROWS} rows of Parquet, GiB | {peak / 2**30:.2f} | at most 4 | {met} |")
    of_wide, of_narrow = (statistics.median(taken_all) for taken_all in zip(*looks, strict=True))
    met = "yes" if of_wide - of_narrow <= WIDE_GOAL else "NO"
    print(f"| twolayer data, {WIDE_ROWS} x {WIDE_COLUMNS}, CPU seconds | {of_wide:.2f} | | |")
    print(f"| twolayer data, {WIDE_ROWS} x 2, CPU seconds | {of_narrow:.2f} | | |")
    print(f"| the difference | {of_wide - of_narrow:.2f} | at most {WIDE_GOAL:g} | {met} |")
    found = {"rounds": options.rounds, "seconds": times, "peak_bytes": peak, "data_cpu_wide_narrow": looks}
    harness.save(options.json, found)


if __name__ == "__main__":
    main()
