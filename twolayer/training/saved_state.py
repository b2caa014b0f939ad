"""The parts of a training's saved state."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from twolayer.engines.base import check_state
from twolayer.errors import StateError


def taken(state: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Remove a part from a state, that with these names, and return what there was of it."""
    return {name: state.pop(name) for name in names if name in state}


def saved_lr(state: dict[str, Tensor]) -> float:
    """Remove the learning rate of `lr: auto` from a state and return it. Raises StateError."""
    own = {"lr": torch.zeros((), dtype=torch.float64)}
    check_state(own, found := taken(state, own))
    if not 0 < (lr := float(found["lr"])) < math.inf:
        raise StateError(f"is a state of another training: its lr is {lr}")
    return lr
