"""The dual form in parts of the input columns: an update exchanges nothing.

K = X X' + 1 is a sum over the columns, made once, and so is Z0 at the start and at each fold. All else is computed by
all processes alike; each has the columns of X, and the weights of the first layer, that are its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twolayer.engines.base import Data, OwnWeights
from twolayer.engines.dual import DualForm
from twolayer.engines.losses import Objective
from twolayer.engines.parts import ALONE, Group, Sum, edges, pieces
from twolayer.engines.state_in_parts import StateInParts

COLUMNS = 4096


class InputsEngine(StateInParts, DualForm):
    """The dual form (see `dual`) in parts of the inputs; this process has those that are its own in the group.

    The model of a process that is not the first may be of its own inputs alone (`OwnWeights`). `sync` is for all
    processes at once; the first one alone gets the weights of all inputs.
    """

    STATE = ("base_b1", "s", "b")

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, parts: int, group: Group = ALONE
    ) -> None:
        super().__init__(model, data, objective, lr=lr)
        self.parts, self.group = parts, group
        (N, self.D_in), H = data.shape, len(self.w1)
        count, first = len(edges(self.D_in, parts)) - 1, 0 if data.share is None else data.share.columns.start
        self.size, self.rows = self.D_in, {"base_w1_t": (H,)}
        self.pieces = pieces(self.D_in, parts, group)
        own = [self.x[:, some.start - first : some.stop - first] for some in self.pieces]
        self.columns = [x.clone(memory_format=torch.contiguous_format) for x in own]
        at = model.inputs.start if isinstance(model, OwnWeights) else 0
        some_w1 = [self.w1.t()[some.start - at : some.stop - at] for some in self.pieces]
        self.base_w1_t = [w1_t.clone(memory_format=torch.contiguous_format) for w1_t in some_w1]
        self.base_b1 = self.b1.clone()
        self.z, self.z0, self.s = (torch.zeros_like(self.grad_h) for _ in range(3))  # (H, N)
        self.sum_of_z = Sum(H * N, count, self.x, group)
        self.k = self._gram(count)
        self._restart()

    def _gram(self, count: int) -> Tensor:
        """K = X X' + 1, (N, N): summed in float64, as `dual.gram` does."""
        N = len(self.x)

        def compute(index: int, slot: Tensor) -> None:
            x, k = self.columns[index], slot.zero_().view(N, N)
            for first in range(0, x.shape[1], COLUMNS):  # a whole copy of x in float64 may be too large
                some = x[:, first : first + COLUMNS].double()
                k.addmm_(some, some.t())

        total = Sum(N * N, count, self.x.new_empty(0, dtype=torch.float64), self.group)(compute)
        return total.view(N, N).add_(1).to(self.x.dtype)

    def _restart(self) -> None:
        """Compute Z0 and Z from the weights and the gradients since."""

        def compute(index: int, slot: Tensor) -> None:
            torch.mm(self.base_w1_t[index].t(), self.columns[index].t(), out=slot.view_as(self.z))

        torch.add(self.sum_of_z(compute).view_as(self.z), self.base_b1[:, None], out=self.z0)
        torch.addmm(self.z0, self.s, self.k, alpha=self.rate, out=self.z)

    def _fold(self) -> None:
        self.base_w1_t, self.base_b1 = self._w1_t(), self._b1()
        self.s.zero_()
        self._restart()

    def _w1_t(self) -> list[Tensor]:
        """The first layer's weights after all updates so far, of each part of the inputs, (inputs, H)."""
        pairs = zip(self.base_w1_t, self.columns, strict=True)
        return [torch.addmm(w1_t, x.t(), self.s.t(), alpha=self.rate) for w1_t, x in pairs]

    def _b1(self) -> Tensor:
        return torch.add(self.base_b1, self.s.sum(1), alpha=self.rate)

    def of_part(self, index: int, name: str) -> Tensor:
        """The first layer's weights of this process's part number `index` at the last fold, (inputs, H)."""
        return self.base_w1_t[index]

    def common(self) -> dict[str, Tensor]:
        """What all processes have alike."""
        return DualForm.state(self)

    def restart(self, done: int) -> None:
        """Go on from a state that was loaded, after `done` iterations."""
        self.done = done
        self._restart()

    def exchanged(self) -> Sum | None:
        """An update exchanges nothing."""
        return None

    @torch.no_grad()
    def sync(self) -> None:
        """Write the weights into the model's parameters."""
        super().sync()
        w1_t = self.whole(self._w1_t(), "base_w1_t")
        if self.group.rank == 0:
            self.w1.copy_(w1_t.t())
            self.b1.copy_(self._b1())

    @torch.inference_mode()
    def final_score(self) -> Tensor:
        """The loss of the current weights, shape () or (2,). The training cannot continue after this."""
        self._fold()
        self._chunk(1)
        return self.losses[0]
