"""Runs command lines with ranks: a process that has imported everything, and forks all of theirs.

python tests/helpers/rank_commands.py FOLDER TASKS, where TASKS is JSON: a list of mappings with `arguments`; `act`, if
given, is what comes once the run `out` has losses, or without one once something is printed: a rank, and the signal
that it gets. Prints a line of JSON for each: exit code, stdout, stderr, and how many of its processes are left in the
end. With `real` none is forked; with `sections` doctor has these alone; in the rank that the variable WRONG_RANK names
the units are trained at another learning rate.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import torch

from twolayer.cli import main as cli
from twolayer.cli import rank_process, ranks, training_session
from twolayer.engines.by_units import UnitsEngine
from twolayer.hardware import distributed
from twolayer.training import benchmark, scaling, together
from twolayer.training.doctor.examination import Examination

HANGS = 300


class Started:
    """A forked process with the part of `subprocess.Popen` that the command needs."""

    stdin: IO[bytes]

    def __init__(self, errors: IO[bytes]) -> None:
        read, write = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            with contextlib.suppress(OSError):
                os.setsid()
            others = {started.stdin.fileno() for started in ALL}
            for number in (write, *others):
                os.close(number)
            os.dup2(read, 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(errors.fileno(), 2)
            sys.stdin = os.fdopen(0, "r")
            if os.environ.get("WRONG_RANK") == str(len(ALL) + 1):
                right = UnitsEngine.__init__
                UnitsEngine.__init__ = lambda self, *given, lr, **more: right(self, *given, lr=1.01 * lr, **more)  # type: ignore[method-assign]
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            rank_process.main()
        os.close(read)
        self.stdin = os.fdopen(write, "wb")
        ALL.append(self)
        with Path("pids").open("a") as file:
            file.write(f"{self.pid}\n")

    def poll(self) -> int | None:
        if self.returncode is None and (done := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(done[1])
        return self.returncode

    def wait(self, timeout: float = HANGS) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("rank", timeout)
            time.sleep(0.005)
        return self.returncode or 0

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


ALL: list[Started] = []
REAL = ranks._started


def run(task: dict[str, Any]) -> dict[str, Any]:
    pids = Path("pids")
    for name in ("pids", "stdout.txt", "stderr.txt"):
        Path(name).write_text("")
    pid = os.fork()
    if not pid:
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(task.get("environment", {}))
        if "sections" in task:
            of_all = Examination.__init__

            def some(self: Examination, *given: Any) -> None:
                of_all(self, *given)
                self.sections = {name: self.sections[name] for name in task["sections"]}

            Examination.__init__ = some  # type: ignore[method-assign, assignment]
        if task.get("real"):  # where threads of polars run already, none can be forked
            ranks._started = REAL
        code = cli.run(task["arguments"])
        sys.stdout.flush()
        os._exit(code)
    if "act" in task:
        rank, number = task["act"]
        file, size = (Path(task["out"]) / "history.csv", 100) if task.get("out") else (Path("stdout.txt"), 0)
        end = time.monotonic() + HANGS
        while not (file.exists() and file.stat().st_size > size):
            assert time.monotonic() < end
            assert not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), Path("stderr.txt").read_text()
            time.sleep(0.002)
        os.kill([pid, *map(int, pids.read_text().split())][rank], number)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left, end = list(map(int, pids.read_text().split())), time.monotonic() + 20
    while (left := [one for one in left if Path(f"/proc/{one}").exists()]) and time.monotonic() < end:
        time.sleep(0.01)
    return {
        "code": code,
        "stdout": Path("stdout.txt").read_text(),
        "stderr": Path("stderr.txt").read_text(),
        "left": len(left),
    }


if __name__ == "__main__":
    assert training_session
    assert distributed
    assert together
    assert scaling
    benchmark.ROUND_SECONDS = 0.005
    torch.set_num_threads(1)
    ranks._started = Started  # type: ignore[assignment]
    os.chdir(sys.argv[1])
    for task in json.loads(sys.argv[2]):
        print(json.dumps(run(task)), flush=True)
