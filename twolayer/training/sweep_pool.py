"""Trains the points of a sweep in several processes; each point as it would be trained alone, bit for bit."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twolayer.config.schema import Config
from twolayer.files import write_all
from twolayer.hardware import threads as machine
from twolayer.sweeps.points import Point
from twolayer.sweeps.results import Result
from twolayer.system.console import OWN_SESSION
from twolayer.training.setup import resolve_auto
from twolayer.training.sweep_points import Ended, Event, Job, Progress
from twolayer.training.sweep_worker import job_document, point_document

_COMMAND = [sys.executable, "-P", "-m", "twolayer.training.sweep_worker"]
_PAUSE = 0.2  # seconds until the workers hear of a request to stop
_HOME = str(Path(__file__).parents[2])  # where the package is imported from


def resolved(points: Iterable[Point]) -> list[Config]:
    """The points' configs with all that is `auto` resolved. Raises TwolayerError where one cannot be trained here."""
    return [resolve_auto(point.config) for point in points]


def most_jobs(threads: int) -> int:
    """How many processes the machine has room for, where a point has that number of threads.

    Each point has the threads that it has alone: fewer would change its last digits.
    """
    return max(1, machine.cores() // threads)


class _Worker:
    """A process, and the point that it trains."""

    def __init__(self, job: Job) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([_HOME, *_given("PYTHONPATH")])}
        # A session of its own: Ctrl-C reaches the process that gives the work alone, which says what is to end.
        self.process = subprocess.Popen(  # noqa: S603 (our own)
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, **OWN_SESSION, bufsize=0
        )
        self.point: Point | None = None
        self.rest = b""
        self.send(job_document(job))

    def send(self, request: dict[str, Any]) -> None:
        """Send a line; one that has ended is noticed when its answer is read."""
        with suppress(OSError):
            if self.process.stdin is not None:
                write_all(self.process.stdin.fileno(), json.dumps(request).encode() + b"\n")

    def close(self) -> None:
        """Close the pipes of one that has ended."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def answers(self) -> list[dict[str, Any]] | None:
        """The lines that have come; None where the process has ended."""
        data = os.read(self.process.stdout.fileno(), 2**20) if self.process.stdout is not None else b""
        if not data:
            return None
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


class Pool:
    """As `sweep_points.Trainer`, with several processes."""

    def __init__(self, job: Job, count: int) -> None:
        self.job, self.count, self.is_stopping, self.exit_code = job, count, False, 130
        self.workers: list[_Worker] = []

    def request_stop(self, exit_code: int) -> None:
        """Stop as soon as possible; safe in a signal handler, which may have interrupted a message to a worker."""
        self.is_stopping, self.exit_code = True, exit_code

    def events(self, points: Sequence[tuple[Point, str]]) -> Generator[Event, None, None]:
        """Train these points; beside each is the name of its run folder, if it has one already."""
        waiting, is_announced = deque(points), False
        with selectors.DefaultSelector() as selector:
            try:
                while waiting and not self.is_stopping and len(self.workers) < self.count:
                    self._start(selector, waiting)
                while any(worker.point is not None for worker in self.workers):
                    if self.is_stopping and not is_announced:
                        is_announced = True
                        for worker in self.workers:
                            worker.send({"stop": self.exit_code})
                    for key, _ in selector.select(_PAUSE):
                        yield from self._heard(key.data, waiting, selector)
            finally:
                self._close()

    def _start(self, selector: selectors.BaseSelector, waiting: deque[tuple[Point, str]]) -> None:
        worker = _Worker(self.job)
        self.workers.append(worker)
        if worker.process.stdout is not None:
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        self._give(worker, waiting)

    def _give(self, worker: _Worker, waiting: deque[tuple[Point, str]]) -> None:
        """The next point, if there is one."""
        worker.point = None
        if waiting and not self.is_stopping:
            worker.point, existing = waiting.popleft()
            worker.send(point_document(worker.point, existing))

    def _heard(
        self, worker: _Worker, waiting: deque[tuple[Point, str]], selector: selectors.BaseSelector
    ) -> Iterator[Event]:
        """What a worker says; one that has ended is replaced."""
        answers = worker.answers()
        if answers is None:
            if worker.process.stdout is not None:
                selector.unregister(worker.process.stdout)
            self.workers.remove(worker)
            code = worker.process.wait()
            worker.close()
            if worker.point is not None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                yield Ended(Result(worker.point, "failed", {}, "", f"its process has ended, with {how}"), {})
            if waiting and not self.is_stopping:
                self._start(selector, waiting)
            return
        for answer in answers:
            if worker.point is None:
                continue
            if "status" not in answer:
                yield Progress(worker.point, answer["done"], answer["total"], answer["loss"])
                continue
            losses = dict(map(tuple, answer.pop("losses")))
            point = worker.point
            self._give(worker, waiting)
            yield Ended(Result(point, **answer), losses)

    def _close(self) -> None:
        for worker in self.workers:
            if worker.process.stdin is not None:
                worker.process.stdin.close()
        for worker in self.workers:
            worker.process.wait()
            if worker.process.stdout is not None:
                worker.process.stdout.close()


def _given(name: str) -> list[str]:
    return [os.environ[name]] if os.environ.get(name) else []
