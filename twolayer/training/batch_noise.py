"""The row that curves the loss of a batch most: what it adds to the curvature over all rows."""

from __future__ import annotations

import torch
from torch import Tensor

from twolayer.engines.base import Data
from twolayer.training.hessian import Weights

CANDIDATES = 32  # the rows with the largest norms

# The learning rate is half the limit for the average over the rows. For the heaviest row it may be at the limit, which
# that row alone meets once in an epoch: half of its curvature counts.
SHARE = 0.5


class HeaviestRow:
    """A sample of the rows, and after it the heaviest of all rows with the weight that it has in a batch.

    Averaged over all rows, a row weighs 1 / N; in its batch of b rows it weighs 1 / b. Where its inputs are large, as
    those of a rare category are after scaling, the loss of that batch has many times the curvature of the loss over all
    rows, and a learning rate for the latter overshoots each time the row is met.
    """

    def __init__(self, data: Data, sample: Data) -> None:
        self.n = len(sample.x)
        squares = torch.cat([part.square().sum(1) for part in torch.split(data.x, 2**16)])
        rows = torch.topk(squares, min(CANDIDATES, len(squares))).indices
        self.x, self.y, self.squares = data.x[rows], data.y[rows], squares[rows]
        self.data = Data(torch.cat([sample.x, self.x[:1]]), torch.cat([sample.y, self.y[:1]]))

    def weights(self, N: int, batches: int) -> Tensor:
        """The weights of the rows of `data`, (n + 1,), relative to those of the sample."""
        weights = self.squares.new_ones(self.n + 1)
        weights[-1] = SHARE * self.n * (batches - 1) / N  # n (1 / b - 1 / N)
        return weights

    def choose(self, weights: Weights) -> None:
        """Put the row at the end of `data` whose loss has the largest curvature at these weights, by an upper bound."""
        w1, b1, w2, _ = weights
        h = torch.addmm(b1, self.x, w1.t()).relu_()
        # Of the squared gradients of the outputs by the weights: of the first layer's, and of the second's.
        first = (self.squares + 1) * ((h > 0).to(h) @ w2.square().sum(0))
        row = int(torch.argmax(first + len(w2) * (h.square().sum(1) + 1)))
        self.data.x[-1], self.data.y[-1] = self.x[row], self.y[row]
