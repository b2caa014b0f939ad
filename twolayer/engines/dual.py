"""The dual form of the fused engine: gradient descent on the pre-activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from twolayer.engines import selection
from twolayer.engines.base import Data, relu_backward
from twolayer.engines.fused import FoldedEngine
from twolayer.engines.losses import Objective


class DualForm(FoldedEngine):
    """What every iteration of the dual form computes, however K, (N, N), and Z0, Z and S, (H, N), came about."""

    k: Tensor
    z: Tensor
    z0: Tensor
    s: Tensor

    def set_lr(self, lr: float) -> None:
        """Use another learning rate from the next iteration on, also for the gradients that are in S: it is scaled."""
        before = self.rate if self.done else None
        super().set_lr(lr)
        if before is not None:
            with torch.no_grad():
                self.s.mul_(before / self.rate)

    def _start_chunk(self) -> int:
        since_fold = self.done % selection.FOLD_EVERY
        if self.done and not since_fold:
            self._fold()
        return min(len(self.slots), selection.FOLD_EVERY - since_fold)

    def _iterate(self, slots: Sequence[Tensor]) -> None:
        k, z, z0, s, h, grad_h = self.k, self.z, self.z0, self.s, self.h, self.grad_h
        w2_t, rate = self.b[:, :-1].t(), self.rate
        residual_into, update_second = self._residual(), self._update_second()

        for slot in slots:
            torch.clamp_min(z, 0, out=h)
            residual = residual_into(slot)
            torch.mm(w2_t, residual, out=grad_h)
            relu_backward(grad_h, h, 0, grad_input=grad_h)
            update_second(residual)
            s.add_(grad_h)
            torch.addmm(z0, s, k, alpha=rate, out=z)  # K is symmetric

    def _fold(self) -> None:
        """Add S to the weights and compute Z from them again, which removes the rounding errors in Z."""
        raise NotImplementedError


class DualEngine(DualForm):
    """Gradient descent on the pre-activations Z = X W1' + b1 instead of W1: eight small operations per iteration.

    X never changes, so every update of W1 is a combination of its rows. S <- S + G adds up the gradients, and with
    K = X X' + 1 and Z0 from the weights before them, Z is Z0 - 2 lr K S; W1 - 2 lr S' X and b1 - 2 lr sum(S) are the
    weights. (Z <- Z - 2 lr K G is the same algebra, but its rounding errors are not in S: Z and the weights would
    drift apart.)
    """

    STATE = ("base_w1", "base_b1", "s", "b")

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, exact_updates: bool = False
    ) -> None:
        super().__init__(model, data, objective, lr=lr, exact_updates=exact_updates)
        self.base_w1, self.base_b1 = self.w1.clone(), self.b1.clone()  # at the last fold
        self.k = gram(self.x)
        self.s_sum = torch.empty_like(self.b1)
        self.z, self.z0, self.s = (torch.zeros_like(self.grad_h) for _ in range(3))  # (H, N)
        self._restart()

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state saved after `done` iterations. StateError if its names, shapes or dtypes differ."""
        super().load_state(state, done)
        self._restart()

    def _restart(self) -> None:
        """Compute Z0 and Z from the weights and the gradients since."""
        torch.addmm(self.base_b1[:, None], self.base_w1, self.x.t(), out=self.z0)
        torch.addmm(self.z0, self.s, self.k, alpha=self.rate, out=self.z)

    def _fold(self) -> None:
        self._weights(self.base_w1, self.base_b1)
        self.s.zero_()
        self._restart()

    def _weights(self, w1: Tensor, b1: Tensor) -> None:
        """Write the first layer after all updates so far into w1 and b1, which may be the engine's own."""
        torch.addmm(self.base_w1, self.s, self.x, alpha=self.rate, out=w1)
        torch.add(self.base_b1, torch.sum(self.s, 1, out=self.s_sum), alpha=self.rate, out=b1)

    @torch.no_grad()
    def sync(self) -> None:
        """Write the weights into the model's parameters."""
        super().sync()
        self._weights(self.w1, self.b1)


def gram(x: Tensor) -> Tensor:
    """K = X X' + 1, (N, N): summed in float64, because its rounding errors act the same way in every iteration."""
    k = x.new_empty(len(x), len(x))
    rows, columns = 1024, 4096  # in blocks: a whole copy of x in float64 may be too large
    for i in range(0, len(x), rows):
        for j in range(0, len(x), rows):
            part = torch.ones_like(k[i : i + rows, j : j + rows], dtype=torch.float64)
            for c in range(0, x.shape[1], columns):
                some = slice(c, c + columns)
                part.addmm_(x[i : i + rows, some].double(), x[j : j + rows, some].double().t())
            k[i : i + rows, j : j + rows] = part
    return k
