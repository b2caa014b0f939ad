"""What is computed in parts: how it is cut, who computes which, and sums in an order that depends on neither.

The parts are the leaves of a binary tree, and a sum adds up its nodes, always the same two to each. A process computes
consecutive parts and adds up the nodes that lie within them; all then exchange these and add up the rest, alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

Node = tuple[int, int]  # the first part, and the one behind the last


class Group(Protocol):
    """The processes that train together. Their calls come in the same order in all of them."""

    rank: int  # of this process, from 0
    size: int

    def gather(self, own: Tensor, all_: Sequence[Tensor]) -> None:
        """Write each process's own tensor, all of one shape, into the tensor at its rank."""

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Write the tensor of the process `source` into that of all others."""

    def give(self, tensor: Tensor, source: int) -> None:
        """Write the tensor of the process `source`, which is not the first, into that of the first; for these two."""

    def first(self, size: int) -> Group:
        """The first processes as a group of their own; all processes ask for it."""


class Alone:
    """A group of one process."""

    rank, size = 0, 1

    def gather(self, own: Tensor, all_: Sequence[Tensor]) -> None:
        """Nobody else has anything."""

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Nobody else is there."""

    def give(self, tensor: Tensor, source: int) -> None:
        """Nobody else is there."""

    def first(self, size: int) -> Group:
        """The same: it is all there is."""
        return self


ALONE = Alone()


