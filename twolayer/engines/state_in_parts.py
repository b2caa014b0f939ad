"""The state of an engine in parts of its units or inputs: whole in the first process, or each part as a file.

Of the parts each process has its own; the rest of the state, `common`, all have alike.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from twolayer.engines.base import check_state
from twolayer.engines.parts import Group, edges, own, whole
from twolayer.errors import RunError, StateError

SHA256, TEXT = 32, 512  # bytes


class PartFolder(Protocol):
    """A folder in which each part of a state is a file. Methods raise RunError."""

    def announced(self) -> AbstractContextManager[str]:
        """A context in which other processes find the folder by the text, if it is on a disk of theirs."""

    def write(self, done: int, part: int, tensors: Mapping[str, Tensor]) -> bytes:
        """Write a part of the state after `done` iterations; the SHA-256 that its file has."""

    def read(self, done: int, part: int, sha256: bytes) -> dict[str, Tensor]:
        """Read a part whose file has this SHA-256."""


class SavedParts(Protocol):
    """The parts of a saved state, all of them undamaged."""

    @property
    def folder(self) -> PartFolder:
        """Where their files are."""

    @property
    def sums(self) -> Sequence[bytes]:
        """The SHA-256 of each part's file."""

    @property
    def shapes(self) -> Sequence[Mapping[str, Tensor]]:
        """What each part holds: tensors without contents."""


