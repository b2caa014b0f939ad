"""What the drivers of `make torture` share: their options, rounds that can be repeated alone, and the counts."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from tests.helpers.forking import Forked
from tests.helpers.processes import COMPUTE

OUTCOMES = ("survived", "refused", "lost")
ENDS = 120  # seconds; a command that takes longer counts as one that never ends
MEMORY = 4 * 2**30  # bytes that a command may take
# What no command may print on stderr.
CRASHES = ("Traceback (most recent call last)", "panicked at", "Warning: ", "Fatal Python error", "Exception ignored")

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Trial:
    """One thing that was tried: the row that counts it, how it ended, and, where it was lost, what happened."""

    what: str
    outcome: Literal["survived", "refused", "lost"]
    detail: str = ""


# A round takes its own random numbers and its own empty folder.
Round = Callable[[random.Random, Path], Iterator[Trial]]


def run(arguments: Sequence[str | Path], folder: Path, **more: Any) -> Done:
    """Run a command line in a process with little memory; one that does not end is killed, and has the code -9."""
    draws = arguments[0] in ("plot", "report")  # whose JavaScript engine reserves a terabyte
    more = {"memory": 0 if draws else MEMORY, "bare": not COMPUTE.intersection(map(str, arguments)), **more}
    with Forked(arguments, folder, **more) as process:
        try:
            stdout, stderr = process.communicate(timeout=ENDS)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess([], -9, "", f"it did not end within {ENDS} seconds")
    return subprocess.CompletedProcess([], process.wait(), stdout, stderr)


def crash(done: Done) -> str:
    """What is wrong with the way in which a command ended; empty where it worked, or failed with a message."""
    if found := [text for text in CRASHES if text in done.stderr]:
        return f"{found[0]!r} on stderr: {done.stderr[-2000:]}"
    if done.returncode not in (0, 1, 2, 3):
        return f"exit code {done.returncode}: {done.stderr[-2000:]}"
    return "an error without a message" if done.returncode and not done.stderr else ""


def judged(what: str, done: Done, wrong: str = "") -> Trial:
    """A command that ended: lost where it crashed or where its result is `wrong`, refused where it failed."""
    if detail := crash(done) or ("" if done.returncode else wrong):
        return Trial(what, "lost", detail)
    return Trial(what, "refused" if done.returncode else "survived")


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their paths in it; links are not followed."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def main(name: str, make_round: Callable[[Path], Round], arguments: Sequence[str] | None = None) -> int:
    """Run rounds and print the counts; the exit code: 1 if anything was lost, or nothing was tried.

    `make_round` prepares what all rounds share, in a folder that it may fill. A round's random numbers depend on the
    seed and its own number alone, so `--first N --rounds 1` repeats it.
    """
    parser = argparse.ArgumentParser(prog=f"python -m tests.torture.{name}", description=make_round.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, help="how many; without it as many as the minutes allow")
    parser.add_argument("--minutes", type=float, default=None, help="default: 1, or no limit with --rounds")
    parser.add_argument("--first", type=int, default=0, help="the number of the first round")
    given = parser.parse_args(arguments)
    minutes = given.minutes if given.minutes is not None else (1.0 if given.rounds is None else float("inf"))
    # Children inherit ignored signals (of a driver that a script starts with &), and would never stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    counts: Counter[tuple[str, str]] = Counter()
    base = Path(tempfile.mkdtemp(prefix=f"twolayer-{name}-"))
    try:
        (base / "shared").mkdir()
        one_round, end = make_round(base / "shared"), time.monotonic() + 60 * minutes
        rounds = 0
        for number in count(given.first):
            if rounds == given.rounds or time.monotonic() > end:
                break
            for trial in _trials(one_round, f"{given.seed}-{number}", base / str(number)):
                counts[trial.what, trial.outcome] += 1
                if trial.outcome == "lost":
                    print(f"lost in round {number}: {trial.what}: {trial.detail}", flush=True)
            rounds += 1
    finally:
        shutil.rmtree(base)
    print(f"{name}: seed {given.seed}, rounds {given.first} to {given.first + rounds - 1}")
    print(table(counts))
    return int(not counts or any(outcome == "lost" for _, outcome in counts))


def _trials(one_round: Round, seed: str, folder: Path) -> Iterator[Trial]:
    """The trials of a round; its folder is removed. A round that fails itself has lost."""
    folder.mkdir()
    try:
        yield from one_round(random.Random(seed), folder)
    except Exception:  # noqa: BLE001 (the others go on)
        yield Trial("the driver itself", "lost", traceback.format_exc())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(counts: Counter[tuple[str, str]]) -> str:
    """The counts: a row for each thing that was tried, and one for all."""
    names = sorted({what for what, _ in counts})
    width = max(map(len, [*names, "all"]))
    lines = [f"{'':<{width}}  {'tried':>8}{''.join(f'{outcome:>10}' for outcome in OUTCOMES)}"]
    for name in [*names, "all"]:
        row = [sum(counts[what, outcome] for what in names if name in (what, "all")) for outcome in OUTCOMES]
        lines.append(f"{name:<{width}}  {sum(row):>8}{''.join(f'{number:>10}' for number in row)}")
    return "\n".join(lines)
