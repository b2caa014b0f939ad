"""The data: x and y, drawn on the CPU, so that every device starts from the same numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twolayer.config import Config, LinearData
from twolayer.errors import DataError
from twolayer.model import resolve_device


@dataclass(frozen=True)
class Data:
    """What is trained on: x of shape (N, D_in) and y of shape (N, D_out); and what is held out for validation."""

    x: Tensor
    y: Tensor
    validation: Data | None = None


def load_data(config: Config, generator: torch.Generator | None = None) -> Data:
    """Draw x, then y, from the generator (one seeded with `config.seed`, unless given); on `config.device`.

    The numbers are drawn and combined in float32 on the CPU whatever the dtype and the device, then converted
    and moved: a float64 run has the very problem that the float32 run has. Source of the random data: the rTorch
    book, "A neural network step-by-step"; of the linear: torch for R, "Neural network from scratch".
    Raises DataError where y is not finite in float32, DeviceError where the device cannot be had.
    """
    generator = generator or torch.Generator().manual_seed(config.seed)
    x = torch.randn(config.N, config.D_in, generator=generator)
    y = torch.randn(config.N, config.D_out, generator=generator)  # the target, or its noise
    if isinstance(config.data, LinearData):
        weights = torch.tensor(config.data.rows)  # (D_out, D_in)
        y = torch.addmm(y, x, weights.t(), beta=config.data.noise)
        if not torch.isfinite(y).all():
            raise DataError("data: the targets are too large for float32; take smaller weights or less noise")
    to = {"device": resolve_device(config.device, config.dtype), "dtype": getattr(torch, config.dtype)}
    return Data(x.to(**to), y.to(**to))
