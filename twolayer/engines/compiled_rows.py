"""The compiled engine in parts of the rows: an update exchanges the gradients of all weights, and the loss.

As in `by_rows` all processes have all weights, and update them alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from twolayer.engines.base import Data
from twolayer.engines.compiled import CALL, EVERY_ROW, Array, CompiledCall, CompiledEngine
from twolayer.engines.kernels import PART
from twolayer.engines.losses import Objective
from twolayer.engines.parts import ALONE, Group, Sum, edges, own
from twolayer.engines.vectors import ROWS

CHUNK = 16 * PART  # rows at most whose gradient is one term of the sum over the rows of a part
GRADIENTS = 2**20  # numbers at most in the gradients of all parts, if they are computed in one call

Chunks = list[tuple[int, int]]  # of rows, from the first to the one behind the last


class CompiledRowsEngine(CompiledEngine):
    """The compiled engine in parts of the rows; this process has its own in the group, and computes with one thread.

    `evaluate` is for this process alone, on rows that it has.
    """

    BEHIND = 2  # the sums of the scores

    def __init__(
        self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float, parts: int, group: Group = ALONE
    ) -> None:
        self.parts, self.group, self.N = parts, group, data.shape[0]
        self.first = 0 if data.share is None else data.share.rows.start  # of the rows that x and y have
        self.all_sums: dict[int, Sum] = {}  # by the number of parts
        self.divisors: dict[int, Tensor] = {}  # of the scores, by the number of rows
        super().__init__(model, data, objective, lr=lr)

    def exchanged(self) -> Sum | None:
        """The sum that an update on all rows exchanges."""
        return self._sum(len(edges(self.N, self.parts)) - 1)

    def described(self) -> dict[str, Tensor]:
        """Tensors of the shapes and dtypes of a state."""
        return self.state()

    def advance(self, iterations: int) -> Tensor:
        """Do n iterations on all rows; the loss before each update, shape (iterations,) or (iterations, 2)."""
        ends = np.full(iterations, self.N, dtype=np.int64)
        return self._run(self.x, self.y, EVERY_ROW, np.zeros_like(ends), ends, self.lr)

    @torch.no_grad()
    def final_score(self) -> Tensor:
        """The loss of the model's weights, those of the first process, on all rows: shape () or (2,).

        The training cannot continue after this.
        """
        self._pack()
        self.group.broadcast(self.weights, 0)
        return self._on_parts((self.x, self.y, EVERY_ROW), [0], [self.N], learns=False)[0]

    @torch.no_grad()
    def _run(self, x: Tensor, y: Tensor, order: Array, begins: Array, ends: Array, lr: float | None) -> Tensor:
        """Update on each batch of rows, unless lr is None; their losses before that."""
        if lr is None:
            return super()._run(x, y, order, begins, ends, lr)
        self._pack()
        losses = self._on_parts((x, y, order), begins.tolist(), (ends - begins).tolist(), learns=True)
        self._unpack()
        return losses

    def _on_parts(
        self, rows: tuple[Tensor, Tensor, Array], begins: Sequence[int], sizes: Sequence[int], *, learns: bool
    ) -> Tensor:
        """The loss on each batch of rows; an update after each where it `learns`."""
        losses = self.x.new_empty(len(sizes), *self.objective.shape)
        block = ROWS if rows[2].size else 0  # what the kernel takes at once; a batch may have fewer rows
        cuts = [edges(size, self.parts, block) for size in sizes]
        parts = [self._own_chunks(begin - self.first, cut) for begin, cut in zip(begins, cuts, strict=True)]
        flat = np.array([chunk for of_batch in parts for part in of_batch for chunk in part], dtype=np.int64)
        first, last = np.ascontiguousarray(flat.reshape(-1, 2).T)
        is_at_once = self._is_at_once(parts)
        self._make_buffers(threads=1, groups=max(map(len, parts)) if is_at_once else 1)
        call = self._call(
            rows, (first, last, last - first), losses, self.lr if learns else None, groups=len(self.terms)
        )
        add_up = self._at_once if is_at_once else self._one_by_one
        done = 0  # of the chunks
        for own_parts, cut, loss in zip(parts, cuts, losses.unbind(), strict=True):
            total = add_up(call, done, own_parts, self._sum(len(cut) - 1))
            done += sum(map(len, own_parts))
            self._finish(total, cut[-1], loss, learns=learns)
        return losses

    def _is_at_once(self, parts: Sequence[Sequence[Chunks]]) -> bool:
        """Whether all of this process's parts of a batch are computed in one call: a call takes ten microseconds."""
        size = len(self.weights)
        rows = max(sum(last - first for part in of_batch for first, last in part) for of_batch in parts)
        is_small = self.parts * size <= GRADIENTS and 6 * size * rows <= CALL
        return is_small and all(len(part) == 1 for of_batch in parts for part in of_batch)

    def _make_buffers(self, threads: int, groups: int) -> None:
        super()._make_buffers(threads, groups)
        size = len(self.weights)
        self.terms = self.gradients[: groups * size].view(groups, size)  # of each chunk of a call: gradient, scores
        self.of_terms = self.terms[:, -self.BEHIND :], torch.from_numpy(self.sums)[: 2 * groups].view(-1, 2)

    def _at_once(self, call: CompiledCall, first: int, parts: Sequence[Chunks], add_up: Sum) -> Tensor:
        """The sum of the gradients and scores over all parts; the chunks are those from the number `first` on."""
        if parts:
            self._compute(call, first, first + len(parts))
        return add_up.of_rows(self.terms)

    def _one_by_one(self, call: CompiledCall, first: int, parts: Sequence[Chunks], add_up: Sum) -> Tensor:
        """The same, a chunk at a time."""
        numbers = iter(range(first, first + sum(map(len, parts))))

        def compute(index: int, slot: Tensor) -> None:
            for i in range(len(parts[index])):
                number = next(numbers)
                self._compute(call, number, number + 1)
                if i:
                    slot.add_(self.terms[0])
                else:
                    slot.copy_(self.terms[0])

        return add_up(compute)

    def _compute(self, call: CompiledCall, first: int, last: int) -> None:
        """Compute the gradients and scores of these chunks into `terms`."""
        call((first, last), (0, 1), 0, finishes=False)
        self.check()
        scores, sums = self.of_terms
        scores.copy_(sums)

    def _finish(self, total: Tensor, rows: int, out: Tensor, *, learns: bool) -> None:
        """Write the loss on `rows` rows into `out`, and update the weights where it `learns`."""
        numerator, denominator = self.objective.gradient_scale(rows, self.shape[2])
        if learns:
            rate = min(numerator * self.lr / denominator, torch.finfo(self.x.dtype).max)  # PyTorch refuses a larger one
            self.weights[: -self.BEHIND].add_(total[: -self.BEHIND], alpha=-rate)
        if rows not in self.divisors:
            self.divisors[rows] = self.x.new_tensor([denominator, rows])[: max(1, out.numel())]
        scores = total[-self.BEHIND :][: max(1, out.numel())]
        torch.div(scores, self.divisors[rows], out=out.view(-1))

    def _own_chunks(self, begin: int, cut: Sequence[int]) -> list[Chunks]:
        """The rows of each of this process's parts, of a batch that begins there, in chunks."""
        length = max(ROWS, min(CHUNK, CALL // (6 * len(self.weights)) // ROWS * ROWS))
        found = []
        for part in own(len(cut) - 1, self.group.rank, self.group.size):
            start, end = begin + cut[part], begin + cut[part + 1]
            found.append([(row, min(row + length, end)) for row in range(start, end, length)])
        return found

    def _sum(self, count: int) -> Sum:
        """Sums of gradients and of scores over the parts."""
        if count not in self.all_sums:
            self.all_sums[count] = Sum(len(self.weights), count, self.x, self.group)
        return self.all_sums[count]
