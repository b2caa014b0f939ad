"""The fused engine in parts of the hidden units: an update exchanges the output alone, N x D_out numbers.

The output is the sum of what each part's units give, and with it each part has all it needs for its own gradients:
weights of the first layer never leave it. Biases of the second layer, N x D_out residuals and losses are computed by
all processes alike. As in `fused`, what has a row per data row is stored transposed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from twolayer.engines import selection
from twolayer.engines.base import Data, check_state, relu_backward
from twolayer.engines.dual import gram
from twolayer.engines.fused import FusedEngine
from twolayer.engines.losses import Objective
from twolayer.engines.parts import ALONE, Group, Sum, edges, pieces, whole


class _Units:
    """Some hidden units, h of them: their weights and what is computed of them, in buffers of their own."""

    z: Tensor  # of the dual form: the pre-activations, (h, N)
    z0: Tensor  # those at the last fold
    s: Tensor  # the gradients since, added up

    def __init__(self, w1: Tensor, b1: Tensor, w2: Tensor, N: int) -> None:
        self.w1, self.b1 = w1.clone(), b1[:, None].clone()  # (h, D_in), (h, 1)
        self.w2_t = w1.new_empty(w2.t().shape).copy_(w2.t())  # (h, D_out)
        self.h, self.grad_h = (w1.new_zeros(len(w1), N) for _ in range(2))

    def backward(self, residual: Tensor, rate: float) -> Tensor:
        """The gradient at the pre-activations, (h, N), short of its factor; updates the second layer's weights."""
        torch.mm(self.w2_t, residual, out=self.grad_h)
        relu_backward(self.grad_h, self.h, 0, grad_input=self.grad_h)
        self.w2_t.addmm_(self.h, residual.t(), alpha=rate)
        return self.grad_h


class UnitsEngine(FusedEngine):
    """The primal form in parts of the hidden units; this process has those that are its own in the group.

    `state`, `load_state` and `sync` are for all processes at once, and take what all units have; the first process
    alone gets it.
    """

    CLASS_DIM = -2

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, parts: int, group: Group = ALONE
    ) -> None:
        super().__init__(model, Data(data.x, data.y.t().contiguous()), objective, lr=lr)  # y: (D_out, N)
        self.parts, self.group, self.own_b2 = parts, group, self.b2.clone()
        (H, D_in), (D_out, N) = self.w1.shape, self.y.shape
        self.pieces = pieces(H, parts, group)
        self.units = [_Units(self.w1[some], self.b1[some], self.w2[:, some], N) for some in self.pieces]
        self.widths = {"w1": D_in, "b1": 1, "w2_t": D_out}  # of what each unit has a row of, by name
        self.x_t, self.grad_b2 = self.x.t(), torch.empty_like(self.own_b2)
        self.sum = Sum(D_out * N, len(edges(H, parts)) - 1, self.x, group)

    def _iterate(self, slots: Sequence[Tensor]) -> None:
        y, b2, rate, is_mse = self.y, self.own_b2, self.rate, self.is_mse
        for slot in slots:
            torch.add(self.sum(self._forward).view_as(slot), b2[:, None], out=slot)
            residual = slot.sub_(y) if is_mse else self._from_logits(slot)
            for part in self.units:
                self._update_first(part, part.backward(residual, rate))
            b2.add_(torch.sum(residual, 1, out=self.grad_b2), alpha=rate)

    def _forward(self, index: int, slot: Tensor) -> None:
        """Write what a part's units give of the output, (D_out, N)."""
        part = self.units[index]
        self._activate(part)
        self.check()
        torch.mm(part.w2_t.t(), part.h, out=slot.view_as(self.y))

    def _activate(self, part: _Units) -> None:
        """Compute a part's hidden activations."""
        torch.addmm(part.b1, part.w1, self.x_t, out=part.h).relu_()

    def _update_first(self, part: _Units, grad_h: Tensor) -> None:
        part.w1.addmm_(grad_h, self.x, alpha=self.rate)
        part.b1.add_(torch.sum(grad_h, 1, keepdim=True), alpha=self.rate)

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs to be the same bit for bit, by name, with a row for each unit; b2 itself."""
        found = {name: self._whole([getattr(part, name) for part in self.units], name) for name in self.widths}
        return found | {"b2": self.own_b2}

    def exchanged(self) -> Sum | None:
        """The sum that an update exchanges."""
        return self.sum

    def described(self) -> dict[str, Tensor]:
        """Tensors of the shapes and dtypes of a state, most of them without any contents."""
        shapes = {name: self.x.new_empty(len(self.w1), width, device="meta") for name, width in self.widths.items()}
        return shapes | {"b2": self.own_b2}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state saved after `done` iterations. StateError if its names, shapes or dtypes differ."""
        check_state(self.described(), state)
        self.own_b2.copy_(state["b2"])
        for some, part in zip(self.pieces, self.units, strict=True):
            for name in self.widths:
                getattr(part, name).copy_(state[name][some])
        self.done = done

    @torch.no_grad()
    def sync(self) -> None:
        """Write the weights into the model's parameters."""
        first = [self._first_layer(part) for part in self.units]
        w1 = self._whole([w1 for w1, _ in first], "w1")
        b1 = self._whole([b1 for _, b1 in first], "b1")
        w2_t = self._whole([part.w2_t for part in self.units], "w2_t")
        if self.group.rank == 0:
            self.w1.copy_(w1)
            self.b1.copy_(b1[:, 0])
            self.w2.copy_(w2_t.t())
            self.b2.copy_(self.own_b2)

    def _first_layer(self, part: _Units) -> tuple[Tensor, Tensor]:
        """The weights (h, D_in) and biases (h, 1) of a part's units."""
        return part.w1, part.b1

    def _whole(self, tensors: Sequence[Tensor], name: str) -> Tensor:
        """What all units have of this name, (H, width)."""
        return whole(tensors, len(self.w1), self.parts, self.x.new_empty(self.widths[name]), self.group)


