"""A process that trains points of a sweep: jobs as JSON lines on stdin, progress and results on stdout.

It ends when stdin does, at once: then the process that gave it work is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

from twolayer.config.schema import Config
from twolayer.runs import checkpoint_interval
from twolayer.sweeps.points import Point
from twolayer.training.sweep_points import Ended, Job, Progress, Trainer

_PAUSE = 0.1  # seconds between two lines of progress


def job_document(job: Job) -> dict[str, Any]:
    """A job as JSON."""
    folder = str(job.folder) if job.folder is not None else None
    return {
        "source": job.source, "folder": folder, "every": job.every.text, "note": job.note,
        "tensorboard": job.tensorboard, "rows": list(job.rows), "moved": dict(job.moved),
    }  # fmt: skip


def point_document(point: Point, existing: str) -> dict[str, Any]:
    """A point as JSON, and the name of its run folder if it has one already."""
    config = point.config.model_dump()
    return {"number": point.number, "name": point.name, "values": {}, "config": config, "existing": existing}


def _job(given: dict[str, Any]) -> Job:
    folder = Path(given.pop("folder")) if given["folder"] is not None else None
    return Job(folder=folder, every=checkpoint_interval.parse(given.pop("every")), **_without(given, "folder"))


def _without(given: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != key}


def main(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Train the points that come, until stdin ends."""
    trainer = Trainer(_job(json.loads(stdin.readline())))
    waiting: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def listen() -> None:
        for line in stdin:
            request = json.loads(line)
            if "stop" in request:
                trainer.request_stop(request["stop"])
            waiting.put(request)
        os._exit(0)

    Thread(target=listen, daemon=True).start()

    def send(answer: dict[str, Any]) -> None:
        stdout.write(json.dumps(answer).encode() + b"\n")
        stdout.flush()

    while "stop" not in (request := waiting.get()):
        existing = request.pop("existing")
        point = Point(**{**request, "config": Config.model_validate(request["config"])})
        sent_at = 0.0
        for event in trainer.train(point, existing):
            if isinstance(event, Ended):
                result = event.result
                send({
                    "status": result.status, "figures": dict(result.figures), "path": result.path,
                    "error": result.error, "losses": list(event.losses.items()),
                })  # fmt: skip
            elif isinstance(event, Progress) and time.monotonic() - sent_at > _PAUSE:
                sent_at = time.monotonic()
                send({"done": event.done, "total": event.total, "loss": event.loss})


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gives the work
    _answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else is written among the answers
    main(sys.stdin.buffer, _answers)
    _answers.flush()
    os._exit(0)  # a thread still waits for stdin, and Python cannot end while it does
