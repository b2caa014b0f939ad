"""How often a training writes a checkpoint: the option `--checkpoint-every`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from twolayer.errors import RunError


@dataclass(frozen=True)
class CheckpointInterval:
    """A checkpoint every `iterations` iterations, or every `seconds` seconds; `text` is how the user wrote it."""

    text: str
    iterations: int = 0
    seconds: float = math.inf


def parse(text: str) -> CheckpointInterval:
    """Read `500` as iterations and `30s` as seconds. Raises RunError for anything else."""
    if re.fullmatch(r"[0-9]{1,18}", text) and int(text):
        return CheckpointInterval(text, iterations=int(text))
    if re.fullmatch(r"[0-9]{1,18}s|[0-9]{1,9}\.[0-9]{1,9}s", text):
        return CheckpointInterval(text, seconds=float(text.removesuffix("s")))
    raise RunError(f"--checkpoint-every: must be iterations (500) or seconds (30s), not {text!r}", usage=True)
