from __future__ import annotations

import math

from twolayer.runs.history import Block
from twolayer.training.blocks import joined


def block(first: int, losses: list[float], seconds: float = 1.0) -> Block:
    return Block(first, tuple(losses), seconds, {"lr": tuple(losses)})


def test_blocks_have_losses_and_the_weights_before_each() -> None:
    pieces = iter([block(1, []), block(1, []), block(1, [4.0]), block(2, [3.0, 2.0]), block(4, [])])
    syncs = []
    found = list(joined(pieces, lambda: syncs.append(len(syncs)), lambda: False))
    assert [(each.first, each.losses, each.more["lr"]) for each in found] == [
        (1, (4.0,), (4.0,)),
        (2, (3.0, 2.0), (3.0, 2.0)),
    ]
    assert found[0].seconds >= 3
    assert len(syncs) == 3  # the last for a part of an epoch


def test_a_loss_that_is_not_finite_ends_a_block() -> None:
    pieces = iter([block(1, [1.0], 0.0), block(2, [math.inf], 0.0), block(3, [2.0], 0.0)])
    found = [each.losses for each in joined(pieces, lambda: None, lambda: False)]
    assert sum(found, ()) == (1.0, math.inf, 2.0)
    assert any(losses[-1] == math.inf for losses in found)


def test_a_cut_ends_a_block() -> None:
    pieces = iter([block(i, [float(i)], 0.0) for i in range(1, 9)])
    assert [each.losses for each in joined(pieces, lambda: None, lambda: True)] == [(float(i),) for i in range(1, 9)]
