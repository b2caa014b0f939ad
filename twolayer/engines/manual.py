"""Backpropagation written out, as in torch for R's "Neural network from scratch"; no autograd."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twolayer.engines.base import Data, TensorState, constant, log_softmax_backward, relu_backward
from twolayer.engines.losses import ClassScore, Objective


class ManualEngine(TensorState):
    """Gradient descent in tensor operations, with every result in a buffer that is allocated once.

    On the CPU each operation is the one that autograd's backward would run, in its order, so losses and
    weights equal the autograd engine's bit for bit (docs/numerics.md names the one exception).
    """

    def __init__(self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float) -> None:
        self.x, self.y, self.lr = data.x, data.y, lr  # (N, D_in), (N, D_out)
        self.w1, self.b1, self.w2, self.b2 = (parameter.detach() for parameter in model.parameters())
        N, (H, D_in), D_out = len(self.x), self.w1.shape, len(self.w2)
        self.objective, self.reduce = objective, torch.sum if objective.reduction == "sum" else torch.mean
        numerator, denominator = objective.gradient_scale(N, D_out)
        # As a tensor, because PyTorch would convert a Python number to one in every iteration.
        self.grad_scale = constant(numerator / denominator, self.x)

        self.h_relu, self.grad_h = self.x.new_empty(N, H), self.x.new_empty(N, H)
        self.y_pred, self.squared = self.x.new_empty(N, D_out), self.x.new_empty(N, D_out)
        self.grad_w1, self.grad_b1 = self.x.new_empty(H, D_in), self.x.new_empty(H)
        self.grad_w2, self.grad_b2 = self.x.new_empty(D_out, H), self.x.new_empty(D_out)
        if objective.loss == "cross_entropy":
            self.score = ClassScore(self.y_pred, dim=-1)
            self.score_divisors = constant(objective.score_divisors(N), self.x)
            self.grad_log_p = -self.grad_scale * self.y

    @torch.no_grad()
    def advance(self, iterations: int) -> Tensor:
        """Do n iterations; the loss before each update, shape (iterations,) or (iterations, 2)."""
        losses = self.x.new_empty(iterations, *self.objective.shape)
        x, w1, b1, w2, b2 = self.x, self.w1, self.b1, self.w2, self.b2
        h_relu, grad_h, y_pred = self.h_relu, self.grad_h, self.y_pred
        grad_w1, grad_b1, grad_w2, grad_b2 = self.grad_w1, self.grad_b1, self.grad_w2, self.grad_b2
        w1_t, w2_t, grad_h_t, grad_y_t = w1.t(), w2.t(), grad_h.t(), y_pred.t()  # views of the buffers
        grad_at_output = self._squared_error if self.objective.loss == "mse" else self._cross_entropy
        rate, check = -self.lr, self.check

        for loss in losses.unbind():
            # Forward: the hidden layer, the prediction, the loss, and its gradient in the prediction's buffer.
            torch.addmm(b1, x, w1_t, out=h_relu).clamp_(min=0)
            torch.addmm(b2, h_relu, w2_t, out=y_pred)
            grad_y = grad_at_output(loss)

            # Backward: the gradients of the loss, from the output to the input.
            torch.mm(grad_y_t, h_relu, out=grad_w2)
            torch.sum(grad_y, 0, out=grad_b2)
            torch.mm(grad_y, w2, out=grad_h)
            relu_backward(grad_h, h_relu, 0, grad_input=grad_h)
            check()
            torch.mm(grad_h_t, x, out=grad_w1)
            torch.sum(grad_h, 0, out=grad_b1)

            w1.add_(grad_w1, alpha=rate)
            b1.add_(grad_b1, alpha=rate)
            w2.add_(grad_w2, alpha=rate)
            b2.add_(grad_b2, alpha=rate)
        return losses

    def _squared_error(self, loss: Tensor) -> Tensor:
        """The gradient at the output, written over the prediction; writes the loss into `loss`."""
        residual = self.y_pred.sub_(self.y)
        torch.mul(residual, residual, out=self.squared)
        self.reduce(self.squared, (0, 1), out=loss)
        return residual.mul_(self.grad_scale)

    def _cross_entropy(self, loss: Tensor) -> Tensor:
        """The gradient at the output, written over the logits; writes the loss and the accuracy into `loss`."""
        z = self.y_pred
        self.score(z, self.y, loss)
        loss.div_(self.score_divisors)
        log_softmax_backward(self.grad_log_p, self.score.log_p, 1, z.dtype, out=z)
        return z

    def sync(self) -> None:
        """Nothing to do: the updates are made in the model's parameters."""
