"""Kills trainings at random moments and resumes them: a process that has torch imported, and forks a child for each.

python tests/killing.py FOLDER ROUNDS SEED ARGUMENTS...
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from twolayer import cli, recording, session

PARTS = ["history.csv", "model.safetensors", "config.yaml"]


def child(arguments: list[str]) -> int:
    """The pid of a child that runs the command line."""
    if pid := os.fork():
        return pid
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os._exit(cli.run(arguments))


def main(folder: Path, rounds: int, seed: int, arguments: list[str]) -> None:
    """Print for every round when it was killed, what was there then, and how the resumed run differs."""
    moments = random.Random(seed)
    whole = folder / "whole"
    start = time.perf_counter()
    assert os.waitpid(child(["train", "--out", str(whole), *arguments]), 0)[1] == 0
    taken = time.perf_counter() - start
    for number in range(rounds):
        run = folder / f"killed-{number}"
        pid = child(["train", "--out", str(run), *arguments])
        while not (run / "run.json").exists():
            time.sleep(1e-4)
        time.sleep(moments.random() * taken)
        os.kill(pid, signal.SIGKILL)
        was_killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        if was_killed:
            code = os.waitstatus_to_exitcode(os.waitpid(child(["train", "--resume", str(run), "--quiet"]), 0)[1])
            # Complete already, if the kill came in its very last moment.
            assert code in (0, 2), f"round {number}: exit code {code}"
        same = [(run / part).read_bytes() == (whole / part).read_bytes() for part in PARTS]
        print(number, was_killed, *same, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert recording
    assert session
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
