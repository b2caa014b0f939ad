"""The sections of doctor, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch

from twolayer.errors import DeviceError
from twolayer.formatting import setting
from twolayer.hardware.device import device_name, resolve_device
from twolayer.hardware.environment import environment
from twolayer.training.doctor import answers, problems, speed
from twolayer.training.doctor.determinism import determinism
from twolayer.training.doctor.endurance import Endurance
from twolayer.training.doctor.equal_ranks import equal_ranks
from twolayer.training.doctor.finding import Finding, Section, attempted

if TYPE_CHECKING:
    from twolayer.hardware.distributed import Ranks


class Examination:
    """One look at a machine: `environment` first, then `device`, and then the sections, each when it is called.

    A section does not raise for what the machine does: an engine that fails is a wrong answer. `meet` starts and meets
    other processes, for a section on ranks.
    """

    def __init__(self, device: str, meet: Callable[[], Ranks] | None = None) -> None:
        self.wanted, self.device = device, ""
        self.load = speed.load()
        self.sections: dict[Section, Callable[[], Iterable[Finding]]] = {
            "answers": lambda: answers.known_answers(self.device),
            "determinism": lambda: determinism(self.device),
            "speed": lambda: speed.speed(self.device, self.load),
        }
        if meet is not None:
            self.sections["ranks"] = lambda: equal_ranks(self.device, meet)

    def environment(self) -> Iterator[Finding]:
        """Facts that can be shown to anybody."""
        for name, value in environment().items():
            yield Finding("environment", name, "fact", got=value)

    def find_device(self) -> Iterator[Finding]:
        """The device, or why it cannot be used; and the engines that are left out on it."""
        try:
            self.device = resolve_device(self.wanted)
        except DeviceError as error:
            yield Finding("device", self.wanted, "wrong", note=str(error))
            return
        has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
        hint = f"{setting('device', 'auto')} checks the GPU" if self.device == "cpu" and has_gpu else None
        yield Finding("device", device_name(self.device), "fact", note=hint)
        for name in problems.names():
            if why := problems.why_left_out(name, self.device):
                yield Finding("device", f"engine {name}", "left out", name, note=why)

    def section(self, name: Section) -> Iterator[Finding]:
        """The findings of one section, one after another."""
        return attempted(name, self.sections[name]())

    def long(self, seconds: float, progress: Callable[[float, int], object]) -> Iterator[Finding]:
        """The same product for so long; `progress` gets the seconds and the products so far.

        Interrupted, it gives what was found so far, and then raises KeyboardInterrupt.
        """
        return attempted("long", self._long(seconds, progress))

    def _long(self, seconds: float, progress: Callable[[float, int], object]) -> Iterator[Finding]:
        products = Endurance(self.device)
        try:
            for done in products.run(seconds):
                progress(done, products.done)
        except KeyboardInterrupt:
            yield products.finding
            raise
        yield products.finding
