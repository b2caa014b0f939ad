"""What engines share: the data, the protocol, and the tensors that are their state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from twolayer.errors import StateError

if TYPE_CHECKING:
    from twolayer.tables.features import Encoding


@dataclass(frozen=True)
class Data:
    """What is trained on: x of shape (N, D_in) and y of shape (N, D_out), for classes one-hot.

    Of a file, also the rows that were held out, and the `columns` that x and y were made from.
    """

    x: Tensor
    y: Tensor
    validation: Data | None = None
    columns: Encoding | None = None


class Engine(Protocol):
    """Advances gradient descent on one model and one data set."""

    def advance(self, iterations: int) -> Tensor:
        """Do so many iterations; the loss BEFORE each update, shape (iterations,), on the device.

        With `loss: cross_entropy` of shape (iterations, 2): the loss, and the part of the rows that it has right,
        which are those whose largest output, of equals the first, is their class.
        """

    def sync(self) -> None:
        """Write the working state into the model's parameters; changes nothing of what `advance` goes on to do."""

    def set_lr(self, lr: float) -> None:
        """Take another step from the next iteration on."""

    def state(self) -> dict[str, Tensor]:
        """All that a continuation needs to be the same bit for bit: the working tensors themselves, by name."""

    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Go on from the state that such an engine had after so many iterations. Raises DataError for another's."""


class RowEngine(Engine, Protocol):
    """One that also takes rows by their numbers, and other rows to judge by: autograd, and where `in_parts`, all."""

    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these numbers, int64 and on the device; their loss before it.

        Of shape (), or (2,) with the accuracy; written into `out` where given. A mean is over these rows.
        """

    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """One `update` after the other; their losses go into `out`, (len(batches),) or (len(batches), 2)."""

    def evaluate(self, data: Data) -> Tensor:
        """The loss of the weights as they are on these data, shape (), or (2,) with the accuracy."""


class TensorState:
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


def views(vector: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Views of these shapes, one after the other."""
    sizes = [torch.Size(shape).numel() for shape in shapes]
    return [part.view(shape) for part, shape in zip(torch.split(vector, sizes), shapes, strict=True)]


# grad_input = grad where input > threshold, else 0: what ReLU's own backward calls. Indexing with a mask, as the
# tutorial does, takes several times as long.
relu_backward = torch.ops.aten.threshold_backward.grad_input
log_softmax_backward = torch.ops.aten._log_softmax_backward_data.out


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise StateError where the tensors of a state do not have the names, shapes and dtypes of a training's own."""
    shapes = [{name: (tensor.shape, tensor.dtype) for name, tensor in each.items()} for each in (own, state)]
    if shapes[0] != shapes[1]:
        names = sorted(name for name in {*own, *state} if shapes[0].get(name) != shapes[1].get(name))
        raise StateError(f"is a state of another training: its {names[0]} is missing, or of another shape or dtype")
