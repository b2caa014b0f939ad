"""The same gradient descent with the fewest operations, in two exact forms of it, primal and dual.

Small networks fold their biases into the matrix products: with H+ = [relu(Z) 1] of shape (N, H + 1) and B = [W2 b2],
the residual is E = H+ B' - Y, and B <- B - 2 lr E' H+ updates the second layer whole. For a mean, 2 lr is divided by
N D_out. For classes E = softmax(H+ B') - Y, and lr, for a mean lr / N, takes the place of 2 lr. The dual form
(`DualEngine`) descends on the pre-activations in place of the first layer's weights. Both keep H+, Z, E and their
gradients transposed, a row for each hidden unit or output: the ones are then a row of their own, the rest of H+ is
contiguous, and an iteration takes a tenth less time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from twolayer.engines.base import Data, TensorState, relu_backward
from twolayer.engines.losses import Score, factor, score_divisors, softmax

# How many numbers the residuals of a chunk of iterations hold together: so few that one thread sums them up, and each
# loss comes out the same whatever stands beside it. GRAPH_ITERATIONS, a part of
# FOLD_EVERY, bounds the chunk on CUDA.
CHUNK = 2**13
GRAPH_ITERATIONS = 50


class Replay(Protocol):
    """What does a function, always the same: a graph, on CUDA."""

    def __call__(self, function: Callable[[], object]) -> None:
        """Do it."""

    def reset(self) -> None:
        """The function is another from now on."""


class Fused(TensorState, ABC):
    """What all forms share: the loop over chunks of iterations, and the losses."""

    # Does a whole chunk, which it is given. Were that the engine's own, neither would ever be freed.
    replay: Replay | None = None
    CLASSES = -1  # y's dimension of them

    def __init__(self, model: nn.Sequential, data: Data, *, lr: float, reduction: str, loss: str = "mse") -> None:
        self.x, self.y = data.x, data.y  # (N, D_in), (N, D_out)
        self.w1, self.b1, self.w2, self.b2 = (parameter.detach() for parameter in model.parameters())
        self.reduction, self.loss = reduction, loss
        self.set_lr(lr)
        # The residuals E of a chunk of iterations, each of y's shape: their losses are then computed together. For
        # classes it is the logits that are kept, and the residual of one iteration is in `residual`.
        self.outputs = self._per_iteration()
        self.slots = self.outputs.unbind()
        if loss == "mse":
            self.squares = self._per_iteration()
            self.reduce = torch.sum if reduction == "sum" else torch.mean
            self.losses = self.y.new_empty(len(self.slots))
        else:
            self.residual = torch.empty_like(self.y)
            self.score = Score(self.outputs, self.CLASSES)
            self.score_divisors = self.y.new_tensor(score_divisors(reduction, len(self.x)))
            self.losses = self.y.new_empty(len(self.slots), 2)

    def set_lr(self, lr: float) -> None:
        """Take another step from the next iteration on."""
        numerator, denominator = factor(self.loss, self.reduction, len(self.x), self.y.numel() // len(self.x))
        # A step beyond the dtype's largest number would be refused as such, not reported as the divergence that it is.
        self.step = -min(numerator * lr / denominator, torch.finfo(self.x.dtype).max)
        if self.replay is not None:
            self.replay.reset()  # it holds the step

    def _per_iteration(self) -> Tensor:
        """A buffer of y's shape for each iteration of a chunk."""
        # Each starts at a multiple of 64 numbers: some products and sums add up in another order at another address.
        size = self.y.numel()
        count = min(max(1, CHUNK // size), GRAPH_ITERATIONS if self.x.is_cuda else CHUNK)
        buffer = self.x.new_zeros(count, -(-size // 64) * 64)
        return buffer[:, :size].view(-1, *self.y.shape)

    @torch.inference_mode()  # a twentieth faster than no_grad
    def advance(self, iterations: int) -> Tensor:
        """Do so many iterations; the loss before each update, shape (iterations,), or loss and accuracy for classes."""
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
        """Make ready for the next iterations; how many there may be at most until this is to be called again."""
        return len(self.slots)

    def _chunk(self, count: int) -> None:
        """So many iterations; their losses come first in `losses`."""
        self._iterate(self.slots[:count])
        # Of all slots, used or not: on a GPU the order of a sum depends on how many sums there are.
        if self.loss == "mse":
            torch.mul(self.outputs, self.outputs, out=self.squares)
            self.reduce(self.squares, (1, 2), out=self.losses)
        else:
            self.score(self.outputs, self.y, self.losses)
            self.losses.div_(self.score_divisors)

    def _from_logits(self, z: Tensor) -> Tensor:
        """The residual for classes, softmax(z) - y."""
        softmax(z, self.CLASSES % 2, False, out=self.residual)
        return self.residual.sub_(self.y)

    @abstractmethod
    def _iterate(self, slots: Sequence[Tensor]) -> None:
        """One iteration for each slot, whose residual, or for classes logits, it leaves there."""

    @abstractmethod
    def sync(self) -> None:
        """Write the working state into the model's parameters."""


class PlainEngine(Fused):
    """The primal form for large x, where arithmetic is all that counts: forward and backward as they are.

    Updates go through a buffer: adding inside the product is no faster here and, with several threads, less exact.
    """

    def __init__(self, model: nn.Sequential, data: Data, *, lr: float, reduction: str, loss: str = "mse") -> None:
        super().__init__(model, data, lr=lr, reduction=reduction, loss=loss)
        self.h = self.x.new_empty(len(self.x), len(self.w1))  # (N, H)
        self.grad_h = torch.empty_like(self.h)  # G, short of its factor 2
        self.grad_w1, self.grad_b1 = torch.empty_like(self.w1), torch.empty_like(self.b1)
        self.grad_w2, self.grad_b2 = torch.empty_like(self.w2), torch.empty_like(self.b2)

    def _iterate(self, slots: Sequence[Tensor]) -> None:
        x, y, h, grad_h, step = self.x, self.y, self.h, self.grad_h, self.step
        w1, b1, w2, b2 = self.w1, self.b1, self.w2, self.b2
        grad_w1, grad_b1, grad_w2, grad_b2 = self.grad_w1, self.grad_b1, self.grad_w2, self.grad_b2
        w1_t, w2_t, grad_h_t, is_mse = w1.t(), w2.t(), grad_h.t(), self.loss == "mse"

        for slot in slots:
            torch.addmm(b1, x, w1_t, out=h).relu_()
            torch.addmm(b2, h, w2_t, out=slot)
            residual = slot.sub_(y) if is_mse else self._from_logits(slot)
            torch.mm(residual, w2, out=grad_h)
            relu_backward(grad_h, h, 0, grad_input=grad_h)
            w2.add_(torch.mm(residual.t(), h, out=grad_w2), alpha=step)
            b2.add_(torch.sum(residual, 0, out=grad_b2), alpha=step)
            w1.add_(torch.mm(grad_h_t, x, out=grad_w1), alpha=step)
            b1.add_(torch.sum(grad_h, 0, out=grad_b1), alpha=step)

    def sync(self) -> None:
        """Nothing is left to write: the updates are made in the model's parameters."""


class Folded(Fused):
    """The second layer with its biases inside the products, and all that has a row for each of the N transposed."""

    CLASSES = -2

    def __init__(self, model: nn.Sequential, data: Data, *, lr: float, reduction: str, loss: str = "mse") -> None:
        data = Data(data.x, data.y.t().contiguous())  # y: (D_out, N)
        super().__init__(model, data, lr=lr, reduction=reduction, loss=loss)
        self.h_ones = self.x.new_ones(len(self.w1) + 1, len(self.x))  # H+ = [h 1], (H + 1, N)
        self.h = self.h_ones[:-1]
        self.grad_h = torch.empty_like(self.h)  # G, (H, N), short of its factor 2
        self.b = torch.cat([self.w2, self.b2[:, None]], 1)  # B = [W2 b2], (D_out, H + 1)
        self.grad_b = torch.empty_like(self.b)

    def _residual(self) -> Callable[[Tensor], Tensor]:
        """E = H+ B' - Y, or softmax(H+ B') - Y, as a function of the slot."""
        y, b, h_ones = self.y, self.b, self.h_ones
        if self.loss == "mse":
            return lambda slot: torch.addmm(y, b, h_ones, beta=-1, out=slot)
        return lambda slot: self._from_logits(torch.mm(b, h_ones, out=slot))

    def _update_second(self) -> Callable[[Tensor], object]:
        """B <- B - 2 lr E' H+, as a function of the residual."""
        b, h_ones_t, grad_b, step = self.b, self.h_ones.t(), self.grad_b, self.step
        if torch.get_num_threads() == 1 or b.is_cuda:
            return lambda residual: b.addmm_(residual, h_ones_t, alpha=step)
        # With several threads MKL adds to B part by part, rounding each time: seven times the error in the losses.
        return lambda residual: b.add_(torch.mm(residual, h_ones_t, out=grad_b), alpha=step)

    @torch.no_grad()
    def sync(self) -> None:
        """Write the working state into the model's parameters."""
        self.w2.copy_(self.b[:, :-1])
        self.b2.copy_(self.b[:, -1])


class FoldedEngine(Folded):
    """The primal form for small x, where each operation costs more than its arithmetic: seven of them an iteration."""

    STATE = ("a_t", "b")

    def __init__(self, model: nn.Sequential, data: Data, *, lr: float, reduction: str, loss: str = "mse") -> None:
        super().__init__(model, data, lr=lr, reduction=reduction, loss=loss)
        ones = torch.ones_like(self.x[:, :1])
        self.x_ones_t = torch.cat([self.x, ones], 1).t().contiguous()  # X+ = [X 1], (D_in + 1, N)
        self.a_t = torch.cat([self.w1, self.b1[:, None]], 1).t().contiguous()  # A = [W1 b1], (D_in + 1, H)

    def _iterate(self, slots: Sequence[Tensor]) -> None:
        x_ones_t, a_t, b, h, grad_h, step = self.x_ones_t, self.a_t, self.b, self.h, self.grad_h, self.step
        a, w2_t, grad_h_t = a_t.t(), b[:, :-1].t(), grad_h.t()
        residual_into, update_second = self._residual(), self._update_second()

        for slot in slots:
            torch.mm(a, x_ones_t, out=h).relu_()
            residual = residual_into(slot)
            torch.mm(w2_t, residual, out=grad_h)
            relu_backward(grad_h, h, 0, grad_input=grad_h)
            update_second(residual)
            a_t.addmm_(x_ones_t, grad_h_t, alpha=step)

    @torch.no_grad()
    def sync(self) -> None:
        """Write the working state into the model's parameters."""
        super().sync()
        self.w1.copy_(self.a_t[:-1].t())
        self.b1.copy_(self.a_t[-1])
