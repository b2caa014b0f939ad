"""A process's own share of the data, where it needs some rows or columns of x alone (see `selection.shares_data`).

Drawn data are one stream of numbers, which every process draws a block at a time, keeping what is its own. Of a table
the first process says how it is encoded and which rows are trained on; each of the others reads its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from twolayer.config.schema import Config, LinearData
from twolayer.engines.base import Data, Share
from twolayer.engines.parts import Group, own_range
from twolayer.engines.selection import leader_has_all
from twolayer.errors import DataError
from twolayer.tables.options import FileData

if TYPE_CHECKING:
    from twolayer.tables.dataset import Table
    from twolayer.tables.features import Encoding

BLOCK = 2**20  # numbers that are drawn at a time
TOGETHER = 16  # numbers that torch draws together: blocks of a multiple of these hold what one draw would


def own(config: Config, rank: int, ranks: int) -> tuple[slice, slice]:
    """The rows and the columns of x that rank `rank` of `ranks` computes with."""
    parts = config.parts or 1
    if config.split == "rows":
        return own_range(config.N, parts, rank, ranks), slice(0, config.D_in)
    return slice(0, config.N), own_range(config.D_in, parts, rank, ranks)


def part_of(data: Data, config: Config, rank: int, ranks: int) -> Data:
    """What rank `rank` of `ranks` has of a whole table."""
    rows, columns = own(config, rank, ranks)
    return Data(data.x[rows, columns], data.y[rows], columns=data.columns)


# --- drawn data


def drawn(config: Config, generator: torch.Generator, group: Group, **to: Any) -> Data:
    """The share of this process in the data that `setup.load_data` draws, `to` its dtype and device.

    Targets made of x are computed in the same blocks by every number of processes. Raises DataError as that does.
    """
    N, D_in, D_out, rank = config.N, config.D_in, config.D_out, group.rank
    has_all = group.size == 1 or (rank == 0 and leader_has_all(config))
    rows, columns = (slice(0, N), slice(0, D_in)) if has_all else own(config, rank, group.size)
    x = torch.empty(rows.stop - rows.start, columns.stop - columns.start, **to)
    y = torch.empty(len(x), D_out, **to)
    digest = hashlib.sha256()
    linear = config.data if isinstance(config.data, LinearData) else None
    steps = (_step(D_in), _step(D_out)) if linear is None else [_step(D_in, D_out)] * 2
    again = torch.Generator().set_state(generator.get_state())  # for x once more, of which the targets are made
    for start, block in _blocks(N, D_in, steps[0], generator):
        _keep(x, rows, start, block[:, columns])
        if not has_all:
            digest.update(block.to(x.dtype).numpy().data)
    inputs = _blocks(N, D_in, steps[0], again)
    for start, noise in _blocks(N, D_out, steps[1], generator):
        block = noise if linear is None else _targets(noise, next(inputs)[1], linear)
        _keep(y, rows, start, block)
        if not has_all:
            digest.update(block.to(y.dtype).numpy().data)
    return Data(x, y, share=None if has_all else Share(N, D_in, rows, columns, digest.hexdigest()))


def _targets(noise: Tensor, x: Tensor, data: LinearData) -> Tensor:
    y = torch.addmm(noise, x, torch.tensor(data.rows).t(), beta=data.noise)
    if not torch.isfinite(y).all():
        raise DataError("data: the targets are too large for float32; use smaller weights or less noise")
    return y


def _step(*widths: int) -> int:
    """How many rows of these widths a block has: what is drawn of each is a multiple of TOGETHER."""
    rows = TOGETHER // math.gcd(TOGETHER, *widths)
    return rows * max(1, BLOCK // (rows * max(widths)))


def _blocks(N: int, width: int, step: int, generator: torch.Generator) -> Iterator[tuple[int, Tensor]]:
    """What `torch.randn(N, width)` draws, some rows at a time, each with the number of its first row, from 0."""
    edges = [*range(0, N, step), N]
    if len(edges) > 2 and N - edges[-2] < TOGETHER:  # so few would be drawn in another way
        del edges[-2]
    for start, end in pairwise(edges):
        yield start, torch.randn(end - start, width, generator=generator)


def _keep(kept: Tensor, rows: slice, start: int, block: Tensor) -> None:
    """Copy a block of which the first row is row `start` of all; `kept` has these `rows`."""
    first, end = max(rows.start, start), min(rows.stop, start + len(block))
    if first < end:
        kept[first - rows.start : end - rows.start] = block[first - start : end - start]


# --- tables


def tell_rows(table: Table, config: Config, group: Group) -> None:
    """Tell each of the other processes which rows it is to read: see `read_own`."""
    for rank in range(1, group.size):
        rows, _ = own(config, rank, group.size)
        group.broadcast(torch.from_numpy(table.numbers[rows].astype("int64")), 0)


def read_own(config: Config, columns: Encoding, group: Group) -> Table:
    """The table with this process's share alone, without validation rows. Raises DataError."""
    from twolayer.tables.dataset import Table
    from twolayer.tables.own_rows import read_rows

    told = {}
    for rank in range(1, group.size):
        rows, _ = own(config, rank, group.size)
        numbers = torch.empty(rows.stop - rows.start, dtype=torch.int64)
        group.broadcast(numbers, 0)
        if rank == group.rank:
            told[rank] = numbers.numpy()
    _, inputs = own(config, group.rank, group.size)
    path = cast(FileData, config.data).path
    x, y = read_rows(path, columns, told[group.rank], inputs, config.dtype)
    return Table(columns, x, y, None, None, config.N, told[group.rank])
