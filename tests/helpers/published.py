"""The published numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path

REFERENCE = Path(__file__).parents[1] / "reference"


def agree_to_three_digits(losses: Iterable[float], others: Iterable[float]) -> bool:
    """Whether each loss is within half a unit of the other's third significant digit."""
    pairs = zip(losses, others, strict=True)
    return all(abs(loss - other) <= 0.5 * 10 ** (math.floor(math.log10(other)) - 2) for loss, other in pairs)


def published(name: str, column: str) -> list[float]:
    """A column of the published numbers."""
    with (REFERENCE / name).open() as file:
        return [float(row[column]) for row in csv.DictReader(file)]
