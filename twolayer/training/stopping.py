"""A request to end a training soon, made by a signal handler or another thread."""

from __future__ import annotations


class Abandoned(Exception):  # noqa: N818 (no error)
    """Ends a computation of which nothing is kept."""


class StopRequest:
    """Whether a stop `is_made`, and whether what is being computed may be abandoned (`can_abandon`)."""

    def __init__(self) -> None:
        self.is_made, self.can_abandon = False, False

    def check(self) -> None:
        """Raise Abandoned if a stop was requested, and the computation may be abandoned."""
        if self.is_made and self.can_abandon:
            raise Abandoned
