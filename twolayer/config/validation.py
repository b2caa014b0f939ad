"""What is wrong with a config, in words: the place, the key, what is allowed and what was given."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from twolayer.config import yaml12
from twolayer.config.schema import ALLOWED, KEYS, SOURCES, show
from twolayer.config.yaml12 import Path
from twolayer.errors import Origin, Problem


def order(problem: Problem, name: str) -> tuple[int, int, int]:
    """By line and column; then the variables and options; then what is missing from the file."""
    origin = problem.origin
    return (0 if origin.line else 2 if origin.name == name else 1), origin.line, origin.column


def nearest(path: Path, document: yaml12.Document) -> Origin | None:
    """The origin of the value at a path, or of the innermost one around it that has one."""
    for length in range(len(path), 0, -1):
        if origin := document.origins.get(path[:length]):
            return origin
    return None


def in_our_words(details: ErrorDetails, document: yaml12.Document, name: str) -> Iterator[tuple[Path, Problem]]:
    """One of pydantic's errors in our words: the key, what is allowed, what was given, and where."""
    kind, value = details["type"], document.value
    if kind == "conflicts":
        for key, message in details["ctx"]["conflicts"]:
            path = tuple(key.split("."))
            yield path, Problem(nearest(path, document) or Origin(name), key, message)
        return
    location = (*details["loc"], "source") if kind.startswith("union_tag") else details["loc"]
    path = ()
    for step in location:  # names of union members stand in there as well; they are no part of the way
        if isinstance(value, dict) and step in value:
            value, path = value[step], (*path, step)
    if kind in ("missing", "union_tag_not_found"):
        path = (*path, location[-1])
        message = f"is missing; it must be {ALLOWED['.'.join(map(str, path))]}"
        source = document.origins.get((*path[:-1], "source")) if len(path) > 1 else None
        yield path, Problem(source or nearest(path, document) or Origin(name), ".".join(map(str, path)), message)
        return
    if kind == "extra_forbidden":
        yield path, unknown(document, name, path)
        return
    message = f"must be {ALLOWED['.'.join(map(str, path))]}, not {show(value)}"
    if isinstance(value, str) and type(_number(value)) in (int, float):
        message += "; leave the quotes out"
    yield path, Problem(nearest(path, document) or Origin(name), ".".join(map(str, path)), message)


def unknown(document: yaml12.Document, name: str, path: Path) -> Problem:
    """A key that is not known there, with the one that was perhaps meant."""
    *inside, key = map(str, path)
    origin = document.key_origins.get(path) or nearest(path, document) or Origin(name)
    shown = ".".join([*inside, key[:80]])
    if inside and f"data.{key}" in ALLOWED:  # a key of another source
        (source,) = (name for name, model in SOURCES.items() if key in model.model_fields)
        given = document.value["data"]["source"]
        return Problem(origin, shown, f"goes with source: {source} only, and the source is {given}")
    near = meant(key, list(SOURCES[document.value["data"]["source"]].model_fields if inside else KEYS))
    hint = f"did you mean {near}?" if near else "`twolayer check` shows all there are"
    return Problem(origin, shown, f"unknown key; {hint}")


def meant(key: str, names: Sequence[str]) -> str | None:
    """The known name nearest to a key."""
    lowered = {known.lower(): known for known in names}
    near = difflib.get_close_matches(key[:40].lower(), lowered, n=1)
    return lowered[near[0]] if near else None


def _number(text: str) -> Any:
    try:
        return yaml12.resolve(text)
    except ValueError:
        return None
