"""A process's own share of the data, and of the initial weights, where it needs no more.

See `selection.shares_data` and `shares_weights`. What is drawn is one stream of numbers, which every process draws a
block at a time, keeping what is its own. Of a table the first process says how it is encoded and which rows are trained
on; each of the others reads its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from twolayer.config.schema import Config, LinearData
from twolayer.engines.base import Data, OwnWeights, Share
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


# --- initial weights


def own_weights(config: Config, generator: torch.Generator, group: Group, **to: Any) -> OwnWeights:
    """The share of this process in the weights that `setup.build_model` draws, `to` their dtype and device."""
    H, D_in, D_out, count = config.H, config.D_in, config.D_out, config.parts or 1
    units, inputs, all_ = slice(0, H), slice(0, D_in), slice(0, D_out)
    if config.split == "units":
        units = own_range(H, count, group.rank, group.size)
    else:
        inputs = own_range(D_in, count, group.rank, group.size)
    digest = hashlib.sha256()

    def share(draw: Callable[[Tensor], Tensor], width: int, rows: slice, columns: slice, height: int) -> Tensor:
        kept = torch.empty(rows.stop - rows.start, columns.stop - columns.start, **to)
        for start, numbers in _stream(height * width, draw):
            for row, column, block in _blocks_of(numbers, start, width):
                _keep_block(kept, rows, columns, row, column, block)
            digest.update(numbers.to(kept.dtype).numpy().data)
        return kept

    one, (weight, bias) = slice(0, 1), _draws(config, D_in, generator)
    first = _linear(share(weight, D_in, units, inputs, H), share(bias, 1, units, one, H))
    weight, bias = _draws(config, H, generator)
    second = _linear(share(weight, H, all_, units, D_out), share(bias, 1, all_, one, D_out))
    return OwnWeights(first, second, H, units, inputs, digest.hexdigest())


def _draws(config: Config, fan_in: int, generator: torch.Generator) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Overwrite numbers with weights, and with biases, of a layer with `fan_in` inputs; as `nn.Linear` by default."""
    if config.init == "normal":
        return lambda numbers: numbers.normal_(generator=generator), Tensor.zero_
    std = nn.init.calculate_gain("leaky_relu", math.sqrt(5)) / math.sqrt(fan_in)  # as kaiming_uniform_ computes it
    bounds = math.sqrt(3.0) * std, 1 / math.sqrt(fan_in)

    def uniform(bound: float, numbers: Tensor) -> Tensor:
        return numbers.uniform_(-bound, bound, generator=generator)

    return tuple(partial(uniform, bound) for bound in bounds)


def _stream(size: int, draw: Callable[[Tensor], Tensor]) -> Iterator[tuple[int, Tensor]]:
    """All numbers of one draw of this size, some at a time, each with the number of the first one, from 0.

    They are in a buffer that the next ones overwrite: the allocator would keep the memory of some that are freed.
    """
    step = max(TOGETHER, BLOCK // TOGETHER * TOGETHER)
    edges = [*range(0, size, step), size]
    if len(edges) > 2 and size - edges[-2] < TOGETHER:  # as in `_blocks`
        del edges[-2]
    buffer = torch.empty(min(size, step + TOGETHER))
    for start, end in pairwise(edges):
        yield start, draw(buffer[: end - start])


def _blocks_of(numbers: Tensor, start: int, width: int) -> Iterator[tuple[int, int, Tensor]]:
    """These numbers of a matrix of this width, from the one at `start` on, as blocks: the first row and column."""
    at = 0
    while at < len(numbers):
        row, column = divmod(start + at, width)
        count = len(numbers) - at
        if column or count < width:  # a piece of one row, else whole rows
            count = min(width - column, count)
        else:
            count -= count % width
        yield row, column, numbers[at : at + count].view(-1, min(count, width))
        at += count


def _keep_block(kept: Tensor, rows: slice, columns: slice, row: int, column: int, block: Tensor) -> None:
    """Copy a block of which the first number is in this row and column of all; `kept` has these of them."""
    top, bottom = max(rows.start, row), min(rows.stop, row + block.shape[0])
    left, right = max(columns.start, column), min(columns.stop, column + block.shape[1])
    if top < bottom and left < right:
        place = kept[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]
        place.copy_(block[top - row : bottom - row, left - column : right - column])


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(1, 1, device="meta")  # draws nothing
    (layer.out_features, layer.in_features), layer.bias = weight.shape, nn.Parameter(bias.flatten())
    layer.weight = nn.Parameter(weight)
    return layer


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

    rows_of = {}
    for rank in range(1, group.size):
        rows, _ = own(config, rank, group.size)
        numbers = torch.empty(rows.stop - rows.start, dtype=torch.int64)
        group.broadcast(numbers, 0)
        if rank == group.rank:
            rows_of[rank] = numbers.numpy()
    _, inputs = own(config, group.rank, group.size)
    path = cast(FileData, config.data).path
    x, y = read_rows(path, columns, rows_of[group.rank], inputs, config.dtype)
    return Table(columns, x, y, None, None, config.N, rows_of[group.rank])
