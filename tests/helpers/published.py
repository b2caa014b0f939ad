"""The published numbers of torch for R; those of the rTorch book come with twolayer."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from twolayer.training.doctor.book import agrees_to_three_digits

REFERENCE = Path(__file__).parents[1] / "reference"


def agree_to_three_digits(losses: Iterable[float], others: Iterable[float]) -> bool:
    """Whether each loss is within half a unit of the other's third significant digit."""
    return all(agrees_to_three_digits(loss, other) for loss, other in zip(losses, others, strict=True))


def published(name: str, column: str) -> list[float]:
    """A column of the published numbers."""
    with (REFERENCE / name).open() as file:
        return [float(row[column]) for row in csv.DictReader(file)]
