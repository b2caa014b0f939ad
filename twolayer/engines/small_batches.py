"""Updates from small batches on a CPU, where calling an operation costs more than its arithmetic: seven to nine each.

The rows of several batches are fetched at once, and their losses are computed at once. As in `fused.PrimalEngine` the
biases are folded into the products, and most is stored transposed: with X+ = [X 1], A = [W1 b1], B = [W2 b2] and
H+' = [relu(A X+') 1] the residual is E' = B H+' - Y', for classes softmax(B H+') - Y', and an update is
B <- B - r E' H+ and A' <- A' - r X+' G, with the gradient G of the hidden units: one operation each, or two where one
would round more often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor

from twolayer.engines.base import relu_backward
from twolayer.engines.losses import ClassScore, Objective, softmax

# At most so many batches are fetched at once, with at most so many numbers of x, and a quarter as many of y.
BATCHES, NUMBERS = 64, 2**18
# A batch of more numbers of x, of y or of hidden activations is not small: alone it took less time. Squared errors are
# added up one by one, of classes only a number for each row.
SMALL_X, SMALL_HIDDEN = 2**17, 2**18
SMALL_Y = {"mse": 2**12, "cross_entropy": 2**14}
SMALL_GAP = 2**14  # numbers of x or of y that are fetched for nothing, after the rows of a batch
# To a matrix MKL adds a product of more rows than its block (192, where it was measured) part by part, rounding each
# time; and of a single hidden unit row by row.
BLOCK = 128
# For at most so many sequences of batch sizes the views are kept. Of a long epoch 64 batches in a row have at most 65
# sequences, wherever they begin, and each call may end with another one.
PLANS = 256

# A batch starts at a multiple of so many rows, which is one of 64 bytes: the address decides the order of addition in
# some operations, and a batch must give the same bits wherever it stands.
ALIGNED = 16


class _Rows:
    """Buffers for some rows of the data, and for what is computed of each."""

    def __init__(self, x: Tensor, y: Tensor, objective: Objective, rows: int) -> None:
        D_in, D_out = x.shape[1], y.shape[1]
        self.rows = rows
        self.indices = torch.zeros(rows, dtype=torch.int64)
        self.x, self.x_ones = x.new_empty(rows, D_in), x.new_ones(rows, D_in + 1)
        self.y, self.z = x.new_zeros(rows, D_out), x.new_zeros(rows, D_out)
        is_mse = objective.loss == "mse"
        # Of each output the squared error; or of each row the log-likelihood of its class, and whether it is correct.
        self.class_score = None if is_mse else ClassScore(self.z[:, None], 2)
        self.scores = self.z.view(-1) if is_mse else x.new_empty(rows, 2)
        self.exact_scores = torch.empty_like(self.scores, dtype=torch.float64)


class _Hidden(NamedTuple):
    """Buffers for a batch of n rows, and views of them."""

    h_ones_t: Tensor  # H+', (H + 1, n)
    h_t: Tensor  # (H, n)
    h_ones: Tensor  # (n, H + 1)
    grad_h_t: Tensor  # G', (H, n), without its factor
    grad_h: Tensor
    outputs_t: Tensor  # of classes, (D_out, n)
    outputs: Tensor
    residual_t: Tensor  # E' of classes, (D_out, n)


class _Batch(NamedTuple):
    """A batch's part of the rows that are fetched, and of their outputs."""

    x_ones_t: Tensor  # X+', (D_in + 1, n)
    y_t: Tensor  # (D_out, n)
    z: Tensor  # E', (D_out, n); of classes the outputs, (n, D_out)
    hidden: _Hidden
    factor: float  # of the gradient
    is_long: bool  # whether a product with it has more rows than a block


