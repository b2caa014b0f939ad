"""The values of `--sweep KEY=VALUES` and `--seeds`: lists, ranges, and values that are lists themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from twolayer.config.loading import Override
from twolayer.config.schema import Config
from twolayer.errors import Origin, Problem
from twolayer.formatting import counted

MAX_POINTS = 100_000  # of a sweep
_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?:([*+])({_NUMBER}))?")
_LIKE_RANGE = re.compile(rf"{_NUMBER}\.\.[^/]*")
_HOW = "a range is 1e-5..1e-2*7 (7 values, each the same multiple of the one before) or 16..256+16 (every 16)"
_DIGITS = 6  # of the values inside a range of multiples: they can be typed again


@dataclass(frozen=True)
class Choice:
    """One value of a key that varies: as the text of YAML, or, from Python, as the value itself."""

    override: Override
    value: Any = None
    is_text: bool = True

    @property
    def shown(self) -> str:
        """The value as the user gave it."""
        return self.override.text if self.is_text else repr(self.value)


@dataclass(frozen=True)
class Axis:
    """A key that varies, dotted, and its values in the order in which they were given."""

    key: str
    choices: tuple[Choice, ...]


class _ValueError(ValueError):
    """What is wrong with a value, in words."""


def parse(text: str) -> tuple[Axis | None, list[Problem]]:
    """The axis of `--sweep KEY=VALUES`; None where there is a problem."""
    key, is_set, values = text.partition("=")
    origin = Origin(f"--sweep {text[:200]}")
    if not key or not is_set:
        return None, [Problem(origin, "", "must be KEY=VALUES, such as --sweep lr=1e-4,1e-3")]
    if key == "data":
        return None, [Problem(origin, "", "vary the keys inside data, such as --sweep data.noise=0.1,1")]
    try:
        texts = list(_texts(key, split(values)))
    except _ValueError as error:
        return None, [Problem(origin, key, str(error))]
    path = tuple(key.split("."))
    return Axis(key, tuple(Choice(Override(path, one, f"--sweep {key}={one}")) for one in texts)), []


def seeds(text: str, first: int) -> tuple[Axis | None, list[Problem]]:
    """The axis of `--seeds`: as many seeds from the `first` on, or a list of them; None where there is a problem."""
    try:
        if re.fullmatch(r"[0-9]+", text):
            if not 0 < int(text[:30]) <= MAX_POINTS:
                raise _ValueError(f"must be 1 to {MAX_POINTS:,} seeds, or a list such as 3,7,11")
            texts = [str(first + number) for number in range(int(text))]
        else:
            texts = list(_texts("seed", split(text.removesuffix(","))))
    except _ValueError as error:
        return None, [Problem(Origin("--seeds"), "", str(error))]
    return Axis("seed", tuple(Choice(Override(("seed",), one, "--seeds")) for one in texts)), []


def split(text: str) -> list[str]:
    """The parts of a text between the commas that are in no brackets and in no quotes. Raises ValueError."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and not parts[-1].strip():
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and not depth:
            parts.append("")
            continue
        parts[-1] += letter
    parts = [part.strip() for part in parts]
    if not all(parts):
        raise _ValueError("a value is missing: values have commas between them, such as 1e-4,1e-3")
    return parts


def _texts(key: str, parts: Sequence[str]) -> Iterator[str]:
    for part in parts:
        if match := _RANGE.fullmatch(part):
            yield from _expanded(key, part, *match.groups())
        elif _LIKE_RANGE.fullmatch(part):
            raise _ValueError(f"{part} is not a range; {_HOW}")
        else:
            yield part


def _expanded(key: str, text: str, first: str, last: str, sign: str | None, how: str | None) -> list[str]:
    """The values of a range, its two ends included."""
    start, end, is_whole = Decimal(first), Decimal(last), takes_whole_numbers(key)
    if is_whole and (start % 1 or end % 1):
        raise _ValueError(f"{text}: {key} must be a whole number")
    if sign is None and not start % 1 and not end % 1 and "e" not in text.lower():
        sign, how = "+", "1"
    if sign is None or how is None:
        raise _ValueError(f"{text} does not say which values; {_HOW}")
    by = Decimal(how)
    if sign == "+":
        if by <= 0 or end < start or (is_whole and by % 1):
            raise _ValueError(f"{text} has no values: it goes up from its first end, by a number above zero")
        count = (end - start) // by + 1
        if count > MAX_POINTS:
            raise _ValueError(f"{text} has {count:.6g} values, and at most {MAX_POINTS:,} are allowed")
        values = [start + by * number for number in range(int(count))]
        return [str(int(value)) if is_whole else repr(float(value)) for value in values]
    if by % 1 or not 2 <= by <= MAX_POINTS or start <= 0 or end <= 0:
        raise _ValueError(f"{text}: {_HOW}; both ends are above zero, and there are 2 to {MAX_POINTS:,} values")
    return _multiples(text, float(start), float(end), int(by), is_whole=is_whole)


def _multiples(text: str, start: float, end: float, count: int, *, is_whole: bool) -> list[str]:
    low, high = math.log(start), math.log(end)
    inside = [math.exp(low + (high - low) * number / (count - 1)) for number in range(1, count - 1)]
    values = [start, *(float(f"{value:.{_DIGITS}g}") for value in inside), end]
    texts = [str(round(value)) if is_whole else repr(value) for value in values]
    if (found := len(set(texts))) < count:
        what = "whole numbers" if is_whole else f"values of {_DIGITS} digits"
        raise _ValueError(f"{text}: there are only {counted(found, 'different one')} among these {count} {what}")
    return texts


@cache
def takes_whole_numbers(key: str) -> bool:
    """Whether the numbers that a key takes are whole."""
    schema = Config.model_json_schema()["properties"].get(key, {})
    return any(part.get("type") == "integer" for part in (schema, *schema.get("anyOf", ())))
