"""Training: from a config to a trained model, and the loop in between."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from twolayer import machine, memory
from twolayer.config import Config
from twolayer.data import Data, load_data
from twolayer.engines import choose_engine, make_engine
from twolayer.engines.fused import choose_form
from twolayer.errors import DeviceError, DivergedError
from twolayer.history import Block
from twolayer.model import build_model, resolve_device

BLOCK_SECONDS = 0.05


@dataclass(frozen=True)
class Training:
    """A finished training: the config with every `auto` resolved, the trained model, its data, and the losses.

    `losses[i]` is the loss before update i + 1, `final_loss` the one after the last update, and `seconds` the
    time that the iterations took.
    """

    config: Config
    model: nn.Sequential
    data: Data
    losses: tuple[float, ...]
    final_loss: float
    seconds: float


def train(config: Config) -> Training:
    """Train the network that a config describes, from the drawing of the data to the last update.

    Raises ConfigError (it does not fit into memory), DataError, DeviceError or DivergedError.
    """
    config, data, model = prepare(config)
    blocks = list(fit(model, data, config))
    losses = tuple(loss for block in blocks for loss in block.losses)
    seconds = sum(block.seconds for block in blocks)
    return Training(config, model, data, losses, final_loss(model, data, config), seconds)


def prepare(config: Config) -> tuple[Config, Data, nn.Sequential]:
    """The config with device, engine and threads resolved, and its data and initial model on the device."""
    memory.check(config)
    config = config.model_copy(update={"device": resolve_device(config.device, config.dtype)})
    memory.check(config)  # `auto` may have become the CPU
    if config.device.startswith("cuda") and (free := torch.cuda.mem_get_info(config.device)[0]) < memory.needed(config):
        sizes = f"{memory.size(memory.needed(config))}, and {memory.size(free)} is free"
        raise DeviceError(f"out of memory on {config.device}: the training needs at least {sizes}")
    config = config.model_copy(update={"engine": choose_engine(config)})
    if config.device == "mps" and config.engine == "fused":  # `auto` became MPS
        raise DeviceError("the fused engine is not to be had on mps; take --engine auto, or another device")
    if config.engine == "fused":
        config = config.model_copy(update={"form": choose_form(config)})
    config = config.model_copy(update={"threads": machine.choose_threads(config)})
    generator = torch.Generator().manual_seed(config.seed)  # one stream, as in the book: x, y, then the weights
    with machine.set_up(config):
        return config, load_data(config, generator), build_model(config, generator)


def fit(model: nn.Sequential, data: Data, config: Config) -> Iterator[Block]:
    """Train the model in place; yield its losses, a block of consecutive iterations at a time.

    The data and the model are to have the config's shape; of the rest `epochs`, `lr`, `reduction`, `engine`, `form`
    and `threads` count here. A block is about 50 ms of
    work, so that printing, disk and device synchronisation stay out of the hot loop; the results do not depend
    on where the blocks are cut, and between two of them `model` is consistent. Raises DivergedError after the
    block that ends with the first loss that is not finite.
    """
    with machine.set_up(config):  # the dual form's K depends on the threads, too
        engine = make_engine(model, data, config)
    first, size = 1, 1
    while first <= config.epochs:
        size = min(size, config.epochs - first + 1)
        start = time.perf_counter()
        with machine.set_up(config):
            losses = tuple(engine.advance(size).tolist())  # the one place that waits for the device
            computed = time.perf_counter()
            engine.sync()
        end = time.perf_counter()
        seconds = end - start
        if not all(map(math.isfinite, losses)):
            bad = next(i for i, loss in enumerate(losses) if not math.isfinite(loss))
            yield Block(first, losses[: bad + 1], seconds)
            raise DivergedError(first + bad, losses[bad], config.lr)
        yield Block(first, losses, seconds)
        first += size
        # Twenty times what the sync took, so that it stays a small part where it costs more than iterations do.
        target = max(BLOCK_SECONDS, 20 * (end - computed))
        size = max(1, min(4 * size, int(size * target / max(seconds, 1e-9))))


def final_loss(model: nn.Sequential, data: Data, config: Config) -> float:
    """The loss after the last update. Raises DivergedError where it is not finite."""
    loss_fn = nn.MSELoss(reduction=config.reduction)
    with torch.no_grad(), machine.set_up(config):
        loss = float(loss_fn(model(data.x), data.y))
    if not math.isfinite(loss):
        raise DivergedError(config.epochs + 1, loss, config.lr)
    return loss
