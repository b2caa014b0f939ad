"""The engines: each computes the same gradient descent in its own way. `make_engine` chooses."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from twolayer.config import Config
from twolayer.data import Data
from twolayer.engines.autograd import AutogradEngine
from twolayer.engines.manual import ManualEngine


class Engine(Protocol):
    """Advances gradient descent on one model and one data set; the model's parameters are its state."""

    def advance(self, iterations: int) -> Tensor:
        """Do so many iterations; the loss BEFORE each update, shape (iterations,), on the device."""


def choose_engine(config: Config) -> str:
    """The engine's name; `auto` is the fastest one that applies, which on MPS, where it is not tested, is autograd."""
    if config.engine != "auto":
        return config.engine
    return "autograd" if config.device == "mps" else "manual"


def make_engine(model: nn.Sequential, data: Data, config: Config) -> Engine:
    """The engine that `choose_engine` names, at work on this model's parameters."""
    engine = AutogradEngine if choose_engine(config) == "autograd" else ManualEngine
    return engine(model, data, lr=config.lr, reduction=config.reduction)
