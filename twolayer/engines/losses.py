"""Squared error and cross entropy: the gradient's factor, and the score of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twolayer.config.schema import Config

log_softmax = torch.ops.aten._log_softmax.out
softmax = torch.ops.aten._softmax.out


@dataclass(frozen=True)
class Objective:
    """What is minimised: the squared error or the cross entropy, as a sum or a mean.

    A mean is over all elements of y, and for cross entropy over the rows.
    """

    loss: Literal["mse", "cross_entropy"]
    reduction: Literal["sum", "mean"]

    @classmethod
    def of(cls, config: Config) -> Objective:
        """The objective of a config."""
        return cls(config.loss, config.reduction)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one iteration's score: () for the loss; (2,) for cross entropy: the loss and the accuracy."""
        return () if self.loss == "mse" else (2,)

    def gradient_scale(self, rows: int, outputs: int) -> tuple[int, int]:
        """The gradient of the loss at the output, divided by the residual: a numerator and a denominator.

        The residual is y_pred - y, and for cross entropy softmax(z) - y. Two numbers, not their quotient, so that a
        product with the learning rate is rounded once.
        """
        if self.loss == "mse":
            return 2, 1 if self.reduction == "sum" else rows * outputs
        return 1, 1 if self.reduction == "sum" else rows

    def score_divisors(self, rows: int) -> list[float]:
        """What the two sums of `ClassScore` are divided by to give the loss and the accuracy."""
        return [-1.0 if self.reduction == "sum" else -float(rows), float(rows)]


class ClassScore:
    """Scores logits z against one-hot classes y: two sums over the rows, computed in buffers that are made once.

    The logits have shape (..., N, K) or, transposed, (..., K, N); `dim` is the dimension of the classes.
    """

    def __init__(self, z: Tensor, dim: int) -> None:
        self.dim = dim % z.dim()
        self.log_p, self.log_p_of_class = torch.empty_like(z), torch.empty_like(z)
        picked = torch.empty_like(z.narrow(self.dim, 0, 1))
        self.argmax, self.correct = picked.long(), picked
        self.sums: Tensor | None = None  # where the last sums went, and views of the two
        self.sum_views: tuple[Tensor, Tensor]

    def __call__(self, z: Tensor, y: Tensor, sums: Tensor) -> None:
        """Write the log-likelihood and the number of correct rows into `sums`, shape (..., 2).

        A row is correct if its largest logit (the first of equal ones) is that of its class.
        """
        if not z.is_contiguous():  # log_softmax would make a copy of its own
            z = self.log_p_of_class.copy_(z)
        if sums is not self.sums:
            self.sums, self.sum_views = sums, (sums[..., 0], sums[..., 1])
        log_softmax(z, self.dim, False, out=self.log_p)
        torch.argmax(z, self.dim, True, out=self.argmax)
        torch.mul(self.log_p, y, out=self.log_p_of_class)  # may overwrite z, which is no longer needed
        torch.sum(self.log_p_of_class, (-2, -1), out=self.sum_views[0])
        torch.gather(y.expand_as(z), self.dim, self.argmax, out=self.correct)
        torch.sum(self.correct, (-2, -1), out=self.sum_views[1])
