"""The engine for tables: gradient descent on batches of rows, or on all rows in parts, with the fewest operations.

The weights are one vector and their gradients another, so that an update is a single operation. The first layer's
weights are stored transposed, (D_in, H): if D_in is small, the product that gives their gradient then takes a fraction
of the time. The gradient's factor is part of the learning rate, and a loss is a sum over the parts, scaled at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from twolayer.engines import selection
from twolayer.engines.base import Data, TensorState, constant, relu_backward, views
from twolayer.engines.losses import ClassScore, Objective
from twolayer.engines.small_batches import SmallBatches


class _Buffers:
    """Buffers for the forward and backward pass of a part of n rows: views of the engine's own."""

    def __init__(self, engine: BatchedEngine, n: int) -> None:
        self.h, self.grad_h = engine.h[:n], engine.grad_h[:n]  # (n, H), the gradient without its factor
        self.z, self.other = (
            engine.z[:n],
            engine.other[:n],
        )  # (n, D_out): the outputs, and a buffer for results from them
        self.score = ClassScore(self.z, -1) if engine.objective.loss == "cross_entropy" else None
        self.residual = self.other if self.score else self.z
        self.residual_t = self.residual.t()


class BatchedEngine(TensorState):
    """Gradient descent on given rows or on all of them, with every result in a buffer that is allocated once.

    For cross entropy a loss comes with the accuracy: shapes given as () are then (2,). The hidden activations of at
    most `selection.part_rows` rows are in memory at once, on a CPU of as many as its cache holds.
    """

    def __init__(self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float) -> None:
        self.x, self.y, self.objective, self.lr = data.x, data.y, objective, lr  # (N, D_in), (N, D_out)
        self.parameters = [parameter.detach() for parameter in model.parameters()]
        w1, b1, w2, b2 = self.parameters
        (H, D_in), D_out = w1.shape, len(w2)
        self.weights = torch.cat([w1.t().flatten(), b1, torch.cat([w2, b2[:, None]], 1).flatten()])
        self.gradient, self.total = torch.empty_like(self.weights), torch.empty_like(self.weights)
        shapes = [(D_in + 1, H), (D_out, H + 1)]  # A' = [W1 b1]' and B = [W2 b2]
        self.a_t, self.b = views(self.weights, shapes)
        self.grad_a_t, self.grad_b = views(self.gradient, shapes)
        self.w1_t, self.b1, self.w2, self.b2 = self.a_t[:-1], self.a_t[-1], self.b[:, :-1], self.b[:, -1]
        self.grad_w1_t, self.grad_b1 = self.grad_a_t[:-1], self.grad_a_t[-1]
        self.grad_w2, self.grad_b2 = self.grad_b[:, :-1], self.grad_b[:, -1]
        self.w1, self.w2_t = self.w1_t.t(), self.w2.t()

        # PyTorch refuses a larger rate for the dtype; with this one the training diverges, and says so.
        self.largest_rate = torch.finfo(self.x.dtype).max
        # The sum of squares of a part, or its score; and of all parts.
        self.sums = self.x.new_zeros(objective.shape)
        self.sum_of_parts = torch.zeros_like(self.sums, dtype=torch.float64)
        longest = max(len(each.x) for each in (data, data.validation) if each)
        self.part = self._cached_rows(longest)
        self._allocate(self.part)
        self.batch_x, self.batch_y = self.x[:0], self.y[:0]  # allocated at the first batch
        self.batches: dict[int, tuple[Tensor, Tensor]] = {}
        self.buffers: dict[int, _Buffers] = {}
        self.scales: dict[int, tuple[float, Tensor]] = {}
        self.small = SmallBatches(
            (self.x, self.y), (self.a_t, self.b), (self.grad_a_t, self.grad_b), objective, self.part, self.scales_of
        )

    def _cached_rows(self, rows: int) -> int:
        """How many of these rows are computed at once."""
        D_in, H = self.w1_t.shape
        if self.x.device.type == "cpu":
            return selection.cached_rows(D_in, H, rows, self.x.itemsize)
        return selection.part_rows(H, rows)

    def _allocate(self, rows: int) -> None:
        """Make the buffers for this number of rows at once."""
        D_out, H = self.w2.shape
        self.h, self.grad_h = (self.x.new_empty(rows, H) for _ in range(2))
        self.z, self.other = (self.x.new_empty(rows, D_out) for _ in range(2))

    @torch.inference_mode()
    def advance(self, iterations: int) -> Tensor:
        """Do n iterations on all rows; the loss before each update, shape (iterations,) or (iterations, 2)."""
        losses = self.x.new_empty(iterations, *self.sums.shape)
        parts = self._parts(self.x, self.y)
        for loss in losses.unbind():
            self._descend(parts, len(parts), len(self.x), loss)
        return losses

    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these indices (int64); their loss before it, shape (), in `out` if given."""
        out = torch.empty_like(self.sums) if out is None else out
        self.updates([rows], out[None])
        return out

    @torch.inference_mode()
    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """An `update` for each batch; writes their losses into `out`, (len(batches),) or (len(batches), 2)."""
        start = 0
        for is_small, group in groupby(batches, self.small.fits):
            some = list(group)
            slots = out[start : start + len(some)]
            if is_small:
                self.small.updates(some, self.lr, slots)
            else:
                self._update_each(some, slots)
            start += len(some)

    def _update_each(self, batches: Sequence[Tensor], out: Tensor) -> None:
        for rows, slot in zip(batches, out.unbind(), strict=True):
            n = rows.shape[0]  # len() takes a microsecond
            parts = (rows,) if n <= self.part else torch.split(rows, self.part)
            self._descend(map(self._gather, parts), len(parts), n, slot)

    @torch.inference_mode()
    def evaluate(self, data: Data) -> Tensor:
        """The loss of the current weights on these data, shape ()."""
        rows = len(data.x)
        if rows <= self.part:
            self.check()
            self._forward(data.x, data.y)
            return self.sums / self.scales_of(rows)[1]
        self.sum_of_parts.zero_()
        for x, y in self._parts(data.x, data.y):
            self.check()
            self._forward(x, y)
            self.sum_of_parts.add_(self.sums)
        return self.sum_of_parts.to(self.sums) / self.scales_of(rows)[1]

    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state saved after `done` iterations. StateError if its names, shapes or dtypes differ."""
        if state.keys() == {"a_t", "b"}:  # versions before 0.2 trained all rows at once, with the biases folded in
            a_t, b = state["a_t"], state["b"]
            state = {"w1": a_t[:-1].t(), "b1": a_t[-1], "w2": b[:, :-1], "b2": b[:, -1]}
        super().load_state(state, done)

    @torch.no_grad()
    def sync(self) -> None:
        """Write the weights into the model's parameters."""
        torch._foreach_copy_(self.parameters, [self.w1, self.b1, self.w2, self.b2])

    def _parts(self, x: Tensor, y: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        return list(zip(torch.split(x, self.part), torch.split(y, self.part), strict=True))

    def _gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Copy the rows with these indices into the batch's buffers."""
        n = rows.shape[0]
        if n not in self.batches:
            if self.batch_x.shape[0] < n:
                self.batch_x, self.batch_y = torch.empty_like(self.x[:n]), torch.empty_like(self.y[:n])
            self.batches[n] = self.batch_x[:n], self.batch_y[:n]
        x, y = self.batches[n]
        return torch.index_select(self.x, 0, rows, out=x), torch.index_select(self.y, 0, rows, out=y)

    def scales_of(self, rows: int) -> tuple[float, Tensor]:
        """The factor of the gradient, and the divisor that turns the sums into the loss, for n rows."""
        if rows not in self.scales:
            outputs = self.y.shape[1]
            numerator, denominator = self.objective.gradient_scale(rows, outputs)
            divisor = denominator if self.objective.loss == "mse" else self.objective.score_divisors(rows)
            self.scales[rows] = (
                numerator / denominator,
                constant(divisor, self.sums),
            )
        return self.scales[rows]

    def _descend(self, parts: Iterable[tuple[Tensor, Tensor]], count: int, rows: int, out: Tensor) -> None:
        """One update from `count` parts with `rows` rows in all; writes their loss before it into `out`."""
        grad_factor, divisor = self.scales_of(rows)
        gradient = self.gradient
        if count > 1:
            gradient = self.total.zero_()
            self.sum_of_parts.zero_()
        for x, y in parts:
            self._backward(x, y, self._forward(x, y))
            if count > 1:
                self.check()
                gradient.add_(self.gradient)
                self.sum_of_parts.add_(self.sums)
        self.weights.add_(gradient, alpha=-min(grad_factor * self.lr, self.largest_rate))
        if count > 1:
            self.sums.copy_(self.sum_of_parts)
        torch.div(self.sums, divisor, out=out)

    def _forward(self, x: Tensor, y: Tensor) -> _Buffers:
        """Compute a part's residual or log-probabilities, in its buffers, and its loss or score, in `sums`."""
        v = self.buffers.get(x.shape[0])
        if v is None:
            v = self.buffers[x.shape[0]] = _Buffers(self, x.shape[0])
        torch.addmm(self.b1, x, self.w1_t, out=v.h).relu_()
        torch.addmm(self.b2, v.h, self.w2_t, out=v.z)
        if v.score is None:
            v.z.sub_(y)
            torch.mul(v.z, v.z, out=v.other)
            torch.sum(v.other, (0, 1), out=self.sums)
        else:
            v.score(v.z, y, self.sums)
        return v

    def _backward(self, x: Tensor, y: Tensor, v: _Buffers) -> None:
        """Compute a part's gradient, without its factor."""
        if v.score is not None:
            torch.exp(v.score.log_p, out=v.other).sub_(y)
        torch.mm(v.residual_t, v.h, out=self.grad_w2)
        torch.sum(v.residual, 0, out=self.grad_b2)
        torch.mm(v.residual, self.w2, out=v.grad_h)
        relu_backward(v.grad_h, v.h, 0, grad_input=v.grad_h)
        torch.mm(x.t(), v.grad_h, out=self.grad_w1_t)
        torch.sum(v.grad_h, 0, out=self.grad_b1)
