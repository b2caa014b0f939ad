"""The data, the Engine protocol, and the state that engines save and load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from twolayer.errors import StateError

if TYPE_CHECKING:
    from twolayer.tables.features import Encoding


@dataclass(frozen=True)
class Share:
    """What a process has of N rows and D_in inputs, where that is not all: x[rows, columns] and y[rows].

    `sha256` is the fingerprint of all the data, if these are drawn; None for a table.
    """

    N: int
    D_in: int
    rows: slice
    columns: slice
    sha256: str | None = None


@dataclass(frozen=True)
class Data:
    """The training data: x of shape (N, D_in) and y of shape (N, D_out), one-hot for classes.

    For a table also the validation rows, the encoding of its `columns`, and `notes`, a sentence each: which columns are
    left out, how cells are read. In a group of processes it may be a `share` of all data.
    """

    x: Tensor
    y: Tensor
    validation: Data | None = None
    columns: Encoding | None = None
    notes: tuple[str, ...] = ()
    share: Share | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """N and D_in, of all data."""
        return (len(self.x), self.x.shape[1]) if self.share is None else (self.share.N, self.share.D_in)


class OwnWeights(nn.Sequential):
    """The network with the initial weights of some of its H hidden units, or of some inputs, alone.

    What a process has that computes with these: `units` and `inputs` say which. `sha256` is the fingerprint of all
    weights.
    """

    def __init__(self, first: nn.Linear, second: nn.Linear, H: int, units: slice, inputs: slice, sha256: str) -> None:
        super().__init__(first, nn.ReLU(), second)
        self.H, self.units, self.inputs, self.sha256 = H, units, inputs, sha256


def _nothing() -> None:
    pass


class Engine(Protocol):
    """Advances gradient descent on one model and one data set.

    `check` is called between the products of an iteration, and between the parts of an update or an evaluation, as long
    as the weights are those from before it: it may raise, and what was computed is forgotten then.
    """

    check: Callable[[], None]

    def advance(self, iterations: int) -> Tensor:
        """Do n iterations; the loss BEFORE each update, shape (iterations,), on the device.

        With `loss: cross_entropy` shape (iterations, 2): the loss and the accuracy, which is the share of rows whose
        largest output (the first of equal ones) is that of their class.
        """

    def sync(self) -> None:
        """Write the weights into the model's parameters. The next iterations are the same with or without it."""

    def set_lr(self, lr: float) -> None:
        """Use another learning rate from the next iteration on."""

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs to be the same bit for bit: the tensors themselves, not copies, by name."""

    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state saved after `done` iterations. StateError if its names, shapes or dtypes differ."""


class RowEngine(Engine, Protocol):
    """An engine that also trains on given rows and evaluates on others: autograd, and any engine where `in_parts`.

    Its state is its weights, w1, b1, w2 and b2, and nothing else: who changes them changes the training.
    """

    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these indices (int64, on the device); their loss before it.

        Shape (), or (2,) with the accuracy; written into `out` if given. A mean is over these rows.
        """

    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """An `update` for each batch; writes their losses into `out`, (len(batches),) or (len(batches), 2)."""

    def evaluate(self, data: Data) -> Tensor:
        """The loss of the current weights on these data, shape (), or (2,) with the accuracy."""


class TensorState:
    """An engine whose state is in the attributes that STATE names."""

    lr: float
    STATE: tuple[str, ...] = ("w1", "b1", "w2", "b2")
    done = 0  # iterations
    check: Callable[[], None] = staticmethod(_nothing)

    def set_lr(self, lr: float) -> None:
        """Use another learning rate from the next iteration on."""
        self.lr = lr

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs to be the same bit for bit: the tensors themselves, not copies, by name."""
        return {name: getattr(self, name) for name in self.STATE}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state saved after `done` iterations. StateError if its names, shapes or dtypes differ."""
        own = self.state()
        check_state(own, state)
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.done = done


def views(vector: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Consecutive parts of a vector, viewed with these shapes."""
    sizes = [torch.Size(shape).numel() for shape in shapes]
    return [part.view(shape) for part, shape in zip(torch.split(vector, sizes), shapes, strict=True)]


def constant(value: float | Sequence[float], like: Tensor) -> Tensor:
    """A tensor of this value, of another's dtype and on its device."""
    if isinstance(value, (int, float)):
        return torch.full((), value, dtype=like.dtype, device=like.device)
    return torch.tensor(value, dtype=like.dtype).to(like.device)


# grad_input = grad where input > threshold, else 0: what the backward of ReLU calls. Indexing with a mask, as the
# tutorial does, takes several times as long.
relu_backward = torch.ops.aten.threshold_backward.grad_input
log_softmax_backward = torch.ops.aten._log_softmax_backward_data.out


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise StateError if the names, shapes or dtypes of a saved state are not those of `own`."""
    shapes = [{name: (tensor.shape, tensor.dtype) for name, tensor in each.items()} for each in (own, state)]
    if shapes[0] != shapes[1]:
        names = sorted(name for name in {*own, *state} if shapes[0].get(name) != shapes[1].get(name))
        raise StateError(f"is a state of another training: its {names[0]} is missing, or of another shape or dtype")
