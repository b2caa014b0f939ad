"""Ranks that are killed at random moments: one message, no process left, and on any number of ranks the same end.

python -m tests.torture.ranks [--seed N] [--rounds N] [--minutes M]
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.killing import PARTS
from tests.helpers.ranks import Ended, Training, sets, train
from tests.torture.driver import CRASHES, Round, Trial, main

SETS = [*sets("N=16", "D_in=24", "H=12", "D_out=3", "epochs=300", "lr=0.001"), "-q", "--checkpoint-every", "20"]
TRAININGS = {
    "units, primal": [*SETS, *sets("split=units", "form=primal")],
    "units, dual": [*SETS, *sets("split=units", "form=dual")],
    "rows": [*SETS, *sets("split=rows", "epochs=200")],
    "batches": [*SETS, *sets("split=rows", "batch_size=5", "epochs=40")],
    "inputs": [*SETS, *sets("split=inputs", "form=dual")],
    "auto": [*SETS, *sets("split=units", "lr=auto", "epochs=200")],
}
# Half of the ends are kills, which leave no time for anything.
STOPS = [signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def make_round(shared: Path) -> Round:
    """Stop a rank of a training at a random moment, and resume the training with another number of ranks."""
    seconds: dict[str, float] = {}

    def whole(name: str) -> Path:
        """The run of one process that nobody stopped."""
        path = shared / name.replace(", ", "-")
        if name not in seconds:
            path.mkdir()
            done = train(path, *TRAININGS[name], "--set", "parts=12", "--out", "run")
            assert done.code == 0, done.stderr
            start = time.monotonic()
            done = train(path, *TRAININGS[name], "--ranks", "2", "--out", "two")
            assert done.code == 0, done.stderr
            seconds[name] = time.monotonic() - start
        return path / "run"

    def one(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        name, ranks = chosen.choice(list(TRAININGS)), chosen.randint(2, 4)
        ended, rank, number = whole(name), chosen.randrange(ranks), chosen.choice(STOPS)
        number = signal.SIGTERM if rank and number == signal.SIGINT else number  # ranks ignore Ctrl-C, but the first
        what = f"{number.name} to {'another rank' if rank else 'the first rank'}"
        after = chosen.uniform(0, seconds[name] * ranks / 2)
        with Training(folder, *TRAININGS[name], "--ranks", str(ranks), "--out", "run") as training:
            time.sleep(after)
            came = training.signal(rank, number)
            done = training.end()
        if detail := wrong(done, rank, number, came=came):
            yield Trial(what, "lost", f"{name}, rank {rank} of {ranks}, after {after:.2f} s: {detail}")
            return
        again = chosen.choice([count for count in range(1, 5) if count != ranks])
        words = ["--resume", "run", "-q"] if (folder / "run").exists() else [*TRAININGS[name], "--out", "run"]
        more = ["--ranks", str(again)] if again > 1 else [] if "--resume" in words else sets("parts=12")
        rest = train(folder, *words, *more)
        left = set(rest.left) - set(done.left)
        if rest.code not in (0, 2) or left:  # 2: it is completed, and there is nothing to resume
            yield Trial(
                what, "lost", f"{name}: by {again} ranks: exit code {rest.code}, left {rest.left}: {rest.stderr}"
            )
        elif other := [part for part in PARTS if (folder / "run" / part).read_bytes() != (ended / part).read_bytes()]:
            yield Trial(what, "lost", f"{name}: by {again} ranks: other bytes in {' and '.join(other)}")
        else:
            yield Trial(what if came else "a signal that came too late", "survived")

    return one


def wrong(done: Ended, rank: int, number: int, *, came: bool) -> str:
    """What is wrong with how a training ended of which a rank got a signal; empty where nothing is."""
    said = f"exit code {done.code}: {done.stderr[-2000:]}"
    # One that is killed before it has told the others where they meet leaves that folder.
    if left := [one for one in done.left if done.code >= 0 or one.isdigit()]:
        return f"left {left}; {said}"
    if [text for text in CRASHES if text in done.stderr]:
        return said
    errors = sum("error: " in line for line in done.stderr.splitlines())
    if done.code == 0 and not errors:  # the signal came when all was done
        return ""
    if not came:
        return f"no signal came; {said}"
    if rank == 0 and number == signal.SIGKILL:
        return "" if (done.code, done.stderr) == (-number, "") else said
    if number == signal.SIGKILL:
        expected = f"error: rank {rank} was killed by signal 9 (SIGKILL)"
        return "" if (done.code, errors) == (1, 1) and expected in done.stderr.splitlines() else said
    if rank == 0 and done.code == -number:  # before anything has begun
        return ""
    codes = (130,) if number == signal.SIGINT else (143,)
    return "" if done.code in ((1, 143) if rank else codes) and errors <= bool(rank) else said


if __name__ == "__main__":
    raise SystemExit(main("ranks", make_round))
