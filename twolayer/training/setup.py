"""The data: x and y, drawn on the CPU or read from a file, so that every device starts from the same numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from twolayer.config.schema import Config, LinearData
from twolayer.engines.base import Data
from twolayer.errors import DataError, extra
from twolayer.hardware.device import resolve_device
from twolayer.tables.options import FileData

if TYPE_CHECKING:
    from twolayer.tables.dataset import Table


def load_data(config: Config, generator: torch.Generator | None = None, table: Table | None = None) -> Data:
    """Draw x, then y, from the generator (one seeded with `config.seed`, unless given), or read a file (unless `table`
    is what it holds); on `config.device`.

    The numbers are drawn and combined in float32 on the CPU whatever the dtype and the device, then converted
    and moved: a float64 run has the very problem that the float32 run has. Source of the random data: the rTorch
    book, "A neural network step-by-step"; of the linear: torch for R, "Neural network from scratch".
    Raises DataError where y is not finite in float32, DeviceError where the device cannot be had.
    """
    to = {"device": resolve_device(config.device, config.dtype), "dtype": getattr(torch, config.dtype)}
    if isinstance(config.data, FileData):
        table = table or read_table(config, config.data)
        data = [
            Data(torch.from_numpy(x).to(**to), torch.from_numpy(y).to(**to))
            for x, y in ((table.x, table.y), (table.x_validation, table.y_validation))
            if x is not None and y is not None
        ]
        return replace(data[0], validation=data[1] if len(data) > 1 else None, columns=table.columns)
    generator = generator or torch.Generator().manual_seed(config.seed)
    x = torch.randn(config.N, config.D_in, generator=generator)
    y = torch.randn(config.N, config.D_out, generator=generator)  # the target, or its noise
    if isinstance(config.data, LinearData):
        weights = torch.tensor(config.data.rows)  # (D_out, D_in)
        y = torch.addmm(y, x, weights.t(), beta=config.data.noise)
        if not torch.isfinite(y).all():
            raise DataError("data: the targets are too large for float32; take smaller weights or less noise")
    return Data(x.to(**to), y.to(**to))


def read_table(config: Config, data: FileData) -> Table:
    """What the config's file holds. Raises DataError."""
    with extra("polars", "data"):
        from twolayer.tables import dataset  # which takes a while

    return dataset.read(
        data,
        Path(),
        validation=config.validation,
        seed=config.seed,
        loss=config.loss,
        dtype=config.dtype,
    )
