"""The blocks of a training, made of shorter pieces."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from twolayer.runs.history import Block, join


def joined(pieces: Iterator[Block], sync: Callable[[], None], is_cut: Callable[[], bool]) -> Iterator[Block]:
    """Consecutive pieces joined to blocks that have losses, with `sync` called before each: its time is the block's.

    A block lasts at least twenty times as long as the last sync, so that this stays a small part; but it has at most
    four times the losses of the one before, and ends where `is_cut`.
    """
    waiting: list[Block] = []
    enough, most = 0.0, 1
    while True:
        piece = next(pieces, None)
        if piece is not None:
            waiting.append(piece)
            is_long = sum(each.seconds for each in waiting) >= enough or sum(len(w.losses) for w in waiting) >= most
            if not piece.losses or not (is_long or is_cut() or not math.isfinite(piece.losses[-1])):
                continue
        if waiting:
            block, start = join(waiting), time.perf_counter()
            sync()
            seconds = time.perf_counter() - start
            if block.losses:
                yield replace(block, seconds=block.seconds + seconds)
            waiting, enough, most = [], 20 * seconds, max(1, 4 * len(block.losses))
        if piece is None:
            return
