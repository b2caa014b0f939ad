"""What the first process of a group tells the others: what to do, with up to two numbers; then a text, or tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

import torch
from torch import Tensor

from twolayer.engines.parts import Group


class Call(IntEnum):
    """What the others are to do."""

    MAKE, ADVANCE, UPDATES, SET_LR, STATE, LOAD_STATE, SYNC, SCORE, EXCHANGE, ALONE, FIRST, END = range(12)
    OPEN, WRITE_PARTS, READ_PARTS = range(12, 15)


def tell(group: Group, call: Call, *numbers: float) -> None:
    """Tell the others what to do."""
    _broadcast([call, *numbers, *[0] * (2 - len(numbers))], group)


def heard(group: Group) -> tuple[Call, list[float]]:
    """What the first process tells."""
    call, *numbers = _broadcast([0, 0, 0], group)
    return Call(int(call)), numbers


def tell_bytes(data: bytes, group: Group) -> None:
    """Tell the others bytes, whose number they know, and which are not none."""
    group.broadcast(torch.tensor(list(data), dtype=torch.uint8), 0)


def heard_bytes(count: int, group: Group) -> bytes:
    """So many bytes that the first process tells."""
    tensor = torch.empty(count, dtype=torch.uint8)
    group.broadcast(tensor, 0)
    return bytes(tensor.tolist())


def exchange_state(state: Mapping[str, Tensor], group: Group) -> Mapping[str, Tensor]:
    """Write the first process's tensors into those of the same names in the others."""
    for name in sorted(state):
        group.broadcast(state[name], 0)
    return state


def is_true_in_all(value: bool, group: Group) -> bool:
    """Whether a value is true in all processes, each of which calls this."""
    own = torch.tensor([int(value)], dtype=torch.uint8)
    all_ = [torch.empty_like(own) for _ in range(group.size)]
    group.gather(own, all_)
    return all(map(bool, all_))


def _broadcast(numbers: Sequence[float], group: Group) -> list[float]:
    tensor = torch.tensor(numbers, dtype=torch.float64)
    group.broadcast(tensor, 0)
    found: list[float] = tensor.tolist()
    return found
