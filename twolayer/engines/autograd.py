"""The reference engine: the loop as the rTorch book writes it, with gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twolayer.data import Data
from twolayer.engines.working import Working


class AutogradEngine(Working):
    """Gradient descent by autograd; bit-identical to `torch.optim.SGD(model.parameters(), lr)`."""

    def __init__(self, model: nn.Sequential, data: Data, *, lr: float, reduction: str) -> None:
        self.model, self.data, self.lr = model, data, lr
        self.w1, self.b1, self.w2, self.b2 = (parameter.detach() for parameter in model.parameters())
        self.loss_fn = nn.MSELoss(reduction=reduction)

    @torch.enable_grad()
    def advance(self, iterations: int) -> Tensor:
        """Do so many iterations; the loss before each update, shape (iterations,)."""
        x, y = self.data.x, self.data.y
        parameters = list(self.model.parameters())
        losses = torch.empty(iterations, dtype=x.dtype, device=x.device)
        for t in range(iterations):
            loss = self.loss_fn(self.model(x), y)
            losses[t] = loss.detach()
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    # What torch.optim.SGD does. `parameter -= lr * gradient` rounds the product first.
                    parameter.add_(gradient, alpha=-self.lr)
            del loss, gradients  # before the next forward pass, which then finds their memory warm
        return losses

    def sync(self) -> None:
        """Nothing is left to write: the updates are made in the model's parameters."""
