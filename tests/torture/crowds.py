"""Many commands at once in one folder: each run has one owner, none is damaged, and readers never fail.

python -m tests.torture.crowds [--seed N] [--rounds N] [--minutes M]
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.forking import Forked
from tests.helpers.killing import PARTS
from tests.torture.driver import ENDS, Done, Round, Trial, crash, main, run

TRAINING = ["scratch", "--engine", "manual", "--epochs", "1500", "--lr", "1e-6", "--checkpoint-every", "200", "-q"]
READERS = [["runs"], ["runs", "--format", "jsonl"], ["show", "scratch-1"], ["show", "one", "--format", "csv"]]
READERS += [["compare", "scratch-1", "one"], ["show", "scratch-2", "--format", "jsonl"]]


def make_round(shared: Path) -> Round:
    """Start many trainings at once in one folder, with new runs, the same run and readers; kill some."""
    done = run(["train", *TRAINING, "--out", "whole"], shared)
    assert done.returncode == 0, done.stderr
    whole, longer = shared / "whole", shared / "longer"
    done = run(["train", *TRAINING, "--epochs", "3000", "--out", "longer"], shared)
    assert done.returncode == 0, done.stderr

    def one(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        many = chosen.randint(2, 6)
        waves = [
            ["new runs", ["train", *TRAINING]],
            ["the same --out", ["train", *TRAINING, "--out", "runs/one"]],
            ["the same --resume", ["train", "--resume", "runs/one", "--epochs", "3000", "-q"]],
        ]
        started = chosen.choice(waves[:2])
        kills = chosen.random() < 0.5
        yield from wave(str(started[0]), list(started[1]), many, chosen, folder, kills)
        if (folder / "runs/one").exists() or started[0] == "new runs":
            if started[0] == "new runs":
                for path in sorted((folder / "runs").glob("[!.]*"))[:1]:
                    path.rename(folder / "runs/one")
            yield from wave(str(waves[2][0]), list(waves[2][1]), many, chosen, folder, False)
        for path in sorted((folder / "runs").glob("[!.]*")):
            epochs, ended = ("3000", longer) if path.name == "one" else ("1500", whole)
            rest = run(["train", "--resume", str(path), "--epochs", epochs, "-q"], folder)
            if rest.returncode not in (0, 2):
                yield Trial("runs in the end", "lost", f"{path.name} cannot go on: {rest.stderr}")
            elif other := [part for part in PARTS[:2] if (path / part).read_bytes() != (ended / part).read_bytes()]:
                yield Trial("runs in the end", "lost", f"other bytes in {' and '.join(other)} of {path.name}")
            else:
                yield Trial("runs in the end", "survived")

    return one


def wave(what: str, command: list[str], many: int, chosen: random.Random, folder: Path, kills: bool) -> Iterator[Trial]:
    """Start a command many times at once, beside readers, and perhaps kill some."""
    before = names(folder)
    processes = [Forked(command, folder) for _ in range(many)]
    killed = chosen.sample(processes, many // 2) if kills else []
    time.sleep(chosen.uniform(0, 0.4))
    for process in killed:
        process.send_signal(signal.SIGKILL)
    for reader in chosen.sample(READERS, 3):
        read = run(reader, folder)
        # A run may not be there yet; one that is there is read without a complaint.
        is_absent = read.returncode in (1, 2) and ("no such run" in read.stderr or "not a run" in read.stderr)
        detail = crash(read) or ("" if not read.returncode or is_absent else read.stderr)
        yield Trial(f"readers beside {what}", "lost" if detail else "survived", f"{' '.join(reader)}: {detail}")
    ended = [end(process) for process in processes]
    for process, done in zip(processes, ended, strict=True):
        if process in killed:
            continue
        if detail := crash(done):
            yield Trial(what, "lost", detail)
        else:
            yield Trial(what, "refused" if done.returncode else "survived")
    won = sum(done.returncode == 0 for done in ended)
    made = names(folder) - before
    if what == "new runs" and any(done.returncode > 0 for done in ended):
        yield Trial(what, "lost", f"a new run was refused: {[done.stderr for done in ended]}")
    if what == "new runs" and won > len(made):
        yield Trial(what, "lost", f"{won} trainings ended well, and there are {len(made)} runs")
    if what == "the same --out" and not killed and won != 1:
        yield Trial(what, "lost", f"{won} trainings in one folder ended well")
    if what == "the same --resume" and won > 1:
        yield Trial(what, "lost", f"{won} trainings of one run ended well")


def names(folder: Path) -> set[str]:
    """The runs in a folder."""
    return {path.name for path in (folder / "runs").glob("[!.]*")}


def end(process: Forked) -> Done:
    """How a process ended; one that does not end is killed."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=ENDS)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess([], -9, "", f"it did not end within {ENDS} seconds")
        return subprocess.CompletedProcess([], process.wait(), stdout, stderr)


if __name__ == "__main__":
    raise SystemExit(main("crowds", make_round))
