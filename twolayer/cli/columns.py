"""The columns of a table on the screen: their widths, and their lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

_NUMBER = re.compile(r"[-+(]*[0-9][0-9.,]*(e[-+]?[0-9]+)?[%)]*|[-+]?(inf|nan)")  # never broken into two lines
_BETWEEN_WORDS = re.compile(r"(?<!±)(?<!\+-)\s+(?!±|\+-)")  # a number and its standard error are one word
_MAX_NAME, _MAX_WORD = 24, 12  # characters; longer names of columns, and longer words, such as paths, may be broken


def fit(widths: Sequence[int], room: int, drop: Iterable[int], gap: int = 2) -> list[int]:
    """The indices of the columns that fit into `room` characters, with `gap` spaces between two.

    `drop` has the indices of the columns that may be left out, the first one first; all others stay.
    """
    kept = list(range(len(widths)))
    for index in drop:
        if sum(widths[i] for i in kept) + gap * (len(kept) - 1) <= room:
            break
        if index in kept:
            kept.remove(index)
    return kept


def aligned(cells: Sequence[str], widths: Sequence[int], console: Console) -> Iterator[str]:
    """The lines of a row of a table."""
    parts = [_wrapped(cell, width, console) for cell, width in zip(cells, widths, strict=True)]
    for number in range(max(map(len, parts))):
        texts = (part[number] if number < len(part) else "" for part in parts)
        yield "  ".join(_padded(text, width) for text, width in zip(texts, widths, strict=True)).rstrip()


def _padded(text: str, width: int) -> str:
    return text.ljust(width) if text.isascii() and len(text) <= width else set_cell_size(text, width)


def wrapped_widths(
    columns: Sequence[Sequence[str]], widths: Sequence[int], kept: Sequence[int], room: int
) -> list[int]:
    """Widths that fit into `room`, as far as wrapping text between words can make columns narrower."""
    smallest = [
        max(
            min(cell_len(name), _MAX_NAME),
            *(_smallest(word) for cell in cells for word in _BETWEEN_WORDS.split(cell.strip())),
            0,
        )
        for name, *cells in columns
    ]
    found, excess = list(widths), sum(widths[i] for i in kept) + 2 * (len(kept) - 1) - room
    for _ in range(excess):
        wide = [i for i in kept if found[i] > smallest[i]]
        if not wide:
            break
        found[max(wide, key=found.__getitem__)] -= 1
    return found


def _smallest(word: str) -> int:
    """The characters in a line that a word needs."""
    is_number = all(map(_NUMBER.fullmatch, re.split(r" ± | \+- ", word)))
    return cell_len(word) if is_number else min(cell_len(word), _MAX_WORD)


def _wrapped(cell: str, width: int, console: Console) -> list[str]:
    """The lines of a cell."""
    if cell_len(cell) <= width:
        return [cell]
    return [line.plain.rstrip() for line in Text(cell).wrap(console, width)]
