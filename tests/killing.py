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
    """Print for every round whether it was killed, and in a checkpoint's write, and how the run differs in the end."""
    moments = random.Random(seed)
    whole = folder / "whole"
    start = time.perf_counter()
    assert os.waitpid(child(["train", "--out", str(whole), *arguments]), 0)[1] == 0
    taken = time.perf_counter() - start
    for number in range(rounds):
        run = folder / f"killed-{number}"
        pid = child(["train", "--out", str(run), *arguments])
        # Half of the kills come in the next write of a checkpoint, so they leave time for one.
        time.sleep(moments.random() * taken * (0.5 if number % 2 else 0.9))
        if number % 2:
            end = time.perf_counter() + taken
            while not any((run / "checkpoints").glob("*.part")) and time.perf_counter() < end:
                pass
        os.kill(pid, signal.SIGKILL)
        was_killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        in_write = any((run / "checkpoints").glob("*.part"))
        if was_killed:
            # A kill before there is anything leaves nothing, and what was to be done can be done again.
            again = ["--resume", str(run), "--quiet"] if run.exists() else ["--out", str(run), *arguments]
            code = os.waitstatus_to_exitcode(os.waitpid(child(["train", *again]), 0)[1])
            # Complete already, if the kill came in its very last moment.
            assert code in (0, 2), f"round {number}: exit code {code}"
        same = all((run / part).read_bytes() == (whole / part).read_bytes() for part in PARTS)
        print(number, was_killed, in_write, same, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert recording
    assert session
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
