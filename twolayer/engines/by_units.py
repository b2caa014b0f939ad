"""The fused engine in parts of the hidden units: an update exchanges the output alone, N x D_out numbers.

The output is the sum of what each part's units give, and with it each part has all it needs for its own gradients:
weights of the first layer never leave it. Biases of the second layer, N x D_out residuals and losses are computed by
all processes alike. A product of x with few units spends a fifth of its time on reading x. So all parts are computed
for some rows of x, which the cache holds, then for the next ones, and their gradients for some of its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from twolayer.engines import selection
from twolayer.engines.base import Data, OwnWeights, relu_backward
from twolayer.engines.dual import gram
from twolayer.engines.fused import FusedEngine
from twolayer.engines.losses import Objective
from twolayer.engines.parts import ALONE, Group, Sum, aligned, edges, pieces
from twolayer.engines.state_in_parts import StateInParts


class _Units:
    """Some hidden units, h of them: their weights, and what is computed of them."""

    z: Tensor  # of the dual form: the pre-activations, (N, h)
    z0: Tensor  # those at the last fold
    s: Tensor  # the gradients since, added up

    def __init__(self, w1: Tensor, b1: Tensor, w2: Tensor, h: Tensor, grad_h: Tensor) -> None:
        self.w1_t, self.w2_t = (w1.new_empty(w.t().shape).copy_(w.t()) for w in (w1, w2))  # (D_in, h), (h, D_out)
        self.b1 = b1.clone()  # (h,)
        self.h, self.grad_h = h, grad_h  # (N, h)
        self.w2, self.h_t = self.w2_t.t(), h.t()


class UnitsEngine(StateInParts, FusedEngine):
    """The primal form in parts of the hidden units; this process has those that are its own in the group.

    The model of a process that is not the first may be of its own units alone (`OwnWeights`). `sync` is for all
    processes at once; the first one alone gets the weights of all units.
    """

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, parts: int, group: Group = ALONE
    ) -> None:
        super().__init__(model, Data(aligned(data.x), aligned(data.y)), objective, lr=lr)
        self.parts, self.group, self.own_b2 = parts, group, self.b2.clone()
        D_in, (N, D_out) = self.x.shape[1], self.y.shape
        self.size, first = (model.H, model.units.start) if isinstance(model, OwnWeights) else (len(self.w1), 0)
        self.pieces = pieces(self.size, parts, group)
        own = [slice(some.start - first, some.stop - first) for some in self.pieces]
        self.h, hs = self._blocks()
        self.grad_h, grad_hs = self._blocks()  # without its factor
        self.units = [
            _Units(self.w1[some], self.b1[some], self.w2[:, some], h, grad_h)
            for some, h, grad_h in zip(own, hs, grad_hs, strict=True)
        ]
        self.rows: dict[str, tuple[int, ...]] = {"w1": (D_in,), "b1": (), "w2_t": (D_out,)}  # of a unit, by name
        self.grad_b2 = torch.empty_like(self.own_b2)
        self.sum = Sum(N * D_out, len(edges(self.size, parts)) - 1, self.x, group)

    def _blocks(self) -> tuple[Tensor, list[Tensor]]:
        """A vector of zeros for all parts at once; and what each has of it, (N, h), at an address like Sum's."""
        shapes = [(len(self.x), some.stop - some.start) for some in self.pieces]
        padded = [-(-rows * units // 64) * 64 for rows, units in shapes]
        vector = self.x.new_zeros(sum(padded))
        blocks = zip(torch.split(vector, padded), shapes, strict=True)
        return vector, [block[: shape[0] * shape[1]].view(shape) for block, shape in blocks]

    def _iterate(self, slots: Sequence[Tensor]) -> None:
        y, b2, h, grad_h, rate, is_mse = self.y, self.own_b2, self.h, self.grad_h, self.rate, self.is_mse
        for slot in slots:
            self._activate()
            torch.add(self.sum(self._outputs).view_as(slot), b2, out=slot)
            residual = slot.sub_(y) if is_mse else self._from_logits(slot)
            for part in self.units:
                torch.mm(residual, part.w2, out=part.grad_h)
            relu_backward(grad_h, h, 0, grad_input=grad_h)
            for part in self.units:
                part.w2_t.addmm_(part.h_t, residual, alpha=rate)
            b2.add_(torch.sum(residual, 0, out=self.grad_b2), alpha=rate)
            self._update_first()

    @cached_property
    def by_rows(self) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        """Some rows of x, and the hidden activations of each part for them; then the next rows."""
        return self._panels(self.x, [part.h for part in self.units])

    @cached_property
    def by_inputs(self) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        """Some columns of x, transposed, and the weights of each part for them; then the next columns."""
        return self._panels(self.x.t().contiguous(), [part.w1_t for part in self.units])

    def _panels(self, x: Tensor, parts: Sequence[Tensor]) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        rows, columns = x.shape
        length = selection.cached_rows_of_x(rows, columns, x.itemsize) if x.device.type == "cpu" else rows
        of_parts = [torch.split(part, length) for part in parts]
        return [(panel, tuple(part[i] for part in of_parts)) for i, panel in enumerate(torch.split(x, length))]

    def _outputs(self, index: int, slot: Tensor) -> None:
        """Write what a part's units give of the output, (N, D_out)."""
        part = self.units[index]
        torch.mm(part.h, part.w2_t, out=slot.view_as(self.y))

    def _activate(self) -> None:
        """Compute the hidden activations."""
        for x, hs in self.by_rows:
            for part, h in zip(self.units, hs, strict=True):
                torch.addmm(part.b1, x, part.w1_t, out=h)
            self.check()
        self.h.relu_()

    def _update_first(self) -> None:
        """Update the first layer from the gradient at the pre-activations."""
        for x_t, weights in self.by_inputs:
            for part, w1_t in zip(self.units, weights, strict=True):
                w1_t.addmm_(x_t, part.grad_h, alpha=self.rate)
        for part in self.units:
            part.b1.add_(torch.sum(part.grad_h, 0), alpha=self.rate)

    def of_part(self, index: int, name: str) -> Tensor:
        """What this process's part number `index` has of this name, with a row for each unit."""
        part = self.units[index]
        found: dict[str, Tensor] = {"w1": part.w1_t.t(), "b1": part.b1, "w2_t": part.w2_t}
        return part.s.t() if name == "s" else found[name]

    def common(self) -> dict[str, Tensor]:
        """What all processes have alike."""
        return {"b2": self.own_b2}

    def restart(self, done: int) -> None:
        """Go on from a state that was loaded, after `done` iterations."""
        self.done = done

    def exchanged(self) -> Sum | None:
        """The sum that an update exchanges."""
        return self.sum

    @torch.no_grad()
    def sync(self) -> None:
        """Write the weights into the model's parameters."""
        first = [self._first_layer(part) for part in self.units]
        w1 = self.whole([w1_t.t() for w1_t, _ in first], "w1")
        b1 = self.whole([b1 for _, b1 in first], "b1")
        w2_t = self.whole([part.w2_t for part in self.units], "w2_t")
        if self.group.rank == 0:
            self.w1.copy_(w1)
            self.b1.copy_(b1)
            self.w2.copy_(w2_t.t())
            self.b2.copy_(self.own_b2)

    def _first_layer(self, part: _Units) -> tuple[Tensor, Tensor]:
        """The weights (D_in, h) and biases (h,) of a part's units."""
        return part.w1_t, part.b1


class DualUnitsEngine(UnitsEngine):
    """The dual form (see `dual`) in parts of the hidden units: all processes have K, each has the S of its units.

    The first layer's weights of a part are those at the last fold.
    """

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, parts: int, group: Group = ALONE
    ) -> None:
        super().__init__(model, data, objective, lr=lr, parts=parts, group=group)
        (self.z, z), (_, z0), (self.s, s) = (self._blocks() for _ in range(3))
        for index, part in enumerate(self.units):
            part.z, part.z0, part.s = z[index], z0[index], s[index]
        self.rows["s"] = (len(self.x),)
        self.k = gram(self.x)
        self._restart()

    def set_lr(self, lr: float) -> None:
        """Use another learning rate from the next iteration on, also for the gradients that are in S: it is scaled."""
        before = self.rate if self.done else None
        super().set_lr(lr)
        if before is not None:
            with torch.no_grad():
                self.s.mul_(before / self.rate)

    def restart(self, done: int) -> None:
        """Go on from a state that was loaded, after `done` iterations."""
        super().restart(done)
        self._restart()

    def _restart(self) -> None:
        """Compute Z0 and Z from the weights and the gradients since."""
        for part in self.units:
            torch.addmm(part.b1, self.x, part.w1_t, out=part.z0)
        self._advance_z()

    def _advance_z(self) -> None:
        for part in self.units:
            torch.addmm(part.z0, self.k, part.s, alpha=self.rate, out=part.z)

    def _start_chunk(self) -> int:
        since_fold = self.done % selection.FOLD_EVERY
        if self.done and not since_fold:
            for part in self.units:
                w1_t, b1 = self._first_layer(part)
                part.w1_t.copy_(w1_t)
                part.b1.copy_(b1)
            self.s.zero_()
            self._restart()
        return min(len(self.slots), selection.FOLD_EVERY - since_fold)

    def _activate(self) -> None:
        torch.clamp_min(self.z, 0, out=self.h)

    def _update_first(self) -> None:
        self.s.add_(self.grad_h)
        self._advance_z()

    def _first_layer(self, part: _Units) -> tuple[Tensor, Tensor]:
        w1_t = torch.addmm(part.w1_t, self.x.t(), part.s, alpha=self.rate)
        return w1_t, torch.add(part.b1, part.s.sum(0), alpha=self.rate)
