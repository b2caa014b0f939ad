"""The two losses, and what of them all engines share: the gradient's factor, and the score of classes."""

from __future__ import annotations

import torch
from torch import Tensor

log_softmax = torch.ops.aten._log_softmax.out
softmax = torch.ops.aten._softmax.out


def factor(loss: str, reduction: str, rows: int, outputs: int) -> tuple[int, int]:
    """The gradient of the loss at the output over the residual, as a fraction: numerator and denominator.

    The residual is y_pred - y, and for classes softmax(z) - y. A mean is over all elements, and for classes over rows.
    """
    if loss == "mse":
        return 2, 1 if reduction == "sum" else rows * outputs
    return 1, 1 if reduction == "sum" else rows


def score_divisors(reduction: str, rows: int) -> list[float]:
    """What the sums of a score are to be divided by, to be the loss and the accuracy."""
    return [-1.0 if reduction == "sum" else -float(rows), float(rows)]


class Score:
    """Scores logits z against classes y, which is one-hot: two sums over the rows, in buffers that are made once.

    The logits are of shape (..., N, K), or transposed, (..., K, N); `dim` counts the classes from the end.
    """

    def __init__(self, z: Tensor, dim: int) -> None:
        self.dim = dim % z.dim()
        self.log_p, self.log_p_of_class = torch.empty_like(z), torch.empty_like(z)
        picked = torch.empty_like(z.narrow(self.dim, 0, 1))
        self.most, self.hits = picked.long(), picked

    def __call__(self, z: Tensor, y: Tensor, sums: Tensor) -> None:
        """The log-likelihood, and the rows whose largest logit (of equals the first) is their class, into (..., 2)."""
        if not z.is_contiguous():  # log_softmax would make a copy of its own
            z = self.log_p_of_class.copy_(z)
        log_softmax(z, self.dim, False, out=self.log_p)
        torch.argmax(z, self.dim, True, out=self.most)
        torch.mul(self.log_p, y, out=self.log_p_of_class)  # it may hold z, which is used up
        torch.sum(self.log_p_of_class, (-2, -1), out=sums[..., 0])
        torch.gather(y.expand_as(z), self.dim, self.most, out=self.hits)
        torch.sum(self.hits, (-2, -1), out=sums[..., 1])
