"""Trainings by several ranks on this machine: their processes, and what they leave."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.helpers.forking import HANGS, Forked, clean_environment
from twolayer.runs.checkpoint import unpack
from twolayer.runs.checksum import read_tensors
from twolayer.runs.run_files import INFO

# What differs between two runs of the same numbers: when, where and how fast they ran.
OF_THE_PLACE = {"seconds", "started", "ended", "ranks", "hosts", "back_end", "resumed", "sha256"}


@dataclass(frozen=True)
class Ended:
    """How a training ended, and how many of its other processes are left, with the folders where they met."""

    code: int
    stdout: str
    stderr: str
    left: list[str]


class Training:
    """A training of a forked process and those that it starts; `folder` is its own, and of no other training."""

    def __init__(self, folder: Path, *words: str | Path, variables: dict[str, str] | None = None, **more: Any) -> None:
        self.folder = folder
        environment = clean_environment(TMPDIR=str(folder), **(variables or {}))
        self.process = Forked(["train", *words], folder, environment, **more)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *more: object) -> None:
        self.process.__exit__(kind, *more)

    def signal(self, rank: int, number: int) -> bool:
        """Send a rank a signal, and wait until it has come; whether there was such a rank."""
        pid = others(self.folder).get(rank) if rank else self.process.pid
        if pid is None or self.process.poll() is not None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        with suppress(OSError):  # it may have ended
            while _pending(pid) and number != signal.SIGKILL:  # of two that wait, it would get one
                time.sleep(0.001)
        return True

    def has_losses(self, run: str = "run") -> None:
        """Wait until the history of its run has a few rows."""
        history = self.folder / run / "history.csv"
        wait(lambda: history.exists() and history.stat().st_size > 100, self.process)

    def end(self) -> Ended:
        """Wait for its end, and for that of the other processes."""
        stdout, stderr = self.process.communicate()
        code, end = self.process.wait(), time.monotonic() + 20
        while (left := remains(self.folder)) and time.monotonic() < end:
            time.sleep(0.01)
        return Ended(code, stdout, stderr, left)


def wait(done: Callable[[], object], process: Forked) -> None:
    """Wait for something that a process does."""
    end = time.monotonic() + HANGS
    while not done():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def train(folder: Path, *words: str | Path, **more: Any) -> Ended:
    """A training to its end."""
    with Training(folder, *words, **more) as training:
        return training.end()


def _pending(pid: int) -> int:
    """The signals that a process has not got yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(mask, 16) for mask in re.findall(r"(?:Sig|Shd)Pnd:\s*(\w+)", status))


def others(folder: Path) -> dict[int, int]:
    """The pids of the processes that trainings in this folder have started, by rank: by where their errors go."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                errors = str((process / "fd" / "2").readlink()).removesuffix(" (deleted)")
            except OSError:
                continue
            if errors.startswith(f"{folder}/twolayer-ranks-") and (rank := re.search(r"/rank-(\d+)$", errors)):
                found[int(rank[1])] = int(process.name)
    return found


def remains(folder: Path) -> list[str]:
    """The processes that are left of trainings in this folder, and the folders where they met."""
    return [*map(str, others(folder).values()), *(path.name for path in folder.glob("twolayer-ranks-*"))]


def launched(rank: int, size: int, port: int, address: str = "127.0.0.1") -> dict[str, str]:
    """The variables of a process among some that were started by hand; the first one listens."""
    where = {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), **where}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def numbers(run: Path) -> dict[str, Any]:
    """All that a run has of its numbers: losses, weights, the tensors of checkpoints, and the figures of run.json."""
    found: dict[str, Any] = {name: (run / name).read_bytes() for name in ("history.csv", "model.safetensors")}
    for path in (run / "checkpoints").iterdir():
        with path.open("rb") as file:
            tensors, metadata = unpack(read_tensors(file))
        values = {name: (str(tensor.dtype), tensor.numpy().tobytes()) for name, tensor in tensors.items()}
        kept = {key: value for key, value in metadata.items() if key not in ("seconds", "sha256")}
        found[path.name] = values, kept
    info = json.loads((run / INFO).read_text())
    return found | {key: value for key, value in info.items() if key not in OF_THE_PLACE}


def differences(one: Path, other: Path) -> list[str]:
    """The names of all numbers that two runs do not have alike, bit for bit."""
    first, second = numbers(one), numbers(other)
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def sets(*pairs: str) -> Sequence[str]:
    """Options that set these keys."""
    return [word for pair in pairs for word in ("--set", pair)]
