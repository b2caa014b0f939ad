"""Prepares a training: the device, the engine, the data and the initial weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from twolayer.config.from_table import table_of
from twolayer.config.schema import Config, LinearData, settled
from twolayer.engines.base import Data
from twolayer.engines.selection import choose_engine, choose_form
from twolayer.errors import DataError, DeviceError
from twolayer.formatting import size
from twolayer.hardware import device, memory, threads
from twolayer.hardware.device import resolve_device
from twolayer.tables.options import FileData

if TYPE_CHECKING:
    from twolayer.tables.dataset import Table


def prepare(config: Config, table: Table | None = None) -> tuple[Config, Data, nn.Sequential]:
    """The config with device, engine and threads resolved, and its data and initial model on the device.

    `table` is what its file holds, where that has been read already.
    """
    memory.check(config)
    config = config.model_copy(update={"device": resolve_device(config.device, config.dtype)})
    memory.check(config)  # `auto` may have become the CPU
    if config.device.startswith("cuda") and not device.fits(config):
        free = device.free_memory(config.device) or 0
        sizes = f"{size(memory.needed(config))}, and {size(free)} is free"
        raise DeviceError(f"out of memory on {config.device}: the training needs at least {sizes}")
    config = config.model_copy(update={"engine": choose_engine(config)})
    if config.device == "mps" and config.engine == "fused":  # `auto` became MPS
        raise DeviceError("the fused engine is not to be had on mps; take --engine auto, or another device")
    if config.engine == "fused":
        form = config.model_copy(update={"form": choose_form(config)})
        # The dual form has K beside all that the primal form has: where it does not fit, that may.
        config = form if config.form != "auto" or device.fits(form) else form.model_copy(update={"form": "primal"})
    config = config.model_copy(update={"threads": threads.choose_threads(config)})
    generator = torch.Generator().manual_seed(config.seed)  # one stream, as in the book: x, y, then the weights
    with threads.set_up(config):
        return settled(config), load_data(config, generator, table), build_model(config, generator)


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
        table = table or table_of(config)
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


def build_model(config: Config, generator: torch.Generator | None = None) -> nn.Sequential:
    """`nn.Sequential(Linear(D_in, H), ReLU(), Linear(H, D_out))` with its initial weights, on `config.device`.

    The weights come from the generator (one seeded with `config.seed`, unless given): to get the weights that
    `train` starts from, hand over the generator that `load_data` has drawn from. They are drawn in float32 on
    the CPU, then converted and moved; torch's global generator is left as it was. Raises DeviceError.
    """
    generator = generator or torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):  # nn.Linear draws from the global generator: lend it ours
        torch.set_rng_state(generator.get_state())
        model = nn.Sequential(
            nn.Linear(config.D_in, config.H),
            nn.ReLU(),
            nn.Linear(config.H, config.D_out),
        )
        if config.init == "default":
            generator.set_state(torch.get_rng_state())
    if config.init == "normal":
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)
    return model.to(resolve_device(config.device, config.dtype), getattr(torch, config.dtype))
