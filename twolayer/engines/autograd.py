"""The reference engine: the loop as the rTorch book writes it, with gradients by autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from twolayer.engines import selection
from twolayer.engines.base import Data, TensorState
from twolayer.engines.losses import Objective


class AutogradEngine(TensorState):
    """Gradient descent by autograd; bit-identical to `torch.optim.SGD(model.parameters(), lr)`.

    If there are more rows than `selection.part_rows` allows at once, the gradients of parts are added up. For cross
    entropy a loss comes with the accuracy: shapes given as () are then (2,).
    """

    def __init__(self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float) -> None:
        self.model, self.data, self.objective, self.lr = model, data, objective, lr
        self.w1, self.b1, self.w2, self.b2 = (parameter.detach() for parameter in model.parameters())
        self.parameters = list(model.parameters())
        self.is_mse = objective.loss == "mse"
        self.loss_fn = (nn.MSELoss if self.is_mse else nn.CrossEntropyLoss)(reduction=objective.reduction)

    @torch.enable_grad()
    def advance(self, iterations: int) -> Tensor:
        """Do n iterations; the loss before each update, shape (iterations,) or (iterations, 2)."""
        x, y = self.data.x, self.data.y
        losses = x.new_empty(iterations, *self.objective.shape)
        parts = self._parts(x, y)
        for t in range(iterations):
            losses[t] = self._descend(parts, len(x))
        return losses

    @torch.enable_grad()
    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these indices (int64); their loss before it, shape (), in `out` if given."""
        loss = self._descend(self._parts(self.data.x[rows], self.data.y[rows]), len(rows))
        return loss if out is None else out.copy_(loss)

    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """An `update` for each batch; writes their losses into `out`, (len(batches),) or (len(batches), 2)."""
        for rows, slot in zip(batches, out, strict=True):
            self.update(rows, slot)

    @torch.no_grad()
    def evaluate(self, data: Data) -> Tensor:
        """The loss of the current weights on these data, shape ()."""
        losses = []
        for x, y in self._parts(data.x, data.y):
            self.check()
            losses.append(self._loss(x, y, len(data.x))[1])
        return _total(losses)

    def _parts(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        rows = selection.part_rows(len(self.w1), len(x))
        return list(zip(torch.split(x, rows), torch.split(y, rows), strict=True))

    def _loss(self, x: Tensor, y: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """The contribution of a part to the loss over `rows` rows; and the same detached, with the accuracy."""
        y_pred = self.model(x)
        loss = self.loss_fn(y_pred, y if self.is_mse else y.argmax(1))
        if self.objective.reduction == "mean" and len(x) < rows:
            loss = loss * (len(x) / rows)
        if self.is_mse:
            return loss, loss.detach()
        correct = (y_pred.argmax(1) == y.argmax(1)).sum()
        return loss, torch.stack([loss.detach(), correct.to(loss) / rows])

    def _descend(self, parts: Sequence[tuple[Tensor, Tensor]], rows: int) -> Tensor:
        """One update; the loss before it."""
        losses: list[Tensor] = []
        total: Sequence[Tensor] = ()
        for x, y in parts:
            loss, detached = self._loss(x, y, rows)
            losses.append(detached)
            self.check()
            gradients = torch.autograd.grad(loss, self.parameters)
            total = [a + b for a, b in zip(total, gradients, strict=True)] if total else gradients
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters, total, strict=True):
                # What torch.optim.SGD does. `parameter -= lr * gradient` rounds the product first.
                parameter.add_(gradient, alpha=-self.lr)
        return _total(losses)  # all else is freed before the next forward pass, whose memory is then still in the cache

    def sync(self) -> None:
        """Nothing to do: the updates are made in the model's parameters."""


def _total(losses: Sequence[Tensor]) -> Tensor:
    """The sum of the parts' losses, added up in float64."""
    return losses[0] if len(losses) == 1 else torch.stack(list(losses)).sum(0, dtype=torch.float64).to(losses[0])
