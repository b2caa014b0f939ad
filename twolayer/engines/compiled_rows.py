"""The compiled engine in parts of the rows: an update exchanges the gradients of all weights, and the loss.

As in `by_rows` all processes have all weights, and update them alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from twolayer.engines.base import Data
from twolayer.engines.compiled import CALL, Array, CompiledCall, CompiledEngine
from twolayer.engines.kernels import PART
from twolayer.engines.losses import Objective
from twolayer.engines.parts import ALONE, Group, Sum, edges, own
from twolayer.engines.vectors import ROWS

CHUNK = 16 * PART  # rows of one call, at most: its gradient is one term of the sum over the rows of a part

Chunks = list[tuple[int, int]]  # of rows, from the first to the one behind the last


class CompiledRowsEngine(CompiledEngine):
    """The compiled engine in parts of the rows; this process has its own in the group, and computes with one thread.

    `evaluate` is for this process alone, on rows that it has.
    """

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, parts: int, group: Group = ALONE
    ) -> None:
        self.parts, self.group = parts, group
        self.all_sums: dict[int, Sum] = {}  # by the number of parts
        super().__init__(model, data, objective, lr=lr)

    def exchanged(self) -> Sum | None:
        """The sum that an update on all rows exchanges."""
        return self._sum(len(edges(len(self.x), self.parts)) - 1)

    def described(self) -> dict[str, Tensor]:
        """Tensors of the shapes and dtypes of a state."""
        return self.state()

    @torch.no_grad()
    def _run(self, x: Tensor, y: Tensor, order: Array, begins: Array, ends: Array, lr: float | None) -> Tensor:
        """Update on each batch of rows, unless lr is None; their losses before that."""
        if lr is None:
            return super()._run(x, y, order, begins, ends, lr)
        losses = self.x.new_empty(len(ends), *self.objective.shape)
        block = ROWS if order.size else 0  # the kernel takes so many rows at once; a batch may have few
        starts, sizes = begins.tolist(), (ends - begins).tolist()
        cuts = [edges(rows, self.parts, block) for rows in sizes]
        parts = [self._own_chunks(start, cut) for start, cut in zip(starts, cuts, strict=True)]
        flat = np.array([chunk for of_batch in parts for part in of_batch for chunk in part], dtype=np.int64)
        first, last = np.ascontiguousarray(flat.reshape(-1, 2).T)
        self._make_buffers(threads=1, groups=1)
        call = self._call((x, y, order), (first, last, last - first), losses, lr, groups=1)
        self._pack()
        numbers = iter(range(len(first)))  # of the chunks
        for own_parts, cut, loss in zip(parts, cuts, losses.unbind(), strict=True):
            self._update(call, numbers, own_parts, cut, loss)
        self._unpack()
        return losses

    def _update(
        self, call: CompiledCall, numbers: Iterator[int], parts: Sequence[Chunks], cut: Sequence[int], out: Tensor
    ) -> None:
        """One update from this process's parts; writes the loss before it into `out`."""
        size, sums = len(self.weights), torch.from_numpy(self.sums)[: max(1, out.numel())]
        gradient = self.gradients[:size]

        def compute(index: int, slot: Tensor) -> None:
            slot.zero_()
            for _ in parts[index]:
                number = next(numbers)
                call((number, number + 1), (0, 1), 0, finishes=False)
                self.check()
                slot[:size].add_(gradient)
                slot[size:].add_(sums)

        total = self._sum(len(cut) - 1)(compute)
        rows, is_mse = cut[-1], self.objective.loss == "mse"
        numerator, denominator = self.objective.gradient_scale(rows, self.shape[2])
        rate = min(numerator * self.lr / denominator, torch.finfo(self.x.dtype).max)  # PyTorch refuses a larger one
        self.weights.add_(total[:size], alpha=-rate)
        divisors = [denominator] if is_mse else [denominator, rows]
        torch.div(total[size:], self.x.new_tensor(divisors), out=out.view(-1))

    def _own_chunks(self, begin: int, cut: Sequence[int]) -> list[Chunks]:
        """The rows of each of this process's parts, of a batch that begins there, in chunks."""
        length = max(ROWS, min(CHUNK, CALL // (6 * len(self.weights)) // ROWS * ROWS))
        found = []
        for part in own(len(cut) - 1, self.group.rank, self.group.size):
            start, end = begin + cut[part], begin + cut[part + 1]
            found.append([(row, min(row + length, end)) for row in range(start, end, length)])
        return found

    def _sum(self, count: int) -> Sum:
        """Sums of gradients and of scores over so many parts."""
        if count not in self.all_sums:
            scores = 1 if self.objective.loss == "mse" else 2
            self.all_sums[count] = Sum(len(self.weights) + scores, count, self.x, self.group)
        return self.all_sums[count]
