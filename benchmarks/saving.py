"""What keeping a run folder costs: whole processes with one and with --no-save in turn, and memory over long runs.

python benchmarks/saving.py [rounds] [--json PATH]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import harness

TWOLAYER = str(Path(sys.executable).with_name("twolayer"))
COMMANDS = {"run folder": [TWOLAYER, "train"], "--no-save": [TWOLAYER, "train", "--no-save"]}
GOAL = 1.05
LENGTHS = [1_000, 100_000]
FLAT = 1.05


def run(command: list[str], folder: str) -> tuple[float, int]:
    """The seconds that a process takes, its output thrown away, and the most bytes it had in memory."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TWOLAYER_")}
    start = time.perf_counter()
    pid = os.fork()
    if not pid:
        os.chdir(folder)
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.execve(command[0], command, environment)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def main() -> None:
    """Run both in turn, round after round, then a short and a long training, and print what they took."""
    options = harness.options(__doc__ or "", rounds=15)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    peaks: dict[int, int] = {}
    with TemporaryDirectory() as folder:
        for turn in range(options.rounds + 1):
            # Each comes first as often as the other: what the machine does in between falls on both.
            for name in sorted(COMMANDS, reverse=bool(turn % 2)):
                taken, _ = run(COMMANDS[name], folder)
                if turn:  # the first is a warm-up
                    times[name].append(round(taken, 4))
        for length in LENGTHS:
            _, peaks[length] = run([TWOLAYER, "train", "--epochs", str(length)], folder)

    print(f"{options.rounds} rounds, seconds\n\n| process | median | min | max |\n|---|---|---|---|")
    for name, taken_all in times.items():
        print(f"| {name} | {statistics.median(taken_all):.3f} | {min(taken_all):.3f} | {max(taken_all):.3f} |")
    pairs = [saved / plain for saved, plain in zip(*times.values(), strict=True)]
    medians = [statistics.median(taken_all) for taken_all in times.values()]
    print("\n| ratio | | goal | met |\n|---|---|---|---|")
    for name, ratio in (("of medians", medians[0] / medians[1]), ("median of ratios", statistics.median(pairs))):
        print(f"| {name} | {ratio:.3f} | at most {GOAL} | {'yes' if ratio <= GOAL else 'NO'} |")
    short, long = (peaks[length] for length in LENGTHS)
    flat = "yes" if long <= FLAT * short else "NO"
    print(f"| peak memory, {LENGTHS[1]} iterations / {LENGTHS[0]} | {long / short:.3f} | at most {FLAT} | {flat} |")
    harness.save(options.json, {"rounds": options.rounds, "seconds": times, "peak_bytes": peaks})


if __name__ == "__main__":
    main()
