"""Whole processes side by side, from start to exit: medians of interleaved runs, and their ratios.

    python benchmarks/process.py [rounds] [--json PATH]

`by hand` is by_hand.py; each other program that is not ours is peers.py with its name: 500 printed losses, which agree.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import harness

HERE = Path(__file__).parent
TWOLAYER = str(Path(sys.executable).with_name("twolayer"))
LONG = ["--set", "N=4", "--set", "D_in=4", "--set", "H=4", "--set", "D_out=1", "--epochs", "10000"]

PEERS = ["torch.optim.SGD", "numpy", "JAX", "scikit-learn", "skorch", "Lightning"]

COMMANDS = {
    "imports": [sys.executable, "-c", "import typer, rich, yaml, pydantic"],
    "help": [TWOLAYER, "--help"],
    "check": [TWOLAYER, "check"],
    "schema": [TWOLAYER, "schema"],
    "refused": [TWOLAYER, "train", "--lr", "-1"],
    "by hand": [sys.executable, str(HERE / "by_hand.py")],
    **{name: [sys.executable, str(HERE / "peers.py"), name] for name in PEERS},
    "train": [TWOLAYER, "train"],
    "train autograd": [TWOLAYER, "train", "--engine", "autograd"],
    "10,000 rows quiet": [TWOLAYER, "train", *LONG, "--quiet"],
    "10,000 rows": [TWOLAYER, "train", *LONG],
}
RATIOS = [
    *((name, "imports", "at most 2") for name in ("help", "check", "schema", "refused")),
    ("train", "by hand", "at most 1.05"),
    *(("train", name, "") for name in PEERS),
    ("train autograd", "by hand", ""),
]


def run(name: str) -> tuple[float, str]:
    """How many seconds a process takes, its output read to the end through a pipe, and that output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TWOLAYER_")}
    start = time.perf_counter()
    done = subprocess.run(COMMANDS[name], env=environment, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - start
    if (done.returncode != 0) != (name == "refused"):
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr}")
    return taken, done.stdout


def losses(output: str) -> list[float]:
    """The losses that a peer printed."""
    return [float(line.split()[1]) for line in output.splitlines()]


def main() -> None:
    """Run every command in turn, round after round, and print what it took."""
    options = harness.options(__doc__ or "", rounds=9)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(options.rounds + 1):
        expected: list[float] = []
        for name in COMMANDS:
            taken, output = run(name)
            if name in PEERS:
                expected = expected or losses(output)
                harness.check(name, losses(output), expected)
            if turn:  # the first is a warm-up
                times[name].append(round(taken, 4))

    print(f"{options.rounds} rounds, seconds\n\n| process | median | min | max |\n|---|---|---|---|")
    for name, taken_all in times.items():
        print(f"| {name} | {statistics.median(taken_all):.3f} | {min(taken_all):.3f} | {max(taken_all):.3f} |")
    print("\n| ratio of medians | | held |\n|---|---|---|")
    medians = {name: statistics.median(taken_all) for name, taken_all in times.items()}
    for name, base, held in RATIOS:
        print(f"| {name} / {base} | {medians[name] / medians[base]:.2f} | {held} |")
    rows = medians["10,000 rows"] - medians["10,000 rows quiet"]
    print(f"| 10,000 rows cost | {rows:.3f} s | at most 0.5 s |")
    harness.save(options.json, {"rounds": options.rounds, "seconds": times})


if __name__ == "__main__":
    main()
