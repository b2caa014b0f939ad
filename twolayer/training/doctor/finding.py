"""What doctor finds: facts, checks and figures, all of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

Section = Literal["environment", "device", "answers", "determinism", "speed", "ranks", "long", "verdict"]
Status = Literal["fact", "right", "wrong", "no record", "left out"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    `got` is the fact, the figure, or what was computed, in `unit`; of a check also what was `expected` and, where
    rounding is allowed, the largest `error` and its `bound`. `iteration` counts from 1.
    """

    section: Section
    name: str
    status: Status
    engine: str | None = None
    iteration: int | None = None
    expected: float | str | None = None
    got: float | str | None = None
    error: float | None = None
    bound: float | None = None
    unit: str | None = None
    note: str | None = None

    def values(self) -> list[Any]:
        """The values in the order of COLUMNS."""
        return [getattr(self, name) for name in COLUMNS]


def judged(is_right: bool) -> Status:
    """The status of a check."""
    return "right" if is_right else "wrong"


COLUMNS = tuple(field.name for field in fields(Finding))


def attempted(section: Section, findings: Iterable[Finding], engine: str | None = None) -> Iterator[Finding]:
    """The findings, and where one cannot be made, why: whatever fails on a machine is what doctor looks for."""
    try:
        yield from findings
    except Exception as error:  # noqa: BLE001
        message = str(error).strip().partition("\n")[0]
        yield Finding(section, "runs", "wrong", engine, note=f"{type(error).__name__}: {message}")
