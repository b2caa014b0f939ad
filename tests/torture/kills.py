"""Trainings that are stopped at random moments, and resumed: the end must be the same, bit for bit.

python -m tests.torture.kills [--seed N] [--rounds N] [--minutes M]
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.forking import Forked
from tests.helpers.killing import KILLED, PARTS
from tests.torture.driver import Round, Trial, crash, main, run

# Half of the stops are kills, which leave no time for anything.
STOPS = [signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
LONG_EPOCHS = ["long.csv", "--target", "y", "--epochs", "2", "--lr", "0.01", "--checkpoint-every", "0.01s"]
LONG_EPOCHS += ["--set", "batch_size=1", "--set", "validation=null", "--set", "H=8"]


def trainings(folder: Path) -> dict[str, list[str]]:
    """The trainings by name; one of a table whose epochs last long enough for checkpoints within them."""
    lines = [f"{i % 89 / 89:.4f},{i % 97 / 97:.4f},{(i % 89) * (i % 97) / 9000:.4f}" for i in range(20_000)]
    (folder / "long.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
    return {**KILLED, "long epochs": [str(folder / "long.csv"), *LONG_EPOCHS[1:]]}


def make_round(shared: Path) -> Round:
    """Stop trainings at random moments, and resume them to the end."""
    known = trainings(shared)
    seconds: dict[str, float] = {}

    def whole(name: str) -> Path:
        """The run that nobody stopped."""
        path = shared / name.replace(" ", "-")
        if name not in seconds:
            start = time.monotonic()
            done = run(["train", *known[name], "-q", "--out", path], shared)
            assert done.returncode == 0, done.stderr
            seconds[name] = time.monotonic() - start
        return path

    def one(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        name = chosen.choice(list(known))
        ended = whole(name)
        stopped = folder / "run"
        first = ["train", *known[name], "-q", "--out", "run"]
        for _ in range(chosen.randint(1, 3)):
            command = ["train", "--resume", "run", "-q"] if stopped.exists() else first
            stop_at(command, folder, chosen.uniform(0, seconds[name]), chosen.choice(STOPS))
            if wrong := looked_at(folder, ended):
                yield Trial(name, "lost", wrong)
                return
        done = run(["train", "--resume", "run", "-q"] if stopped.exists() else first, folder)
        if done.returncode not in (0, 2):  # 2: the last stop came too late, and there is nothing to resume
            yield Trial(name, "lost", f"exit code {done.returncode}: {done.stderr[-2000:]}")
        elif others := [part for part in PARTS if (stopped / part).read_bytes() != (ended / part).read_bytes()]:
            yield Trial(name, "lost", f"other bytes in {' and '.join(others)}")
        else:
            yield Trial(name, "survived")

    return one


def stop_at(command: list[str], folder: Path, seconds: float, number: signal.Signals) -> None:
    """Start a command, and send it the signal after so many seconds; wait for its end."""
    with Forked(command, folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(seconds)
        process.send_signal(number)
        process.wait()


def looked_at(folder: Path, whole: Path) -> str:
    """What is wrong with a stopped run as `show` and `runs` see it: they must know it, and only rows that are right."""
    if not (folder / "run").exists():
        return ""
    shown, listed = run(["show", "run", "--format", "csv"], folder), run(["runs", "."], folder)
    if wrong := crash(shown) or crash(listed):
        return wrong
    rows = (whole / "history.csv").read_text()
    return "" if rows.startswith(shown.stdout) else "`show` printed rows that the whole run does not have"


if __name__ == "__main__":
    raise SystemExit(main("kills", make_round))
