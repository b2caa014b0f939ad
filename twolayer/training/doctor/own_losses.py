"""The book's losses beside those of this machine."""

from __future__ import annotations

from dataclasses import dataclass

from twolayer.hardware.device import resolve_device
from twolayer.training.doctor import answers, book, problems
from twolayer.training.doctor.finding import Finding
from twolayer.training.doctor.problems import Problem


@dataclass(frozen=True)
class OwnLosses:
    """The published losses and those computed here, by the book's own loop, each before its update."""

    published: tuple[float, ...]
    here: list[float]
    agreement: Finding

    def rows(self) -> list[tuple[int, float, float, float]]:
        """Iteration, published loss, loss here, and the difference relative to the published one."""
        pairs = enumerate(zip(self.published, self.here, strict=True), 1)
        return [(t, published, here, (here - published) / published) for t, (published, here) in pairs]


def own_losses(device: str) -> OwnLosses:
    """Train with the book's config by autograd. Raises DeviceError."""
    problem, published = Problem.of(book.book(device=resolve_device(device))), book.published_losses()
    here = problems.trace(problem.engines()["autograd"], problem, [len(published)]).losses.tolist()
    return OwnLosses(published, here, answers.compare_losses("autograd", here, published))