class _Plan:
    """Views of the buffers for batches of these sizes, one after another."""

    def __init__(self, small: SmallBatches, b: _Rows, sizes: tuple[int, ...]) -> None:
        count, D_out = len(sizes), b.z.shape[1]
        starts = [0, *accumulate(map(_aligned, sizes))]
        n = starts[-1]
        self.gaps = [b.indices.new_zeros(_aligned(size) - size) for size in sizes]  # any row will do
        self.indices, self.x, self.x_ones, self.y = b.indices[:n], b.x[:n], b.x_ones[:n, :-1], b.y[:n]
        self.batches = [
            _Batch(
                b.x_ones[start : start + size].t(),
                b.y[start : start + size].t(),
                b.z[start : start + size].view((D_out, size) if small.is_mse else (size, D_out)),
                small.hidden(size),
                small.scales_of(size)[0],
                size > BLOCK,
            )
            for start, size in zip(starts[:-1], sizes, strict=True)
        ]
        each = D_out if small.is_mse else 1  # scores of a row
        # Which batch a score is of; `count` for those of gaps.
        self.batch = torch.full((n * each,), count, dtype=torch.int32)
        for i, (start, size) in enumerate(zip(starts[:-1], sizes, strict=True)):
            self.batch[start * each : (start + size) * each] = i
        self.divisors = torch.stack([small.scales_of(size)[1] for size in sizes]).double()
        sums = self.divisors.new_empty(count + 1, *self.divisors.shape[1:])
        self.all_sums, self.sums = sums, sums[:count]  # (count,), or (count, 2)
        self.columns = list(zip(*(t.view(len(t), -1).t() for t in (sums, b.exact_scores[: n * each])), strict=True))


