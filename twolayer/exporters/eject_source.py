"""Python source from templates: lines with conditions in the margin, and constants as `ruff format` writes them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from string import Template
from typing import Any
from unicodedata import category, east_asian_width

from twolayer.config.schema import Config

WIDTH = 88  # characters in a line, the default of ruff and black


def fill(template: str, flags: Collection[str], values: Mapping[str, object]) -> str:
    """The lines of a template whose conditions hold, with its `$names` replaced.

    A line is `conditions|text`. The conditions are flags with blanks between them, all of which must be given; of one
    with `not-` before it the flag must not be.
    """
    kept = []
    for line in template.strip("\n").split("\n"):
        conditions, _, text = line.partition("|")
        if all(_holds(condition, flags) for condition in conditions.split()):
            kept.append(text)
    return Template("\n".join(kept)).substitute(values)


def _holds(condition: str, flags: Collection[str]) -> bool:
    return condition.removeprefix("not-") not in flags if condition.startswith("not-") else condition in flags


def constant(name: str, value: Any, comment: str = "") -> str:
    """An assignment of a list, a tuple, a dict, a text or a number, with a comment above it."""
    above = f"# {comment}\n" if comment else ""
    return f"{above}{name} = {literal(value, 0, len(name) + 3)}"


def literal(value: Any, indent: int = 0, before: int = 0, after: int = 0) -> str:
    """A value as source: in one line where it fits beside `before` and `after` characters, else an item a line."""
    flat = _flat(value)
    is_group = isinstance(value, (Sequence, Mapping)) and not isinstance(value, str)
    if not is_group or not value or indent + before + _width(flat) + after <= WIDTH:
        return flat
    inner = " " * (indent + 4)
    start, end = "{}" if isinstance(value, Mapping) else "()" if isinstance(value, tuple) else "[]"
    return "\n".join([start, *(f"{inner}{item}," for item in _items(value, indent + 4)), " " * indent + end])


def call(function: str, arguments: Sequence[str], indent: int) -> str:
    """A call: in one line where it fits behind the indent, else with its arguments in one line, else in one each."""
    flat = ", ".join(arguments)
    if indent + _width(f"{function}({flat})") <= WIDTH:
        return f"{function}({flat})"
    inner, end = " " * (indent + 4), "\n" + " " * indent + ")"
    if _width(inner + flat) <= WIDTH:
        return f"{function}(\n{inner}{flat}{end}"
    return f"{function}(" + "".join(f"\n{inner}{argument}," for argument in arguments) + end


def chain(start: str, calls: Sequence[str], indent: int, after: int = 0) -> str:
    """A chain of calls of methods: in one line where it fits beside the indent and what comes after, else in many."""
    flat = start + "".join(calls)
    if indent + _width(flat) + after <= WIDTH or len(calls) < 2:
        return flat
    return start + "".join(f"\n{' ' * indent}{part}" for part in calls)


def paragraphs(*parts: str) -> str:
    """The parts with an empty line between two; a part with a line break at its ends has two there."""
    return "\n\n".join(part for part in parts if part).rstrip("\n") + "\n"


def place(config: Config) -> str:
    """The arguments of `.to` that move drawn data; empty where there is nothing to move."""
    device = [f'"{config.device}"'] if config.device != "cpu" else []
    return ", ".join([*device, *([f"torch.{config.dtype}"] if config.dtype != "float32" else [])])


def learning_rates(rates: Mapping[int, float]) -> str:
    """The constant with the learning rates of `lr: auto`, by the updates before the first that each holds for."""
    comment = "Updates that have been made: the learning rate from there on, measured by `lr: auto`."
    return constant("LEARNING_RATES", dict(rates), comment)


def _items(value: Any, indent: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{_flat(key)}: {literal(item, indent, _width(_flat(key)) + 2, 1)}"
    else:
        for item in value:
            yield literal(item, indent, 0, 1)


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flat(key)}: {_flat(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_flat, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flat, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float) and math.isinf(value):
        return "np.inf"
    return repr(value).replace("e+", "e")  # 1e+16, which ruff writes as 1e16


def _width(text: str) -> int:
    """The columns that a text takes in a monospaced font."""
    return sum(2 if east_asian_width(c) in "WF" else category(c) not in ("Mn", "Me", "Cf") for c in text)


def _quoted(text: str) -> str:
    """A text in double quotes, or in single ones where it then needs fewer backslashes."""
    inner = repr(f"'{text}")[2:-1]  # with a single quote and no double one in it, repr uses double quotes
    if '"' in text:  # then repr has escaped the single quotes
        inner = repr(f"'{text}")[3:-1].replace("\\'", "'")
        if text.count('"') > text.count("'"):
            return "'" + inner.replace("'", "\\'") + "'"
        return '"' + inner.replace('"', '\\"') + '"'
    return f'"{inner}"'
