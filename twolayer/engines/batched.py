"""The engine for tables: gradient descent on batches of rows, or on all rows in parts, with the fewest operations.

The weights are one vector and their gradients another, so that an update is a single operation. In it the first
layer's weights lie transposed, (D_in, H): where D_in is small, the product that is their gradient then takes a fraction
of the time. The step takes in the gradient's factor, and a loss is a sum over the parts, which is scaled in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from twolayer.engines import selection
from twolayer.engines.base import Data, TensorState, relu_backward, views
from twolayer.engines.losses import Score, factor, score_divisors


class _Buffers:
    """What a part of so many rows, n, leaves on its way through the network and back: views of the engine's."""

    def __init__(self, engine: RowsEngine, n: int) -> None:
        self.h, self.grad_h = engine.h[:n], engine.grad_h[:n]  # (n, H), the gradient short of its factor
        self.z, self.other = engine.z[:n], engine.other[:n]  # (n, D_out): the outputs, and what comes of them
        self.score = Score(self.z, -1) if engine.loss == "cross_entropy" else None
        self.residual = self.other if self.score else self.z
        self.residual_t = self.residual.t()


class RowsEngine(TensorState):
    """Gradient descent on the rows that it is given, or on all of them, with every result in a buffer made once.

    For classes a loss comes with the accuracy: what is said to be of shape () is then of shape (2,). No more rows'
    hidden units are held at once than `selection.part_rows` says.
    """

    def __init__(self, model: nn.Sequential, data: Data, *, lr: float, reduction: str, loss: str = "mse") -> None:
        self.x, self.y, self.lr = data.x, data.y, lr  # (N, D_in), (N, D_out)
        self.reduction, self.loss = reduction, loss
        self.parameters = [parameter.detach() for parameter in model.parameters()]
        w1, b1, w2, b2 = self.parameters
        (H, D_in), D_out = w1.shape, len(w2)
        self.weights = torch.cat([w1.t().flatten(), b1, w2.flatten(), b2])
        self.gradient, self.total = torch.empty_like(self.weights), torch.empty_like(self.weights)
        shapes = [(D_in, H), (H,), (D_out, H), (D_out,)]
        self.w1_t, self.b1, self.w2, self.b2 = views(self.weights, shapes)
        self.grad_w1_t, self.grad_b1, self.grad_w2, self.grad_b2 = views(self.gradient, shapes)
        self.w1, self.w2_t = self.w1_t.t(), self.w2.t()

        self.largest = torch.finfo(self.x.dtype).max  # beyond it a step would be refused, and is to diverge
        # The sum of a part's squares, or its score; and that of all parts.
        self.sums = self.x.new_zeros(() if loss == "mse" else 2)
        self.sum_of_parts = torch.zeros_like(self.sums, dtype=torch.float64)
        longest = max(len(each.x) for each in (data, data.validation) if each)
        self.part = selection.part_rows(H, longest)
        self.h, self.grad_h = (self.x.new_empty(self.part, H) for _ in range(2))
        self.z, self.other = (self.x.new_empty(self.part, D_out) for _ in range(2))
        self.batch_x, self.batch_y = self.x[:0], self.y[:0]  # made when there is a batch
        self.batches: dict[int, tuple[Tensor, Tensor]] = {}
        self.buffers: dict[int, _Buffers] = {}
        self.scales: dict[int, tuple[float, Tensor]] = {}

    @torch.inference_mode()
    def advance(self, iterations: int) -> Tensor:
        """Do so many iterations on all rows; the loss before each update, shape (iterations,) or (iterations, 2)."""
        losses = self.x.new_empty(iterations, *self.sums.shape)
        parts = self._parts(self.x, self.y)
        for loss in losses.unbind():
            self._descend(parts, len(parts), len(self.x), loss)
        return losses

    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these numbers, int64; their loss before it, shape (), in `out` where given."""
        out = torch.empty_like(self.sums) if out is None else out
        self.updates([rows], out[None])
        return out

    @torch.inference_mode()
    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """One `update` after the other; their losses go into `out`, (len(batches),) or (len(batches), 2)."""
        for rows, slot in zip(batches, out.unbind(), strict=True):
            n = rows.shape[0]  # len() takes a microsecond
            parts = (rows,) if n <= self.part else torch.split(rows, self.part)
            self._descend(map(self._gather, parts), len(parts), n, slot)

    @torch.inference_mode()
    def evaluate(self, data: Data) -> Tensor:
        """The loss of the weights as they are on these data, shape ()."""
        self.sum_of_parts.zero_()
        for x, y in self._parts(data.x, data.y):
            self._forward(x, y)
            self.sum_of_parts.add_(self.sums)
        return self.sum_of_parts.to(self.sums) / self._scales(len(data.x))[1]

    @torch.no_grad()
    def sync(self) -> None:
        """Write the working state into the model's parameters."""
        for parameter, own in zip(self.parameters, (self.w1, self.b1, self.w2, self.b2), strict=True):
            parameter.copy_(own)

    def _parts(self, x: Tensor, y: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        return list(zip(torch.split(x, self.part), torch.split(y, self.part), strict=True))

    def _gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The rows with these numbers, in the batch's buffers."""
        n = rows.shape[0]
        if n not in self.batches:
            if self.batch_x.shape[0] < n:
                self.batch_x, self.batch_y = torch.empty_like(self.x[:n]), torch.empty_like(self.y[:n])
            self.batches[n] = self.batch_x[:n], self.batch_y[:n]
        x, y = self.batches[n]
        return torch.index_select(self.x, 0, rows, out=x), torch.index_select(self.y, 0, rows, out=y)

    def _scales(self, rows: int) -> tuple[float, Tensor]:
        """The factor of the gradient, and what the sums are divided by to be the loss, for so many rows."""
        if rows not in self.scales:
            outputs = self.y.shape[1]
            numerator, denominator = factor(self.loss, self.reduction, rows, outputs)
            divisor = denominator if self.loss == "mse" else score_divisors(self.reduction, rows)
            self.scales[rows] = numerator / denominator, self.sums.new_tensor(divisor)
        return self.scales[rows]

    def _descend(self, parts: Iterable[tuple[Tensor, Tensor]], count: int, rows: int, out: Tensor) -> None:
        """One update from so many parts, together so many rows; their loss before it goes into `out`."""
        grad_factor, divisor = self._scales(rows)
        gradient = self.gradient
        if count > 1:
            gradient = self.total.zero_()
            self.sum_of_parts.zero_()
        for x, y in parts:
            self._backward(x, self._forward(x, y))
            if count > 1:
                gradient.add_(self.gradient)
                self.sum_of_parts.add_(self.sums)
        self.weights.add_(gradient, alpha=-min(grad_factor * self.lr, self.largest))
        if count > 1:
            self.sums.copy_(self.sum_of_parts)
        torch.div(self.sums, divisor, out=out)

    def _forward(self, x: Tensor, y: Tensor) -> _Buffers:
        """The residual of a part, in its buffers, and the sum of its squares or its score in `sums`."""
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
            torch.exp(v.score.log_p, out=v.other).sub_(y)
        return v

    def _backward(self, x: Tensor, v: _Buffers) -> None:
        """The gradient of a part, short of its factor."""
        torch.mm(v.residual_t, v.h, out=self.grad_w2)
        torch.sum(v.residual, 0, out=self.grad_b2)
        torch.mm(v.residual, self.w2, out=v.grad_h)
        relu_backward(v.grad_h, v.h, 0, grad_input=v.grad_h)
        torch.mm(x.t(), v.grad_h, out=self.grad_w1_t)
        torch.sum(v.grad_h, 0, out=self.grad_b1)