class DualUnitsEngine(UnitsEngine):
    """The dual form (see `dual`) in parts of the hidden units: all processes have K, each has the S of its units.

    The first layer's weights of a part are those at the last fold.
    """

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, parts: int, group: Group = ALONE
    ) -> None:
        super().__init__(model, data, objective, lr=lr, parts=parts, group=group)
        for part in self.units:
            part.z, part.z0, part.s = (torch.zeros_like(part.h) for _ in range(3))
        self.widths |= {"s": len(self.x)}
        self.k = gram(self.x)
        self._restart()

    def set_lr(self, lr: float) -> None:
        """Use another learning rate from the next iteration on, also for the gradients that are in S: it is scaled."""
        before = self.rate if self.done else None
        super().set_lr(lr)
        if before is not None:
            with torch.no_grad():
                for part in self.units:
                    part.s.mul_(before / self.rate)

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state saved after `done` iterations. StateError if its names, shapes or dtypes differ."""
        super().load_state(state, done)
        self._restart()

    def _restart(self) -> None:
        """Compute Z0 and Z from the weights and the gradients since."""
        for part in self.units:
            torch.addmm(part.b1, part.w1, self.x_t, out=part.z0)
            torch.addmm(part.z0, part.s, self.k, alpha=self.rate, out=part.z)

    def _start_chunk(self) -> int:
        since_fold = self.done % selection.FOLD_EVERY
        if self.done and not since_fold:
            for part in self.units:
                part.w1, part.b1 = self._first_layer(part)
                part.s.zero_()
            self._restart()
        return min(len(self.slots), selection.FOLD_EVERY - since_fold)

    def _activate(self, part: _Units) -> None:
        torch.clamp_min(part.z, 0, out=part.h)

    def _update_first(self, part: _Units, grad_h: Tensor) -> None:
        part.s.add_(grad_h)
        torch.addmm(part.z0, part.s, self.k, alpha=self.rate, out=part.z)  # K is symmetric

    def _first_layer(self, part: _Units) -> tuple[Tensor, Tensor]:
        w1 = torch.addmm(part.w1, part.s, self.x, alpha=self.rate)
        return w1, torch.add(part.b1, part.s.sum(1, keepdim=True), alpha=self.rate)
