"""Prepares a training: the device, the engine, the data and the initial weights."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import nn

from twolayer.config.from_table import table_of
from twolayer.config.loading import AnyConfig, as_config
from twolayer.config.schema import Config, LinearData, settled
from twolayer.engines.base import Data, Share
from twolayer.engines.parts import ALONE, Group
from twolayer.engines.selection import choose_engine, choose_form, choose_split, shares_data, shares_weights
from twolayer.errors import DataError, DeviceError
from twolayer.formatting import setting, size
from twolayer.hardware import device, memory, threads
from twolayer.hardware.device import resolve_device
from twolayer.tables.options import FileData
from twolayer.training import shares

if TYPE_CHECKING:
    from twolayer.tables.dataset import Table


def prepare(config: AnyConfig, table: Table | None = None, group: Group = ALONE) -> tuple[Config, Data, nn.Sequential]:
    """The config with every `auto` but `lr` resolved, and its data and initial model on the device.

    `table`: the contents of the config's file, if it has been read already. In a `group` of several processes the data
    and the model are this one's share of them. Raises ConfigError, DataError or DeviceError.
    """
    config = as_config(config)
    if group.size == 1:  # of several the first has counted all, before any of them began
        memory.check(config)
    config = resolve_auto(config)
    if group.size == 1:
        memory.check(config)  # `auto` may have become the CPU
    if config.device.startswith("cuda") and not device.fits(config, group.size):
        free = device.free_memory(config.device) or 0
        sizes = f"{size(memory.needed(config, group.size))}, and {size(free)} is free"
        raise DeviceError(f"out of memory on {config.device}: the training needs at least {sizes}")
    generator = torch.Generator().manual_seed(config.seed)  # one stream, as in the book: x, y, then the weights
    with threads.set_up(config):
        return settled(config), load_data(config, generator, table, group), build_model(config, generator, group)


def resolve_auto(config: Config) -> Config:
    """The config with its device, engine, form, split and threads chosen: the one place where `auto` is resolved.

    `lr: auto` stays, because it is measured during training (see `learning_rate`), and so does the form of an engine
    that has none. A config without `auto` is returned as it is. Raises DeviceError if the device is not available.
    """
    config = config.model_copy(update={"device": resolve_device(config.device, config.dtype)})
    config = config.model_copy(update={"engine": choose_engine(config)})
    if config.engine == "compiled":
        if config.device != "cpu":  # the device may have been auto
            raise DeviceError(
                f"the compiled engine is for the CPU, not {config.device}; use {setting('device', 'cpu')}"
            )
        if find_spec("numba") is None:
            raise DataError("the compiled engine needs numba: pip install 'twolayer[fast]'")
    if config.device == "mps" and config.engine == "fused":
        auto = setting("engine", "auto")
        raise DeviceError(f"the fused engine is not available on MPS; use {auto} or another device")
    if (form := choose_form(config)) != config.form:
        chosen = config.model_copy(update={"form": form})
        # The dual form needs K in addition to what the primal form needs: the primal form may fit where it does not.
        config = chosen if device.fits(chosen) else chosen.model_copy(update={"form": "primal"})
    config = config.model_copy(update={"split": choose_split(config)})
    return config.model_copy(update={"threads": threads.choose_threads(config)})


def load_data(
    config: AnyConfig, generator: torch.Generator | None = None, table: Table | None = None, group: Group = ALONE
) -> Data:
    """Draw x, then y, from the generator (default: one seeded with `config.seed`), or read a file; on `config.device`.

    `table`: the contents of the file, if it has been read already. `group`: as for `prepare`. For every dtype and
    device the numbers are drawn and combined in float32 on the CPU, then converted and moved: a float64 run has the
    same problem as a float32 run. Source of the random data: the rTorch book, "A neural network step-by-step"; of the
    linear data: torch for R, "Neural network from scratch". Raises DataError if y is not finite in float32, DeviceError
    if the device is not available.
    """
    config = as_config(config)
    to = {"device": resolve_device(config.device, config.dtype), "dtype": getattr(torch, config.dtype)}
    if isinstance(config.data, FileData):
        table = table or table_of(config)
        data = [
            Data(torch.from_numpy(x).to(**to), torch.from_numpy(y).to(**to))
            for x, y in ((table.x, table.y), (table.x_validation, table.y_validation))
            if x is not None and y is not None
        ]
        share = None
        if group.rank and shares_data(config):
            share = Share(config.N, config.D_in, *shares.own(config, group.rank, group.size))
        validation = data[1] if len(data) > 1 else None
        return replace(data[0], validation=validation, columns=table.columns, notes=table.notes, share=share)
    generator = generator or torch.Generator().manual_seed(config.seed)
    if shares_data(config):
        return shares.drawn(config, generator, group, **to)
    x = torch.randn(config.N, config.D_in, generator=generator)
    y = torch.randn(config.N, config.D_out, generator=generator)  # the target, or its noise
    if isinstance(config.data, LinearData):
        weights = torch.tensor(config.data.rows)  # (D_out, D_in)
        y = torch.addmm(y, x, weights.t(), beta=config.data.noise)
        if not torch.isfinite(y).all():
            raise DataError("data: the targets are too large for float32; use smaller weights or less noise")
    return Data(x.to(**to), y.to(**to))


def build_model(config: AnyConfig, generator: torch.Generator | None = None, group: Group = ALONE) -> nn.Sequential:
    """`nn.Sequential(Linear(D_in, H), ReLU(), Linear(H, D_out))` with its initial weights, on `config.device`.

    The weights come from the generator (default: one seeded with `config.seed`): to get the weights that `train`
    starts from, pass the generator that `load_data` has drawn from. They are drawn in float32 on the CPU, then
    converted and moved; torch's global generator is not changed. In a `group` all but its first process have the
    weights of their own units or inputs alone (`OwnWeights`), if the parts are of these. Raises DeviceError.
    """
    config = as_config(config)
    generator = generator or torch.Generator().manual_seed(config.seed)
    to = {"device": resolve_device(config.device, config.dtype), "dtype": getattr(torch, config.dtype)}
    if group.rank and shares_weights(config):
        return shares.own_weights(config, generator, group, **to)
    with torch.random.fork_rng(devices=[]):  # nn.Linear draws from the global generator: give it our state
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
    return model.to(**to)
