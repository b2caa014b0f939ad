"""Whole processes side by side, from start to exit: medians of interleaved runs, and their ratios.

python benchmarks/process.py [rounds]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TWOLAYER = str(Path(sys.executable).with_name("twolayer"))
LONG = ["--set", "N=4", "--set", "D_in=4", "--set", "H=4", "--set", "D_out=1", "--epochs", "10000"]

COMMANDS = {
    "imports": [sys.executable, "-c", "import typer, rich, yaml, pydantic"],
    "help": [TWOLAYER, "--help"],
    "check": [TWOLAYER, "check"],
    "schema": [TWOLAYER, "schema"],
    "refused": [TWOLAYER, "train", "--lr", "-1"],
    "by hand": [sys.executable, str(HERE / "by_hand.py")],
    "train": [TWOLAYER, "train"],
    "train autograd": [TWOLAYER, "train", "--engine", "autograd"],
    "10,000 rows quiet": [TWOLAYER, "train", *LONG, "--quiet"],
    "10,000 rows": [TWOLAYER, "train", *LONG],
}
RATIOS = [
    *((name, "imports", "at most 2") for name in ("help", "check", "schema", "refused")),
    ("train", "by hand", "at most 1.05"),
    ("train autograd", "by hand", ""),
]


def seconds(command: list[str]) -> float:
    """How long a process takes, its output read to the end through a pipe."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TWOLAYER_")}
    start = time.perf_counter()
    subprocess.run(command, env=environment, capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> None:
    """Run every command in turn, round after round, and print what it took."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            taken = seconds(command)
            if turn:  # the first is a warm-up
                times[name].append(taken)

    print(f"{rounds} rounds, seconds\n\n| process | median | least | most |\n|---|---|---|---|")
    for name, taken_all in times.items():
        print(f"| {name} | {statistics.median(taken_all):.3f} | {min(taken_all):.3f} | {max(taken_all):.3f} |")
    print("\n| ratio of medians | | held |\n|---|---|---|")
    medians = {name: statistics.median(taken_all) for name, taken_all in times.items()}
    for name, base, held in RATIOS:
        print(f"| {name} / {base} | {medians[name] / medians[base]:.2f} | {held} |")
    rows = medians["10,000 rows"] - medians["10,000 rows quiet"]
    print(f"| 10,000 rows cost | {rows:.3f} s | at most 0.5 s |")


if __name__ == "__main__":
    main()
