"""The same gradient descent with the fewest operations, in two mathematically exact forms: primal and dual.

Small networks fold their biases into the matrix products: with H+ = [relu(Z) 1] of shape (N, H + 1) and B = [W2 b2],
the residual is E = H+ B' - Y, and B <- B - 2 lr E' H+ updates the second layer whole. For a mean, 2 lr is divided by
N D_out. For cross entropy E = softmax(H+ B') - Y, and 2 lr is replaced by lr, for a mean by lr / N. The dual form
(`DualEngine`) updates the pre-activations instead of the first layer's weights. Both store H+, Z, E and their
gradients transposed, with a row for each hidden unit or output: the ones are then a row of their own, the rest of H+
is contiguous, and an iteration takes a tenth less time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from twolayer.engines.base import Data, TensorState, constant, relu_backward
from twolayer.engines.losses import ClassScore, Objective, softmax

# The numbers in the residuals of a chunk of iterations: few enough that one thread sums them up, so that a loss does
# not depend on the others in its chunk. On CUDA a chunk has at most GRAPH_ITERATIONS, a divisor of FOLD_EVERY.
CHUNK = 2**13
GRAPH_ITERATIONS = 50


class Replay(Protocol):
    """Runs a function that is always the same; on CUDA a graph."""

    def __call__(self, function: Callable[[], object]) -> None:
        """Run the function."""

    def reset(self) -> None:
        """Expect another function from the next call on."""


class FusedEngine(TensorState, ABC):
    """The loop over chunks of iterations, and the losses, for all forms.

    With `exact_updates` the second layer's gradient is computed before it is added: see `FoldedEngine`.
    """

    # Runs a whole chunk. The chunk's function is passed in, not bound: avoids a reference cycle.
    replay: Replay | None = None
    CLASS_DIM = -1  # the dimension of y that counts the classes

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, exact_updates: bool = False
    ) -> None:
        self.x, self.y = data.x, data.y  # (N, D_in), (N, D_out)
        self.w1, self.b1, self.w2, self.b2 = (parameter.detach() for parameter in model.parameters())
        self.objective, self.exact_updates, self.is_mse = objective, exact_updates, objective.loss == "mse"
        self.set_lr(lr)
        # The residuals E of a chunk of iterations, each of y's shape: their losses are then computed together. For
        # cross entropy the logits are kept instead, and `residual` holds the residual of one iteration.
        self.outputs = self._per_iteration()
        self.slots = self.outputs.unbind()
        self.losses = self.y.new_empty(len(self.slots), *objective.shape)
        if self.is_mse:
            self.squares = self._per_iteration()
            self.reduce = torch.sum if objective.reduction == "sum" else torch.mean
        else:
            self.residual = torch.empty_like(self.y)
            self.score = ClassScore(self.outputs, self.CLASS_DIM)
            self.score_divisors = constant(objective.score_divisors(len(self.x)), self.y)

    def set_lr(self, lr: float) -> None:
        """Use another learning rate from the next iteration on."""
        numerator, denominator = self.objective.gradient_scale(len(self.x), self.y.numel() // len(self.x))
        # PyTorch refuses a larger rate for the dtype; with this one the training diverges, and says so.
        self.rate = -min(numerator * lr / denominator, torch.finfo(self.x.dtype).max)
        if self.replay is not None:
            self.replay.reset()  # the graph contains the rate

    def _per_iteration(self) -> Tensor:
        """A buffer of y's shape for each iteration of a chunk."""
        # Each starts at a multiple of 64 numbers: the address decides the order of addition in some operations.
        size = self.y.numel()
        count = min(max(1, CHUNK // size), GRAPH_ITERATIONS if self.x.is_cuda else CHUNK)
        buffer = self.x.new_zeros(count, -(-size // 64) * 64)
        return buffer[:, :size].view(-1, *self.y.shape)

    @torch.inference_mode()  # a twentieth faster than no_grad
    def advance(self, iterations: int) -> Tensor:
        """Do n iterations; the loss before each update, shape (iterations,) or (iterations, 2)."""
        losses, start = self.y.new_empty(iterations, *self.losses.shape[1:]), 0
        while start < iterations:
            count = min(self._start_chunk(), iterations - start)
            if self.replay is not None and count == len(self.slots):
                self.replay(lambda: self._chunk(len(self.slots)))
            else:
                self._chunk(count)
            losses[start : start + count] = self.losses[:count]
            start += count
            self.done += count
        return losses

    def _start_chunk(self) -> int:
        """Prepare the next iterations; how many there may be at most before the next call."""
        return len(self.slots)

    def _chunk(self, count: int) -> None:
        """Do `count` iterations; their losses are the first in `losses`."""
        self._iterate(self.slots[:count])
        # For all slots, used or not: on a GPU the order of a sum depends on how many sums there are.
        if self.is_mse:
            torch.mul(self.outputs, self.outputs, out=self.squares)
            self.reduce(self.squares, (1, 2), out=self.losses)
        else:
            self.score(self.outputs, self.y, self.losses)
            self.losses.div_(self.score_divisors)

    def _from_logits(self, z: Tensor) -> Tensor:
        """The residual for cross entropy, softmax(z) - y."""
        softmax(z, self.CLASS_DIM % 2, False, out=self.residual)
        return self.residual.sub_(self.y)

    @abstractmethod
    def _iterate(self, slots: Sequence[Tensor]) -> None:
        """One iteration for each slot; writes the residual into it, for cross entropy the logits."""

    @abstractmethod
    def sync(self) -> None:
        """Write the weights into the model's parameters."""


class PlainEngine(FusedEngine):
    """The primal form for large x, where only the arithmetic counts: forward and backward pass without folded biases.

    Updates go through a buffer: adding inside the product is no faster here and, with several threads, less exact.
    """

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, exact_updates: bool = False
    ) -> None:
        super().__init__(model, data, objective, lr=lr, exact_updates=exact_updates)
        self.h = self.x.new_empty(len(self.x), len(self.w1))  # (N, H)
        self.grad_h = torch.empty_like(self.h)  # G, without its factor 2
        self.grad_w1, self.grad_b1 = torch.empty_like(self.w1), torch.empty_like(self.b1)
        self.grad_w2, self.grad_b2 = torch.empty_like(self.w2), torch.empty_like(self.b2)

    def _iterate(self, slots: Sequence[Tensor]) -> None:
        x, y, h, grad_h, rate = self.x, self.y, self.h, self.grad_h, self.rate
        w1, b1, w2, b2 = self.w1, self.b1, self.w2, self.b2
        grad_w1, grad_b1, grad_w2, grad_b2 = self.grad_w1, self.grad_b1, self.grad_w2, self.grad_b2
        w1_t, w2_t, grad_h_t, is_mse, check = w1.t(), w2.t(), grad_h.t(), self.is_mse, self.check

        for slot in slots:
            torch.addmm(b1, x, w1_t, out=h).relu_()
            check()
            torch.addmm(b2, h, w2_t, out=slot)
            residual = slot.sub_(y) if is_mse else self._from_logits(slot)
            torch.mm(residual, w2, out=grad_h)
            relu_backward(grad_h, h, 0, grad_input=grad_h)
            w2.add_(torch.mm(residual.t(), h, out=grad_w2), alpha=rate)
            b2.add_(torch.sum(residual, 0, out=grad_b2), alpha=rate)
            w1.add_(torch.mm(grad_h_t, x, out=grad_w1), alpha=rate)
            b1.add_(torch.sum(grad_h, 0, out=grad_b1), alpha=rate)

    def sync(self) -> None:
        """Nothing to do: the updates are made in the model's parameters."""


class FoldedEngine(FusedEngine):
    """Folds the second layer's biases into its products; stores transposed what has a row per data row.

    `exact_updates` is meant for several CPU threads: with them MKL adds a product to B part by part, rounding each
    time, which makes the error of the losses seven times as large. Adding the finished product avoids that.
    """

    CLASS_DIM = -2

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, exact_updates: bool = False
    ) -> None:
        data = Data(data.x, data.y.t().contiguous())  # y: (D_out, N)
        super().__init__(model, data, objective, lr=lr, exact_updates=exact_updates)
        self.h_ones = self.x.new_ones(len(self.w1) + 1, len(self.x))  # H+ = [h 1], (H + 1, N)
        self.h = self.h_ones[:-1]
        self.grad_h = torch.empty_like(self.h)  # G, (H, N), short of its factor 2
        self.b = torch.cat([self.w2, self.b2[:, None]], 1)  # B = [W2 b2], (D_out, H + 1)
        self.grad_b = torch.empty_like(self.b)

    def _residual(self) -> Callable[[Tensor], Tensor]:
        """A function that computes E = H+ B' - Y or softmax(H+ B') - Y, given the slot."""
        y, b, h_ones = self.y, self.b, self.h_ones
        if self.is_mse:
            return lambda slot: torch.addmm(y, b, h_ones, beta=-1, out=slot)
        return lambda slot: self._from_logits(torch.mm(b, h_ones, out=slot))

    def _update_second(self) -> Callable[[Tensor], object]:
        """A function that updates B <- B - 2 lr E' H+, given the residual."""
        b, h_ones_t, grad_b, rate = self.b, self.h_ones.t(), self.grad_b, self.rate
        if self.exact_updates:
            return lambda residual: b.add_(torch.mm(residual, h_ones_t, out=grad_b), alpha=rate)
        return lambda residual: b.addmm_(residual, h_ones_t, alpha=rate)

    @torch.no_grad()
    def sync(self) -> None:
        """Write the weights into the model's parameters."""
        self.w2.copy_(self.b[:, :-1])
        self.b2.copy_(self.b[:, -1])


class PrimalEngine(FoldedEngine):
    """The primal form for small x, where launching an operation costs more than its arithmetic: seven per iteration."""

    STATE = ("a_t", "b")

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, exact_updates: bool = False
    ) -> None:
        super().__init__(model, data, objective, lr=lr, exact_updates=exact_updates)
        ones = torch.ones_like(self.x[:, :1])
        self.x_ones_t = torch.cat([self.x, ones], 1).t().contiguous()  # X+ = [X 1], (D_in + 1, N)
        self.a_t = torch.cat([self.w1, self.b1[:, None]], 1).t().contiguous()  # A = [W1 b1], (D_in + 1, H)

    def _iterate(self, slots: Sequence[Tensor]) -> None:
        x_ones_t, a_t, b, h, grad_h, rate = self.x_ones_t, self.a_t, self.b, self.h, self.grad_h, self.rate
        a, w2_t, grad_h_t = a_t.t(), b[:, :-1].t(), grad_h.t()
        residual_into, update_second = self._residual(), self._update_second()

        for slot in slots:
            torch.mm(a, x_ones_t, out=h).relu_()
            residual = residual_into(slot)
            torch.mm(w2_t, residual, out=grad_h)
            relu_backward(grad_h, h, 0, grad_input=grad_h)
            update_second(residual)
            a_t.addmm_(x_ones_t, grad_h_t, alpha=rate)

    @torch.no_grad()
    def sync(self) -> None:
        """Write the weights into the model's parameters."""
        super().sync()
        self.w1.copy_(self.a_t[:-1].t())
        self.b1.copy_(self.a_t[-1])
