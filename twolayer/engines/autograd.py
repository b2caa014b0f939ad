"""The reference engine: the loop as the rTorch book writes it, with gradients by autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from twolayer.engines import selection
from twolayer.engines.base import Data, TensorState


class AutogradEngine(TensorState):
    """Gradient descent by autograd; bit-identical to `torch.optim.SGD(model.parameters(), lr)`.

    Rows are all those of the data, or those that `update` is given; of too many (`selection.part_rows`) the gradients
    of parts are added up. For classes a loss comes with the accuracy: what is said to be of shape () is of shape (2,).
    """

    def __init__(self, model: nn.Sequential, data: Data, *, lr: float, reduction: str, loss: str = "mse") -> None:
        self.model, self.data, self.lr, self.reduction, self.loss = model, data, lr, reduction, loss
        self.w1, self.b1, self.w2, self.b2 = (parameter.detach() for parameter in model.parameters())
        self.parameters = list(model.parameters())
        self.loss_fn = (nn.MSELoss if loss == "mse" else nn.CrossEntropyLoss)(reduction=reduction)

    @torch.enable_grad()
    def advance(self, iterations: int) -> Tensor:
        """Do so many iterations; the loss before each update, shape (iterations,) or (iterations, 2)."""
        x, y = self.data.x, self.data.y
        losses = x.new_empty(iterations) if self.loss == "mse" else x.new_empty(iterations, 2)
        parts = self._parts(x, y)
        for t in range(iterations):
            losses[t] = self._descend(parts, len(x))
        return losses

    @torch.enable_grad()
    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these numbers, int64; their loss before it, shape (), in `out` where given."""
        loss = self._descend(self._parts(self.data.x[rows], self.data.y[rows]), len(rows))
        return loss if out is None else out.copy_(loss)

    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """One `update` after the other; their losses go into `out`, (len(batches),) or (len(batches), 2)."""
        for rows, slot in zip(batches, out, strict=True):
            self.update(rows, slot)

    @torch.no_grad()
    def evaluate(self, data: Data) -> Tensor:
        """The loss of the weights as they are on these data, shape ()."""
        return _total([self._loss(x, y, len(data.x))[1] for x, y in self._parts(data.x, data.y)])

    def _parts(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        rows = selection.part_rows(len(self.w1), len(x))
        return list(zip(torch.split(x, rows), torch.split(y, rows), strict=True))

    def _loss(self, x: Tensor, y: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """What a part adds to the loss of so many rows; the same detached, with the accuracy for classes."""
        y_pred = self.model(x)
        loss = self.loss_fn(y_pred, y if self.loss == "mse" else y.argmax(1))
        if self.reduction == "mean" and len(x) < rows:
            loss = loss * (len(x) / rows)
        if self.loss == "mse":
            return loss, loss.detach()
        hits = (y_pred.argmax(1) == y.argmax(1)).sum()
        return loss, torch.stack([loss.detach(), hits.to(loss) / rows])

    def _descend(self, parts: Sequence[tuple[Tensor, Tensor]], rows: int) -> Tensor:
        """One update; the loss before it."""
        losses: list[Tensor] = []
        total: Sequence[Tensor] = ()
        for x, y in parts:
            loss, detached = self._loss(x, y, rows)
            losses.append(detached)
            gradients = torch.autograd.grad(loss, self.parameters)
            total = [a + b for a, b in zip(total, gradients, strict=True)] if total else gradients
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters, total, strict=True):
                # What torch.optim.SGD does. `parameter -= lr * gradient` rounds the product first.
                parameter.add_(gradient, alpha=-self.lr)
        return _total(losses)  # all else is let go before the next forward pass, which then finds its memory warm

    def sync(self) -> None:
        """Nothing is left to write: the updates are made in the model's parameters."""


def _total(losses: Sequence[Tensor]) -> Tensor:
    """The sum of the parts' losses, added up in float64."""
    return losses[0] if len(losses) == 1 else torch.stack(list(losses)).sum(0, dtype=torch.float64).to(losses[0])
