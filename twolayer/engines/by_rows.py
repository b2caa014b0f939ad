"""The engine for tables in parts of the rows: an update exchanges the gradients of all weights, and the loss.

All processes have all weights, and update them alike. A batch is cut into parts, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from twolayer.engines import selection
from twolayer.engines.base import Data
from twolayer.engines.batched import BatchedEngine
from twolayer.engines.losses import Objective
from twolayer.engines.parts import ALONE, Group, Sum, aligned, edges, pieces

Chunk = tuple[Tensor, Tensor]  # of x and y


class RowsEngine(BatchedEngine):
    """Gradient descent on given rows or on all of them, in parts of the rows; this process has its own in the group.

    `evaluate` is for this process alone, on rows that it has.
    """

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, parts: int, group: Group = ALONE
    ) -> None:
        super().__init__(model, data, objective, lr=lr)
        self.count, self.group, self.N = parts, group, data.shape[0]
        self.first = 0 if data.share is None else data.share.rows.start  # of the rows that x and y have
        longest = max(end - start for start, end in pairwise(edges(self.N, parts)))
        self.chunk = selection.chunk_rows(longest, self._cached_rows(self.N), len(self.b1))  # alike in all processes
        if self.chunk > self.part:
            self._allocate(self.chunk)
        self.all_sums: dict[int, Sum] = {}  # by the number of parts
        self.own_chunks: list[list[Chunk]] | None = None  # of all rows, made where they are trained on

    @torch.inference_mode()
    def advance(self, iterations: int) -> Tensor:
        """Do n iterations on all rows; the loss before each update, shape (iterations,) or (iterations, 2)."""
        losses = self.x.new_empty(iterations, *self.sums.shape)
        chunks = self._all_chunks()
        for loss in losses.unbind():
            self._add_up(chunks, self.N, loss)
        return losses

    @torch.inference_mode()
    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """An `update` for each batch; writes their losses into `out`, (len(batches),) or (len(batches), 2)."""
        for rows, slot in zip(batches, out.unbind(), strict=True):
            n = rows.shape[0]
            chunks = [torch.split(rows[some], self.chunk) for some in self._pieces(n)]
            self._add_up([map(self._gather, some) for some in chunks], n, slot)

    @torch.inference_mode()
    def final_score(self) -> Tensor:
        """The loss of the model's weights, those of the first process, on all rows: shape () or (2,).

        The training cannot continue after this.
        """
        for own, parameter in zip((self.w1, self.b1, self.w2, self.b2), self.parameters, strict=True):
            own.copy_(parameter)
        self.group.broadcast(self.weights, 0)
        chunks, sums = self._all_chunks(), self.sums

        def compute(index: int, slot: Tensor) -> None:
            slot.zero_()
            for x, y in chunks[index]:
                self._forward(x, y)
                slot.add_(sums.view(-1))

        total = Sum(sums.view(-1).numel(), len(edges(self.N, self.count)) - 1, self.x, self.group)(compute)
        return total.view(sums.shape) / self.scales_of(self.N)[1]

    def exchanged(self) -> Sum | None:
        """The sum that an update on all rows exchanges."""
        return self._sum(self.N)

    def described(self) -> dict[str, Tensor]:
        """Tensors of the shapes and dtypes of a state."""
        return self.state()

    def _sum(self, rows: int) -> Sum:
        """Sums of gradients and of scores over the parts of `rows` rows."""
        count = len(edges(rows, self.count)) - 1
        if count not in self.all_sums:
            self.all_sums[count] = Sum(len(self.weights) + max(1, self.sums.numel()), count, self.x, self.group)
        return self.all_sums[count]

    def _all_chunks(self) -> list[list[Chunk]]:
        """The parts of all rows that are this process's own."""
        if self.own_chunks is None:
            pieces = [slice(some.start - self.first, some.stop - self.first) for some in self._pieces(self.N)]
            parts = [(aligned(self.x[some]), aligned(self.y[some])) for some in pieces]
            self.own_chunks = [
                list(zip(torch.split(x, self.chunk), torch.split(y, self.chunk), strict=True)) for x, y in parts
            ]
        return self.own_chunks

    def _pieces(self, rows: int) -> list[slice]:
        return pieces(rows, self.count, self.group)

    def _add_up(self, parts: Sequence[Iterable[Chunk]], rows: int, out: Tensor) -> None:
        """One update from this process's parts of `rows` rows in all; writes their loss before it into `out`."""
        numbers = len(self.weights)

        def compute(index: int, slot: Tensor) -> None:
            slot.zero_()
            for x, y in parts[index]:
                self._backward(x, y, self._forward(x, y))
                self.check()
                slot[:numbers].add_(self.gradient)
                slot[numbers:].add_(self.sums)

        total = self._sum(rows)(compute)
        grad_factor, divisor = self.scales_of(rows)
        self.weights.add_(total[:numbers], alpha=-min(grad_factor * self.lr, self.largest_rate))
        torch.div(total[numbers:].view(self.sums.shape), divisor, out=out)