class SmallBatches:
    """Trains A', (D_in + 1, H), and B, (D_out, H + 1), on batches that `fits` says are small.

    What comes of a batch does not depend on where calls begin and end. `gradients` are buffers of the same shapes,
    `part` rows at most may be computed at once, and `scales_of` gives the factor of the gradient for n rows, and the
    divisor that turns their sums into the loss.
    """

    def __init__(
        self,
        data: tuple[Tensor, Tensor],
        weights: tuple[Tensor, Tensor],
        gradients: tuple[Tensor, Tensor],
        objective: Objective,
        part: int,
        scales_of: Callable[[int], tuple[float, Tensor]],
    ) -> None:
        self.x, self.y = data
        self.weights, self.gradients, self.objective, self.scales_of = weights, gradients, objective, scales_of
        self.is_mse = objective.loss == "mse"
        self.buffers = _Rows(self.x, self.y, objective, 0)
        self.plans: dict[tuple[int, ...], _Plan] = {}
        self.all_hidden: dict[int, _Hidden] = {}
        self.largest = 0  # rows of a small batch
        self.widest = max(len(weights[0]), 4 * len(weights[1]))
        if self.x.device.type == "cpu":
            D_in_1, H = weights[0].shape
            with_gap = min(SMALL_X // D_in_1, SMALL_Y[objective.loss] // len(weights[1])) // ALIGNED * ALIGNED
            self.largest = min(part, SMALL_HIDDEN // H, with_gap)

    def fits(self, rows: Tensor) -> bool:
        """Whether these rows are a small batch."""
        n = rows.shape[0]
        return n <= self.largest and (_aligned(n) - n) * self.widest <= SMALL_GAP

    def updates(self, batches: Sequence[Tensor], lr: float, out: Tensor) -> None:
        """An update for each batch of rows (int64); writes their losses into `out`, (count,) or (count, 2)."""
        largest = max(rows.shape[0] for rows in batches)
        count = min(BATCHES, NUMBERS // (_aligned(largest) * self.widest))
        for start in range(0, len(batches), count):
            some = batches[start : start + count]
            plan = self._plan(tuple(rows.shape[0] for rows in some))
            self._fetch(plan, some)
            self._descend(plan.batches, lr)
            self._losses(plan)
            out[start : start + len(some)].copy_(plan.sums)

    def _fetch(self, plan: _Plan, batches: Sequence[Tensor]) -> None:
        """Copy the rows of the batches into the buffers."""
        torch.cat(list(chain.from_iterable(zip(batches, plan.gaps, strict=True))), out=plan.indices)
        plan.x_ones.copy_(torch.index_select(self.x, 0, plan.indices, out=plan.x))
        torch.index_select(self.y, 0, plan.indices, out=plan.y)

    def _descend(self, batches: Sequence[_Batch], lr: float) -> None:
        """An update from each batch; its residual, of classes its outputs, are in z then."""
        # With several threads, too, MKL adds a product to a matrix part by part.
        is_rounded = torch.get_num_threads() > 1 or self.weights[0].shape[1] == 1
        (a_t, b), (grad_a_t, grad_b), is_mse = self.weights, self.gradients, self.is_mse
        a, w2_t, largest_rate = a_t.t(), b[:, :-1].t(), torch.finfo(b.dtype).max
        for x_ones_t, y_t, z, hidden, factor, is_long in batches:
            h_ones_t, h_t, h_ones, grad_h_t, grad_h, outputs_t, outputs, residual_t = hidden
            torch.mm(a, x_ones_t, out=h_t).relu_()
            if is_mse:
                residual_t = torch.addmm(y_t, b, h_ones_t, beta=-1, out=z)
            else:
                softmax(torch.mm(b, h_ones_t, out=outputs_t), 0, False, out=residual_t)
                residual_t.sub_(y_t)
                z.copy_(outputs)
            torch.mm(w2_t, residual_t, out=grad_h_t)
            relu_backward(grad_h_t, h_t, 0, grad_input=grad_h_t)
            rate = -min(factor * lr, largest_rate)
            if is_rounded or is_long:
                b.add_(torch.mm(residual_t, h_ones, out=grad_b), alpha=rate)
                a_t.add_(torch.mm(x_ones_t, grad_h, out=grad_a_t), alpha=rate)
            else:
                b.addmm_(residual_t, h_ones, alpha=rate)
                a_t.addmm_(x_ones_t, grad_h, alpha=rate)

    def _losses(self, plan: _Plan) -> None:
        """Sum up the scores, in float64, to the losses before the updates, for classes with the accuracies."""
        b = self.buffers
        if b.class_score is None:
            b.z.mul_(b.z)
        else:
            b.class_score(b.z[:, None], b.y[:, None], b.scores)
        b.exact_scores.copy_(b.scores)
        plan.all_sums.zero_()
        for sums, scores in plan.columns:
            sums.index_add_(0, plan.batch, scores)
        plan.sums.div_(plan.divisors)

    def _plan(self, sizes: tuple[int, ...]) -> _Plan:
        plan = self.plans.get(sizes)
        if plan is None:
            rows = sum(map(_aligned, sizes))
            if self.buffers.rows < rows or len(self.plans) == PLANS:
                self.plans.clear()
                self.all_hidden.clear()
            if self.buffers.rows < rows:
                self.buffers = _Rows(self.x, self.y, self.objective, rows)
            plan = self.plans[sizes] = _Plan(self, self.buffers, sizes)
        return plan

    def hidden(self, n: int) -> _Hidden:
        """The buffers for a batch of n rows."""
        if n not in self.all_hidden:
            H, D_out, x = self.weights[0].shape[1], len(self.weights[1]), self.x
            h_ones_t, grad_h_t = x.new_ones(H + 1, n), x.new_empty(H, n)
            outputs_t, residual_t = x.new_empty(D_out, n), x.new_empty(D_out, n)
            self.all_hidden[n] = _Hidden(
                h_ones_t, h_ones_t[:-1], h_ones_t.t(), grad_h_t, grad_h_t.t(), outputs_t, outputs_t.t(), residual_t
            )
        return self.all_hidden[n]


def _aligned(rows: int) -> int:
    return -(-rows // ALIGNED) * ALIGNED
