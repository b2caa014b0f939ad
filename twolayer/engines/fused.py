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
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from twolayer import memory
from twolayer.config.schema import Config
from twolayer.data import Data
from twolayer.engines.losses import Score, factor, score_divisors, softmax
from twolayer.engines.manual import relu_backward
from twolayer.engines.working import Working

# The dual form recomputes from the weights at every so many iterations, counted from the first: never where a block
# ends, so that no result depends on the cuts.
FOLD_EVERY = 1000

# How many numbers the residuals of a chunk of iterations hold together: so few that one thread sums them up, and each
# loss comes out the same whatever stands beside it. GRAPH_ITERATIONS, a part of
# FOLD_EVERY, bounds the chunk on CUDA.
CHUNK = 2**13
GRAPH_ITERATIONS = 50

# Below so many numbers x is copied with a column of ones, so that the biases ride inside the products.
FOLD_BELOW = 2**20


def choose_form(config: Config) -> str:
    """`primal` or `dual`; for `auto` the one with fewer floating point operations over the whole training.

    An iteration's products with x are 4 N D_in H operations in the primal form and 2 N^2 H in the dual form, which
    takes 2 N^2 D_in once, for K, and 4 N D_in H at the start, at every fold and at the end. K is made in float64, which
    takes a CPU twice as long and many a GPU 32 times.
    """
    if config.form != "auto":
        return config.form
    if memory.in_parts(config):
        return "primal"
    N, D_in, H, epochs = config.N, config.D_in, config.H, config.epochs
    primal = epochs * 4 * N * D_in * H
    slower = 1 if config.dtype == "float64" else 2 if config.device == "cpu" else 32
    dual = epochs * 2 * N**2 * H + slower * 2 * N**2 * D_in + (2 + epochs // FOLD_EVERY) * 4 * N * D_in * H
    return "dual" if dual < primal else "primal"


class Replay(Protocol):
    """What does a function, always the same: a graph, on CUDA."""

    def __call__(self, function: Callable[[], object]) -> None:
        """Do it."""

    def reset(self) -> None:
        """The function is another from now on."""


class _Fused(Working, ABC):
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


class PlainEngine(_Fused):
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


class _Folded(_Fused):
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


class FoldedEngine(_Folded):
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


class DualEngine(_Folded):
    """Gradient descent on the pre-activations Z = X W1' + b1 in place of W1: eight small operations an iteration.

    X never changes, so every update of W1 is a combination of its rows. S <- S + G collects the steps, and with
    K = X X' + 1 and Z0 of the weights before them, Z is Z0 - 2 lr K S; W1 - 2 lr S' X and b1 - 2 lr sum(S) are the
    weights. (Z <- Z - 2 lr K G is the same algebra, but what it rounds off is not in S: Z and the weights would part.)
    """

    STATE = ("base_w1", "base_b1", "s", "b")

    def __init__(self, model: nn.Sequential, data: Data, *, lr: float, reduction: str, loss: str = "mse") -> None:
        super().__init__(model, data, lr=lr, reduction=reduction, loss=loss)
        self.base_w1, self.base_b1 = self.w1.clone(), self.b1.clone()  # as of the last fold
        self.k = _k(self.x)
        self.s_sum = torch.empty_like(self.b1)
        self.z, self.z0, self.s = (torch.zeros_like(self.grad_h) for _ in range(3))  # (H, N)
        self._restart()

    def set_lr(self, lr: float) -> None:
        """Take another step from the next iteration on; those that were made are collected as of one step."""
        if self.done:
            with torch.no_grad():
                self._fold()
        super().set_lr(lr)

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Go on from the state that such an engine had after so many iterations. Raises DataError for another's."""
        super().load_state(state, done)
        self._restart()

    def _restart(self) -> None:
        """Z0 and Z, from the weights and the steps since."""
        torch.addmm(self.base_b1[:, None], self.base_w1, self.x.t(), out=self.z0)
        torch.addmm(self.z0, self.s, self.k, alpha=self.step, out=self.z)

    def _start_chunk(self) -> int:
        since_fold = self.done % FOLD_EVERY
        if self.done and not since_fold:
            self._fold()
        return min(len(self.slots), FOLD_EVERY - since_fold)

    def _iterate(self, slots: Sequence[Tensor]) -> None:
        k, z, z0, s, h, grad_h = self.k, self.z, self.z0, self.s, self.h, self.grad_h
        w2_t, step, residual_into, update_second = (
            self.b[:, :-1].t(),
            self.step,
            self._residual(),
            self._update_second(),
        )

        for slot in slots:
            torch.clamp_min(z, 0, out=h)
            residual = residual_into(slot)
            torch.mm(w2_t, residual, out=grad_h)
            relu_backward(grad_h, h, 0, grad_input=grad_h)
            update_second(residual)
            s.add_(grad_h)
            torch.addmm(z0, s, k, alpha=step, out=z)  # K is symmetric

    def _fold(self) -> None:
        """Take the collected steps into the weights, and Z from the weights: what has been rounded off is put right."""
        self._weights(self.base_w1, self.base_b1)
        self.s.zero_()
        self._restart()

    def _weights(self, w1: Tensor, b1: Tensor) -> None:
        """The first layer after all steps so far, into w1 and b1, which may be the engine's own."""
        torch.addmm(self.base_w1, self.s, self.x, alpha=self.step, out=w1)
        torch.add(self.base_b1, torch.sum(self.s, 1, out=self.s_sum), alpha=self.step, out=b1)

    @torch.no_grad()
    def sync(self) -> None:
        """Write the working state into the model's parameters."""
        super().sync()
        self._weights(self.w1, self.b1)


def _k(x: Tensor) -> Tensor:
    """K = X X' + 1, (N, N): summed up in float64, because its rounding acts in every iteration alike."""
    k = x.new_empty(len(x), len(x))
    rows, columns = 1024, 4096  # a part at a time: a copy of x in float64 may be too much
    for i in range(0, len(x), rows):
        for j in range(0, len(x), rows):
            part = torch.ones_like(k[i : i + rows, j : j + rows], dtype=torch.float64)
            for c in range(0, x.shape[1], columns):
                some = slice(c, c + columns)
                part.addmm_(x[i : i + rows, some].double(), x[j : j + rows, some].double().t())
            k[i : i + rows, j : j + rows] = part
    return k


def fused_engine(data: Data, config: Config) -> type[_Fused]:
    """The class for the config's form and the size of x."""
    if choose_form(config) == "dual":
        return DualEngine
    return FoldedEngine if data.x.numel() < FOLD_BELOW else PlainEngine
