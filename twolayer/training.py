"""Training: from a config to a trained model, and the loop in between."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twolayer import machine, memory, stepsize
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
    if config.device.startswith("cuda") and not machine.fits(config):
        sizes = (
            f"{memory.size(memory.needed(config))}, and {memory.size(machine.free_memory(config.device) or 0)} is free"
        )
        raise DeviceError(f"out of memory on {config.device}: the training needs at least {sizes}")
    config = config.model_copy(update={"engine": choose_engine(config)})
    if config.device == "mps" and config.engine == "fused":  # `auto` became MPS
        raise DeviceError("the fused engine is not to be had on mps; take --engine auto, or another device")
    if config.engine == "fused":
        form = config.model_copy(update={"form": choose_form(config)})
        # The dual form has K beside all that the primal form has: where it does not fit, that may.
        config = form if config.form != "auto" or machine.fits(form) else form.model_copy(update={"form": "primal"})
    config = config.model_copy(update={"threads": machine.choose_threads(config)})
    generator = torch.Generator().manual_seed(config.seed)  # one stream, as in the book: x, y, then the weights
    with machine.set_up(config):
        return config, load_data(config, generator), build_model(config, generator)


class Fit(Iterator[Block]):
    """A training under way: trains the model in place, and gives its losses, a block of iterations at a time.

    The data and the model are to have the config's shape; of the rest `epochs`, `lr`, `reduction`, `engine`, `form`,
    `threads`, `precision` and `cuda_graph` count here. A block is about 50 ms of work, so that printing, disk and
    device synchronisation stay out of the hot loop; the results do not depend on where the blocks are cut, and between
    two of them `model` is consistent. After the block that ends with the first loss that is not finite comes a
    DivergedError.

    With `lr: auto` the step is 1 / lambda (see `stepsize`), measured anew at fixed iterations, where blocks are cut.
    `state` is what `state()` gave after `done` iterations of the same training: it goes on from there, bit for bit. No
    block reaches over a multiple of `cut_every`.
    """

    def __init__(
        self,
        model: nn.Sequential,
        data: Data,
        config: Config,
        state: Mapping[str, Tensor] | None = None,
        done: int = 0,
        *,
        cut_every: int = 0,
    ) -> None:
        self.model, self.data, self.config, self.done, self.cut_every = model, data, config, done, cut_every
        state = dict(state or {})
        if config.lr != "auto":
            self.lr = config.lr
        elif "lr" in state:
            self.lr = float(state.pop("lr"))
        else:
            self.lr = stepsize.suggested(model, data, config)
        with machine.set_up(config):  # the dual form's K depends on the threads, too
            self.engine = make_engine(model, data, config.model_copy(update={"lr": self.lr}))
            if state:
                self.engine.load_state(state, done)
                self.engine.sync()
        self._blocks = self._run()

    def __next__(self) -> Block:
        return next(self._blocks)

    def state(self) -> dict[str, Tensor]:
        """All that a continuation needs to be the same bit for bit."""
        lr = {"lr": torch.tensor(self.lr, dtype=torch.float64)} if self.config.lr == "auto" else {}
        return self.engine.state() | lr

    def _measure(self) -> int:
        """With `lr: auto`, measure the step where that is due; the iterations until it is due again."""
        if self.config.lr != "auto":
            return self.config.epochs
        if self.done and stepsize.next_measure(self.done - 1) == self.done:
            self.lr = stepsize.suggested(self.model, self.data, self.config)
            with machine.set_up(self.config):
                self.engine.set_lr(self.lr)
        return stepsize.next_measure(self.done) - self.done

    def _run(self) -> Iterator[Block]:
        size = 1
        while left := self.config.epochs - self.done:
            start = time.perf_counter()
            count = min(
                size, left, self._measure(), self.cut_every - self.done % self.cut_every if self.cut_every else left
            )
            with machine.set_up(self.config):
                scores = self.engine.advance(count)
                losses = tuple((scores[:, 0] if scores.dim() > 1 else scores).tolist())  # here it waits for the device
                computed = time.perf_counter()
                self.engine.sync()
            end = time.perf_counter()
            seconds, first, lr = end - start, self.done + 1, self.lr if self.config.lr == "auto" else None
            self.done += count
            if not all(map(math.isfinite, losses)):
                bad = next(i for i, loss in enumerate(losses) if not math.isfinite(loss))
                yield Block(first, losses[: bad + 1], seconds, lr)
                raise DivergedError(first + bad, losses[bad], self.lr)
            yield Block(first, losses, seconds, lr)
            # Twenty times what the sync took, so that it stays a small part where it costs more than iterations do.
            target = max(BLOCK_SECONDS, 20 * (end - computed))
            size = max(1, min(4 * size, int(count * target / max(seconds, 1e-9))))


def fit(model: nn.Sequential, data: Data, config: Config) -> Fit:
    """Train the model in place; the losses come a block of consecutive iterations at a time (see `Fit`)."""
    return Fit(model, data, config)


def final_loss(model: nn.Sequential, data: Data, config: Config) -> float:
    """The loss after the last update. Raises DivergedError where it is not finite."""
    loss_fn = (nn.MSELoss if config.loss == "mse" else nn.CrossEntropyLoss)(reduction=config.reduction)
    with torch.no_grad(), machine.set_up(config):
        loss = float(loss_fn(model(data.x), data.y if config.loss == "mse" else data.y.argmax(1)))
    if not math.isfinite(loss):
        raise DivergedError(config.epochs + 1, loss, math.nan if config.lr == "auto" else config.lr)
    return loss
