"""Kills trainings at random moments and resumes them: a process that has torch imported, and forks a child for each.

A moment is a number of rows that are written, and half of the kills come in the next write of a checkpoint. With
`pieces` the trainings are made of pieces of some updates.

python tests/helpers/killing.py FOLDER ROUNDS SEED blocks|pieces ARGUMENTS...
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from twolayer.cli import main as cli
from twolayer.cli import training_session
from twolayer.training import loop, recorder

PARTS = ["history.csv", "model.safetensors", "config.yaml"]

# What is killed: every engine and form, with checkpoints often enough for a kill to meet one.
KILLED = {
    "autograd": ["scratch", "--engine", "autograd", "--epochs", "1000", "--lr", "1e-6", "--checkpoint-every", "120"],
    "manual": ["scratch", "--engine", "manual", "--epochs", "4000", "--lr", "1e-6", "--checkpoint-every", "500"],
    "primal": [
        "scratch",
        "--engine",
        "fused",
        "--set",
        "form=primal",
        "--epochs",
        "4000",
        "--lr",
        "1e-6",
        "--checkpoint-every",
        "500",
    ],
    "dual": [
        "--engine",
        "fused",
        "--set",
        "form=dual",
        "--epochs",
        "2500",
        "--checkpoint-every",
        "300",
    ],  # beyond two folds
    "compiled": [
        *("scratch", "--engine", "compiled", "--epochs", "20000", "--lr", "1e-6", "--checkpoint-every", "2500"),
    ],
    "compiled table": [
        *("diabetes", "--engine", "compiled", "--epochs", "60", "--set", "patience=50", "--checkpoint-every", "8"),
    ],
    "table": ["diabetes", "--epochs", "60", "--set", "patience=50", "--checkpoint-every", "8"],
    "auto": ["scratch", "--lr", "auto", "--epochs", "300", "--checkpoint-every", "40"],
    "within epochs": ["diabetes", "--epochs", "12", "--set", "batch_size=1", "--checkpoint-every", "0.001s"],
}


def child(arguments: list[str]) -> int:
    """The pid of a child that runs the command line."""
    if pid := os.fork():
        return pid
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os._exit(cli.run(arguments))


def is_alive(pid: int) -> bool:
    """Whether the child runs still; leaves it for another wait."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def main(folder: Path, rounds: int, seed: int, arguments: list[str]) -> None:
    """Kill so often, at least once in a checkpoint's write, and print whether the run is the same in the end."""
    moments = random.Random(seed)
    whole = folder / "whole"
    assert os.waitpid(child(["train", "--out", str(whole), *arguments]), 0)[1] == 0
    size = (whole / PARTS[0]).stat().st_size
    killed = in_writes = number = 0
    while killed < rounds or not in_writes:
        assert number < 5 * rounds + 30
        run = folder / f"killed-{number}"
        pid = child(["train", "--out", str(run), *arguments])
        history, least = run / PARTS[0], moments.random() * size * (0.5 if number % 2 else 0.9)
        while is_alive(pid) and not (history.exists() and history.stat().st_size >= least):
            time.sleep(0.001)
        while is_alive(pid) and number % 2 and not any((run / "checkpoints").glob("*.part")):
            time.sleep(0.0001)
        os.kill(pid, signal.SIGKILL)
        was_killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        in_write = any((run / "checkpoints").glob("*.part"))
        killed, in_writes, number = killed + was_killed, in_writes + in_write, number + 1
        if was_killed:
            # A kill before there is anything leaves nothing, and what was to be done can be done again.
            again = ["--resume", str(run), "--quiet"] if run.exists() else ["--out", str(run), *arguments]
            code = os.waitstatus_to_exitcode(os.waitpid(child(["train", *again]), 0)[1])
            # Complete already, if the kill came in its very last moment.
            assert code in (0, 2), f"{run.name}: exit code {code}"
        same = all((run / part).read_bytes() == (whole / part).read_bytes() for part in PARTS)
        print(same, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert recorder
    assert training_session
    loop.BLOCK_SECONDS /= {"blocks": 1, "pieces": 25}[sys.argv[4]]
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[5:])