class StateInParts:
    """An engine that has of each unit, or of each input, the `rows` of these shapes by name; `size` counts all units.

    `state` and `load_state`, `write_parts` and `read_parts` are for all processes of the group at once.
    """

    x: Tensor
    parts: int
    group: Group
    size: int
    rows: dict[str, tuple[int, ...]]
    pieces: list[slice]  # this process's parts

    def of_part(self, index: int, name: str) -> Tensor:
        """What this process's part number `index` has of this name, (units, ...): a view, which may be written."""
        raise NotImplementedError

    def common(self) -> dict[str, Tensor]:
        """What all processes have alike: the tensors themselves."""
        raise NotImplementedError

    def restart(self, done: int) -> None:
        """Go on from a state that was loaded, after `done` iterations."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs to be the same bit for bit, by name, with a row for each unit or input.

        The first process alone gets what is of the parts.
        """
        return {name: self.whole(self._of_own(name), name) for name in self.rows} | self.common()

    def described(self) -> dict[str, Tensor]:
        """Tensors of the shapes and dtypes of a state, most of them without any contents."""
        return self._without_contents(self.size) | self.common()

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state saved after `done` iterations. StateError if its names, shapes or dtypes differ."""
        check_state(self.described(), state)
        for index, some in enumerate(self.pieces):
            self._copy(index, {name: state[name][some] for name in self.rows})
        self._go_on(state, done)

    def whole(self, tensors: Sequence[Tensor], name: str) -> Tensor:
        """What all units or inputs have of this name; in the first process alone."""
        return whole(tensors, self.size, self.parts, self.x.new_empty(self.rows[name]), self.group)

    def write_parts(self, folder: PartFolder | None, done: int, *, by_all: bool) -> list[bytes]:
        """Write each part as a file; the SHA-256 of all of them, in the first process.

        Each process writes its own, or, if not `by_all`, the first all of them, one after another. Where one cannot,
        all go on to the end, since they exchange something still; then the first raises RunError.
        """
        written, failed = dict[int, bytes](), list[RunError]()
        for rank, index, part in self._each():
            if by_all and rank != self.group.rank:
                continue
            tensors = self._own_part(index) if by_all else self._given(rank, index, part)
            if folder is not None and not failed:
                try:
                    written[part] = folder.write(done, part, tensors)
                except RunError as error:
                    failed.append(error)
        if by_all:
            for rank, (sums, text) in enumerate(self._outcomes(written, "".join(map(str, failed)))):
                written |= sums
                if rank and text:
                    failed.append(RunError(f"rank {rank} on {text}"))
        if failed and self.group.rank == 0:
            raise failed[0]
        return [written[part] for part in sorted(written)]

    def _outcomes(self, written: Mapping[int, bytes], error: str) -> Iterator[tuple[dict[int, bytes], str]]:
        """What each process has written, and why it could not write more; empty where it could."""
        sums = b"".join(written.get(part, bytes(SHA256)) for part in range(self._count()))
        text = f"{socket.gethostname()}: {error}".encode()[:TEXT] if error else b""
        own = torch.tensor(list(sums + text.ljust(TEXT, b"\0")), dtype=torch.uint8)
        all_ = [torch.empty_like(own) for _ in range(self.group.size)] if self.group.size > 1 else [own]
        self.group.gather(own, all_)
        for rank, numbers in enumerate(all_):
            data = bytes(numbers.tolist())
            parts = self._own(rank)
            sums_of = {part: data[SHA256 * part : SHA256 * (part + 1)] for part in parts}
            yield sums_of, data[SHA256 * self._count() :].rstrip(b"\0").decode(errors="replace")

    @torch.no_grad()
    def read_parts(
        self, folder: PartFolder | None, sums: Sequence[bytes], common: Mapping[str, Tensor], done: int, *, by_all: bool
    ) -> None:
        """Continue from a state that `write_parts` has written after `done` iterations, which `check_parts` allows.

        Each process reads its own parts, or, if not `by_all`, the first all, one after another, and tells the others.
        """
        for rank, index, part in self._each():
            if by_all and rank != self.group.rank:
                continue
            tensors = self._part(part, self.x.device) if folder is None else folder.read(done, part, sums[part])
            if not by_all:
                tensors = {name: tensors[name].to(self.x.device) for name in self.rows}
                for one in tensors.values():
                    self.group.broadcast(one, 0)
            if rank == self.group.rank:
                self._copy(index, tensors)
        self._go_on(common, done)

    def check_parts(self, saved: SavedParts, common: Mapping[str, Tensor]) -> None:
        """Raise StateError if a state that was saved in parts is not one of this engine."""
        check_state(self.common(), common)
        if len(saved.shapes) != self._count():
            raise StateError(f"is a state of another training: it has {len(saved.shapes)} parts, not {self._count()}")
        for part, shapes in enumerate(saved.shapes):
            check_state(self._part(part), shapes)

    def _go_on(self, common: Mapping[str, Tensor], done: int) -> None:
        for name, one in self.common().items():
            one.copy_(common[name])
        self.restart(done)

    def _own_part(self, index: int) -> dict[str, Tensor]:
        return {name: self.of_part(index, name) for name in self.rows}

    def _of_own(self, name: str) -> list[Tensor]:
        return [self.of_part(index, name) for index in range(len(self.pieces))]

    def _copy(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        for name in self.rows:
            self.of_part(index, name).copy_(tensors[name])

    def _given(self, rank: int, index: int, part: int) -> dict[str, Tensor]:
        """A part that a process has, in the first; nothing in the others."""
        if self.group.rank == rank:
            tensors = self._own_part(index)
        elif self.group.rank == 0:
            tensors = self._part(part, self.x.device)
        else:
            return {}
        if rank:
            for one in tensors.values():
                self.group.give(one.contiguous(), rank)
        return tensors

    def _each(self) -> Iterator[tuple[int, int, int]]:
        """Every part: the process that computes it, its number among that one's own, and among all."""
        for rank in range(self.group.size):
            yield from ((rank, index, part) for index, part in enumerate(self._own(rank)))

    def _own(self, rank: int) -> range:
        return own(self._count(), rank, self.group.size)

    def _count(self) -> int:
        return len(edges(self.size, self.parts)) - 1

    def _part(self, part: int, device: torch.device | str = "meta") -> dict[str, Tensor]:
        """Tensors of the shapes and dtypes of a part."""
        first, end = edges(self.size, self.parts)[part : part + 2]
        return self._without_contents(end - first, device)

    def _without_contents(self, units: int, device: torch.device | str = "meta") -> dict[str, Tensor]:
        return {name: self.x.new_empty(units, *row, device=device) for name, row in self.rows.items()}
