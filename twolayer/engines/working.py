"""What engines share: the tensors that are their working state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from twolayer.errors import StateError


class Working:
    """An engine whose working state is in the attributes that STATE names."""

    lr: float
    STATE: tuple[str, ...] = ("w1", "b1", "w2", "b2")
    done = 0  # iterations

    def set_lr(self, lr: float) -> None:
        """Take another step from the next iteration on."""
        self.lr = lr

    def state(self) -> dict[str, Tensor]:
        """All that a continuation needs to be the same bit for bit: the working tensors themselves, by name."""
        return {name: getattr(self, name) for name in self.STATE}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Go on from the state that such an engine had after so many iterations. Raises StateError for another's."""
        own = self.state()
        check_state(own, state)
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.done = done


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise StateError where the tensors of a state do not have the names, shapes and dtypes of a training's own."""
    shapes = [{name: (tensor.shape, tensor.dtype) for name, tensor in each.items()} for each in (own, state)]
    if shapes[0] != shapes[1]:
        names = sorted(name for name in {*own, *state} if shapes[0].get(name) != shapes[1].get(name))
        raise StateError(f"is a state of another training: its {names[0]} is missing, or of another shape or dtype")


def views(vector: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Views of these shapes, one after the other."""
    sizes = [torch.Size(shape).numel() for shape in shapes]
    return [part.view(shape) for part, shape in zip(torch.split(vector, sizes), shapes, strict=True)]
