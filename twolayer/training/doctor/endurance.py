"""`doctor --long`: one product again and again, whose every bit is known, until another bit comes or the time is up."""

from __future__ import annotations

import math
from collections.abc import Iterator

from twolayer.formatting import counted
from twolayer.hardware import threads as cpu_threads
from twolayer.training.benchmark import clock
from twolayer.training.doctor import book
from twolayer.training.doctor.finding import Finding
from twolayer.training.doctor.known_product import KnownProduct, WrongElement

SECONDS = 0.25  # of products, about, between two looks at the clock
PRODUCT_SECONDS = 5e-3
SIZES = (512, 1024, 2048, 4096, 8192)


class Endurance:
    """Products of whole numbers on a device, at all threads; `done` counts them, and `seconds` is how long they took.

    The size is the first whose product takes some milliseconds. Raises DeviceError.
    """

    def __init__(self, device: str) -> None:
        self.device, self.done, self.seconds = device, 0, 0.0
        self.wrong: WrongElement | None = None
        self.config = book.book(device=device, threads=cpu_threads.cores())
        for size in SIZES:
            self.product = KnownProduct(device, size)
            self._once()  # warm-up
            took = self._once()
            if took >= PRODUCT_SECONDS or self.wrong is not None:
                break
        self.repeats = max(1, math.ceil(SECONDS / took))

    def _once(self) -> float:
        """Compute and check one product; the seconds that it took."""
        start = clock(self.device)
        with cpu_threads.set_up(self.config):
            self.wrong = self.wrong or self.product.wrong()
        self.done += 1
        took = clock(self.device) - start
        self.seconds += took
        return took

    def run(self, seconds: float) -> Iterator[float]:
        """Compute products for so long, or to the first other bit; yields the seconds so far, a few times a second."""
        while self.seconds < seconds and self.wrong is None:
            for _ in range(self.repeats):
                if self.wrong is None:
                    self._once()
            yield self.seconds

    @property
    def finding(self) -> Finding:
        """What has been found so far."""
        size = self.product.size
        note, name = f"{counted(self.done, 'product')} of {size} x {size}", "product of whole numbers"
        if self.wrong is None:
            return Finding("long", name, "right", got=self.seconds, unit="s", note=note)
        note = f"{self.wrong.place} of product {self.done:,}"
        return Finding("long", name, "wrong", None, self.done, self.wrong.expected, self.wrong.got, note=note)