def edges(size: int, parts: int, block: int = 0) -> list[int]:
    """Where each part begins of what has this size, and where the last one ends: nearly equal, and none is empty.

    Parts are of whole blocks, but for the last. By default a block is 16 where the parts have at least four of them,
    or the largest power of two: a product of 85 units takes longer than one of 96.
    """
    block = block or next((of for of in (16, 8, 4, 2) if size >= 4 * of * parts), 1)
    blocks = -(-size // block)
    count = min(parts, blocks)
    return [min(part * blocks // count * block, size) for part in range(count + 1)]


def own(count: int, rank: int, ranks: int) -> range:
    """The parts of `count` that this rank computes."""
    return range(rank * count // ranks, (rank + 1) * count // ranks)


def own_range(size: int, parts: int, rank: int, ranks: int) -> slice:
    """What this rank computes, all its parts together, of what has this size."""
    ends = edges(size, parts)
    mine = own(len(ends) - 1, rank, ranks)
    return slice(ends[mine.start], ends[mine.stop])


def pieces(size: int, parts: int, group: Group) -> list[slice]:
    """The parts of what has this size that this process computes."""
    ends = edges(size, parts)
    return [slice(ends[part], ends[part + 1]) for part in own(len(ends) - 1, group.rank, group.size)]


def whole(parts: Sequence[Tensor], size: int, count: int, like: Tensor, group: Group) -> Tensor:
    """The parts of all processes as one tensor (size, ...); `like` is one row of it.

    It is the first process's alone: the others have nothing of it, and an empty tensor.
    """
    if group.rank:
        if parts:
            group.give(torch.cat(list(parts)), group.rank)
        return like.new_empty(0, *like.shape)
    full = like.new_empty(size, *like.shape)
    if parts:
        torch.cat(list(parts), out=full[own_range(size, count, 0, group.size)])
    for rank in range(1, group.size):
        rows = full[own_range(size, count, rank, group.size)]
        if len(rows):
            group.give(rows, rank)
    return full


def aligned(tensor: Tensor) -> Tensor:
    """The same numbers at an address that is a multiple of 64 bytes: some products depend on that."""
    return tensor.clone() if tensor.data_ptr() % 64 else tensor


class _Tree:
    """The binary tree over `count` parts."""

    def __init__(self, count: int) -> None:
        self.nodes: set[Node] = set()
        self._grow(0, count)

    def _grow(self, first: int, end: int) -> None:
        self.nodes.add((first, end))
        if end - first > 1:
            middle = (first + end) // 2
            self._grow(first, middle)
            self._grow(middle, end)

    def join(self, stack: list[Node], node: Node) -> int:
        """Push a node, and join the last two while they are halves of one; how often."""
        stack.append(node)
        count = 0
        while len(stack) > 1 and self._are_halves(stack[-2], stack[-1]):
            (first, _), (_, end) = stack[-2:]
            stack[-2:] = [(first, end)]
            count += 1
        return count

    def _are_halves(self, left: Node, right: Node) -> bool:
        first, end = left[0], right[1]
        return (first, end) in self.nodes and left[1] == (first + end) // 2


def _joins(tree: _Tree, parts: range) -> tuple[list[tuple[slice, slice]], list[int]]:
    """How the rows of these parts are added up, several pairs at once; and the rows where their largest nodes are."""
    stack: list[Node] = []
    rows: list[int] = []
    level = dict.fromkeys(range(len(parts)), 0)  # of the node in a row: how many additions come before it
    pairs = []
    for row, part in enumerate(parts):
        rows.append(row)
        for _ in range(tree.join(stack, (part, part + 1))):
            right = rows.pop()
            level[rows[-1]] = max(level[rows[-1]], level[right]) + 1
            pairs.append((level[rows[-1]], rows[-1], right))
    runs: list[list[tuple[int, int, int]]] = []
    for pair in sorted(pairs):
        run = runs[-1] if runs else []
        steps = {tuple(b - a for a, b in zip(one, other, strict=True)) for one, other in pairwise([*run, pair])}
        if run and run[0][0] == pair[0] and len(steps) == 1:
            run.append(pair)
        else:
            runs.append([pair])
    return [(_every([left for _, left, _ in run]), _every([right for *_, right in run])) for run in runs], rows


def _every(rows: Sequence[int]) -> slice:
    """These rows, each as far from the next."""
    return slice(rows[0], rows[-1] + 1, rows[1] - rows[0] if len(rows) > 1 else 1)


class Sum:
    """Sums of tensors of `numbers` elements, one from each of `count` parts: the same bits whoever computes which part.

    `like` has the dtype and the device. A sum is in a buffer that the next one overwrites, and may be written into.
    """

    def __init__(self, numbers: int, count: int, like: Tensor, group: Group) -> None:
        self.group, tree = group, _Tree(count)
        stacks = [self._stacked(tree, own(count, rank, group.size)) for rank in range(group.size)]
        self.steps = stacks[group.rank][1]
        self.joins, self.places = _joins(tree, own(count, group.rank, group.size))
        nodes = [stack for stack, _ in stacks]  # of each process, from left to right
        most = max(map(len, nodes))
        depth = max([most, *(slot + 1 for slot, _ in self.steps)])
        padded = -(-numbers // 64) * 64  # the address decides the order of addition in some products
        buffer = like.new_zeros(depth, padded)
        self.slots = [row[:numbers] for row in buffer.unbind()]
        self.result, self.additions = self.slots[0], list[tuple[Tensor, Tensor]]()
        self.sent, self.received = buffer[:most], list[Tensor]()
        if group.size > 1:
            all_ = like.new_zeros(group.size, most, padded)
            self.received = list(all_.unbind())
            self._plan(tree, nodes, all_[:, :, :numbers])

    def __call__(self, compute: Callable[[int, Tensor], object]) -> Tensor:
        """The sum of what `compute` writes, given the number of a part among this process's own, and where to."""
        for index, (slot, joins) in enumerate(self.steps):
            compute(index, self.slots[slot])
            for right in range(slot, slot - joins, -1):
                self.slots[right - 1].add_(self.slots[right])
        return self._exchanged()

    def of_rows(self, terms: Tensor) -> Tensor:
        """The same of the rows of a tensor, one for each part of this process, which are overwritten.

        It takes a few additions in place of one for each part.
        """
        for left, right in self.joins:
            terms[left].add_(terms[right])
        if not self.received:
            return terms[0]
        for slot, place in zip(self.slots, self.places, strict=False):
            slot.copy_(terms[place])
        return self._exchanged()

    def _exchanged(self) -> Tensor:
        """The sum of the nodes of all processes; this one's are in the first slots."""
        if self.received:
            self.exchange()
            for left, other in self.additions:
                left.add_(other)
        return self.result

    def exchange(self) -> None:
        """Give all processes the nodes of all."""
        self.group.gather(self.sent, self.received)

    @staticmethod
    def _stacked(tree: _Tree, parts: range) -> tuple[list[Node], list[tuple[int, int]]]:
        """The largest nodes within these parts; and for each part its slot, and how many slots are joined then."""
        stack: list[Node] = []
        steps = [(len(stack), tree.join(stack, (part, part + 1))) for part in parts]
        return stack, steps

    def _plan(self, tree: _Tree, nodes: Sequence[Sequence[Node]], received: Tensor) -> None:
        """Plan how all processes' nodes are joined, from left to right, into the first one."""
        stack: list[Node] = []
        places: list[Tensor] = []
        for rank, some in enumerate(nodes):
            for index, node in enumerate(some):
                places.append(received[rank, index])
                for _ in range(tree.join(stack, node)):
                    right = places.pop()
                    self.additions.append((places[-1], right))
        (self.result,) = places
