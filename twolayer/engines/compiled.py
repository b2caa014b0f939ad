"""The engine that numba compiles for this machine's CPU, at its first use: see `kernels`.

A block of updates is one call, in which nothing is allocated and Python's lock is released. Its bits are the same at
every number of threads, which are Python's own.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from twolayer.engines import kernels, selection
from twolayer.engines.base import Data, TensorState
from twolayer.engines.losses import Objective
from twolayer.engines.vectors import ROWS, lanes
from twolayer.system import load

Array = np.ndarray[Any, np.dtype[Any]]
EVERY_ROW = np.empty(0, dtype=np.int64)  # in the order of x
CALL = 2**32  # floating point operations in one call, at most: a signal waits for its end

# What a cache of compiled functions that cannot be written or read raises; numba pickles it, we pickle nothing.
CACHE_ERRORS = (OSError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, ImportError, pickle.PickleError)


class CompiledEngine(TensorState):
    """Gradient descent on given rows or on all of them, compiled; the updates are made in the model's parameters.

    For cross entropy a loss comes with the accuracy: shapes given as () are then (2,).
    """

    BEHIND = 0  # numbers behind the weights, and behind each gradient
    parts = 1

    def __init__(self, model: nn.Sequential, data: Data, objective: Objective, *, lr: float) -> None:
        self.x, self.y, self.objective, self.lr = data.x.contiguous(), data.y.contiguous(), objective, lr
        self.w1, self.b1, self.w2, self.b2 = (parameter.detach() for parameter in model.parameters())
        (H, D_in), D_out = self.w1.shape, len(self.w2)
        L = lanes(self.x.element_size())
        self.shape = -(-H // L), D_in, D_out, L  # chunks of hidden units, and L in each
        # The weights by hidden unit, (C L, D_in + 1 + D_out), and as `kernels` has them.
        self.padded = self.x.new_zeros(self.shape[0] * L, D_in + 1 + D_out)
        self.weights = self.x.new_zeros(self.padded.numel() + D_out + self.BEHIND)
        self.groups = selection.groups(len(self.x), H * (D_in + 1) + D_out * (H + 1))
        self.gradients = self.x.new_empty(0)  # of each group, and of a part for each thread
        self.buffers: list[tuple[Array, Array, Array]] = []  # of each thread
        self.sums = np.zeros(2 * max(self.groups, self.parts))
        try:
            self._compile(cached=True)
        except CACHE_ERRORS:
            self._compile(cached=False)

    def _compile(self, *, cached: bool) -> None:
        """Compile the kernel, or load it from the cache of compiled functions."""
        self.kernel = kernels.compiled(str(self.x.dtype).rpartition(".")[2], cached)
        self._run(self.x, self.y, EVERY_ROW, EVERY_ROW, EVERY_ROW, None)

    def advance(self, iterations: int) -> Tensor:
        """Do n iterations on all rows; the loss before each update, shape (iterations,) or (iterations, 2)."""
        ends = np.full(iterations, len(self.x), dtype=np.int64)
        return self._run(self.x, self.y, EVERY_ROW, np.zeros_like(ends), ends, self.lr)

    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these indices (int64); their loss before it, shape (), in `out` if given."""
        out = self.x.new_empty(self.objective.shape) if out is None else out
        self.updates([rows], out[None])
        return out

    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """An `update` for each batch; writes their losses into `out`, (len(batches),) or (len(batches), 2)."""
        if not batches:
            return
        order = torch.cat(list(batches)).numpy()
        if order.size and not 0 <= order.min() <= order.max() < len(self.x):  # the compiled loop does not check
            raise IndexError(f"the rows of a batch must be from 0 to {len(self.x) - 1}")
        edges = np.cumsum([0, *(rows.shape[0] for rows in batches)], dtype=np.int64)
        out.copy_(self._run(self.x, self.y, order, edges[:-1], edges[1:], self.lr))

    def evaluate(self, data: Data) -> Tensor:
        """The loss of the current weights on these data, shape ()."""
        x, y = data.x.contiguous(), data.y.contiguous()
        edges = np.array([0, len(x)], dtype=np.int64)
        return self._run(x, y, EVERY_ROW, edges[:1], edges[1:], None)[0]

    def sync(self) -> None:
        """Nothing to do: after each call the weights are in the model's parameters."""

    @torch.no_grad()
    def _run(self, x: Tensor, y: Tensor, order: Array, begins: Array, ends: Array, lr: float | None) -> Tensor:
        """Update on each batch of rows, unless lr is None; their losses before that.

        A batch is rows of `order` or, if that is empty, of x: from where it begins to where it ends.
        """
        losses = self.x.new_empty(len(ends), *self.objective.shape)
        sizes = (ends - begins).tolist()
        lengths = [selection.group_rows(n, self.groups) for n in sizes]
        counts = [-(-n // length) for n, length in zip(sizes, lengths, strict=True)]
        threads = max(1, min(torch.get_num_threads(), max(counts, default=1)))
        if threads > 1:  # one that waits for a CPU would be waited for; the bits are the same with fewer
            threads = max(1, min(threads, load.free_cpus()))
        self._make_buffers(threads, 0 if lr is None else self.groups)
        batches = begins, ends, np.array(lengths, dtype=np.int64)
        call = self._call((x, y, order), batches, losses, lr, self.groups)
        self._pack()
        of_row = 6 * len(self.weights)  # operations
        at_once = CALL // (of_row * max([1, *sizes]))
        if threads > 1:
            call.in_threads(threads, counts, max(1, CALL // (of_row * max(lengths))), self.check)
        elif at_once:
            call.alone(at_once)
        else:
            call.by_group(counts, self.check)
        if lr is not None:
            self._unpack()
        return losses

    def _call(
        self,
        rows: tuple[Tensor, Tensor, Array],
        batches: tuple[Array, Array, Array],
        losses: Tensor,
        lr: float | None,
        groups: int,
    ) -> CompiledCall:
        """What the kernel is to do for these batches: from where each begins to where it ends, and a group's rows."""
        x, y, order = rows
        numerator, denominator = self.objective.gradient_scale(1, self.shape[2])
        divisor = denominator if self.objective.reduction == "mean" else 0
        return CompiledCall(
            self.kernel,
            weights=(self.weights.numpy(), self.gradients.numpy()),
            rows=(x.view(-1).numpy(), y.view(-1).numpy(), order),
            buffers=self.buffers,
            batches=batches,
            groups=groups,
            objective=(self.objective.loss == "mse", lr is not None, divisor, numerator * (lr or 0.0)),
            shape=self.shape,
            losses=losses.view(len(losses), 1 if self.objective.loss == "mse" else 2).numpy(),
        )

    def _make_buffers(self, threads: int, groups: int) -> None:
        """Allocate what the threads need for the groups, unless it is there."""
        C, _, D_out, L = self.shape
        if len(self.gradients) < (size := (groups + threads) * len(self.weights)):
            self.gradients = self.x.new_empty(size)
        while len(self.buffers) < threads:
            h, z = self.x.new_zeros(C * ROWS * L), self.x.new_zeros(D_out * ROWS + L)
            self.buffers.append((h.numpy(), z.numpy(), self.sums))

    def _pack(self) -> None:
        """Copy the parameters into `weights`."""
        C, D_in, _, L = self.shape
        own = self.padded[: len(self.w1)]
        own[:, :D_in], own[:, D_in], own[:, D_in + 1 :] = self.w1, self.b1, self.w2.t()
        of_units, b2 = self._packed()
        of_units.view(C, -1, L).copy_(self.padded.view(C, L, -1).transpose(1, 2))
        b2.copy_(self.b2)

    def _unpack(self) -> None:
        """Copy `weights` into the parameters."""
        C, D_in, _, L = self.shape
        of_units, b2 = self._packed()
        self.padded.view(C, L, -1).copy_(of_units.view(C, -1, L).transpose(1, 2))
        own = self.padded[: len(self.w1)]
        self.w1.copy_(own[:, :D_in])
        self.b1.copy_(own[:, D_in])
        self.w2.copy_(own[:, D_in + 1 :].t())
        self.b2.copy_(b2)

    def _packed(self) -> tuple[Tensor, Tensor]:
        """Of `weights` those of the hidden units, and the second layer's biases."""
        count = self.padded.numel()
        return self.weights[:count], self.weights[count : count + len(self.b2)]


@dataclass(frozen=True)
class CompiledCall:
    """Updates to be done by the kernel, whose arguments these are (see `kernels.descend`)."""

    kernel: Any
    weights: tuple[Array, Array]
    rows: tuple[Array, Array, Array]
    buffers: Sequence[tuple[Array, Array, Array]]  # of each thread
    batches: tuple[Array, Array, Array]
    groups: int  # at most
    objective: tuple[bool, bool, int, float]
    shape: tuple[int, int, int, int]
    losses: Array

    def __call__(self, updates: tuple[int, int], groups: tuple[int, int], thread: int, *, finishes: bool) -> None:
        """Visit groups in some updates, and finish these updates or not."""
        self.kernel(
            self.weights,
            self.rows,
            self.buffers[thread],
            self.batches,
            updates,
            (*groups, self.groups + thread),
            self.objective,
            self.shape,
            finishes,
            self.losses,
        )

    def alone(self, at_once: int) -> None:
        """Do the updates in this thread, `at_once` in a call; none at all only compiles the kernel."""
        count = len(self.losses)
        for first in range(0, max(1, count), at_once):
            self((first, min(first + at_once, count)), (0, self.groups), 0, finishes=True)

    def by_group(self, counts: Sequence[int], check: Callable[[], None]) -> None:
        """Do updates that take long, a group at a time; `counts` has the groups of each."""
        for u, count in enumerate(counts):
            for group in range(count):
                self((u, u + 1), (group, group + 1), 0, finishes=False)
                check()
            self((u, u + 1), (0, 0), 0, finishes=True)

    def in_threads(self, threads: int, counts: Sequence[int], at_once: int, check: Callable[[], None]) -> None:
        """Do each update in several threads, which share its groups; each thread takes `at_once` of them at a time."""
        with ThreadPoolExecutor(threads - 1) as pool:
            for u, count in enumerate(counts):
                for first in range(0, count, threads * at_once):
                    size = min(threads * at_once, count - first)
                    own, *others = pairwise(first + size * thread // threads for thread in range(threads + 1))
                    waiting = [
                        pool.submit(self, (u, u + 1), groups, thread, finishes=False)
                        for thread, groups in enumerate(others, 1)
                    ]
                    self((u, u + 1), own, 0, finishes=False)
                    for each in waiting:
                        each.result()
                    check()
                self((u, u + 1), (0, 0), 0, finishes=True)
