"""Validates a document: returns a Config, or raises every problem in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from twolayer.config import yaml12
from twolayer.config.key_names import meant_key
from twolayer.config.schema import KEYS, SOURCES, Config, flat
from twolayer.config.yaml12 import MAX_PROBLEMS, Path
from twolayer.errors import ConfigError, Origin, Problem

if TYPE_CHECKING:
    from twolayer.tables.dataset import Table


# What each key may be, in the words of an error: "<key>: must be <this>, not <that>".
_COUNT = "a positive whole number"
ALLOWED = {
    "N": _COUNT,
    "D_in": _COUNT,
    "H": _COUNT,
    "D_out": _COUNT,
    "lr": "a positive number, or auto",
    "epochs": _COUNT,
    "seed": "a whole number from 0 to 2^64 - 1",
    "device": "cpu, cuda, cuda:<n>, mps or auto",
    "data": "a mapping with a source, such as {source: random}",
    "data.source": "random, linear or file",
    "data.weights": "a list of numbers, or of such lists",
    "data.noise": "a number, 0 or more",
    "data.path": "the path of a file",
    "data.target": "the name of a column, or a list of names",
    "data.inputs": "a list of column names",
    "data.exclude": "a list of column names",
    "data.categories": "a list of column names",
    "data.numbers": "a list of column names",
    "data.missing": "mean or refuse",
    "data.na": "a list of texts",
    "data.strict": "true or false",
    "data.scale": "numbers, true or false",
    "data.stratify": "true or false",
    "data.separator": 'auto, ",", ";", "\\t", "|" or " "',
    "data.header": "auto, first, none or a list of names",
    "data.sheet": "the name of a sheet",
    "data.decimal": 'auto, "." or ","',
    "data.thousands": """auto, none, ",", ".", "'", " " or "_\"""",
    "data.date_order": "auto, dmy, mdy or ymd",
    "init": "default or normal",
    "loss": "mse or cross_entropy",
    "reduction": "sum or mean",
    "batch_size": _COUNT,
    "validation": "a number between 0 and 1, or the path of a file",
    "patience": _COUNT,
    "average": "a number between 0 and 1",
    "dtype": "float32 or float64",
    "engine": "auto, autograd, manual, fused or compiled",
    "form": "auto, primal or dual",
    "threads": "auto, or a whole number from 1 to 1024",
    "parts": "a whole number from 1 to 1024",
    "split": "auto, units, rows or inputs",
    "precision": "full or tf32",
    "cuda_graph": "true or false",
    "log_every": "auto, or a positive whole number",
}


@dataclass(frozen=True)
class Resolved:
    """A config, the name of its file, the origin of every value by dotted key, and the table it trains on."""

    config: Config
    name: str
    origins: Mapping[str, Origin]
    table: Table | None = None


def validate(document: yaml12.Document, name: str) -> Resolved:
    """Validate a document. Raises ConfigError with everything that is wrong with it."""
    found = dict(document.problems)
    given = set(document.value)
    strange = [key for key in document.value if key not in KEYS]
    for key in strange:
        found.setdefault((key,), unknown(document, name, (key,)))
    try:
        config = Config.model_validate({key: value for key, value in document.value.items() if key in KEYS})
    except ValidationError as error:
        intended = {meant_key(str(key)) for key in strange} - given  # a mistyped key is not missing as well
        for path, problem in (item for details in error.errors() for item in explained(details, document, name)):
            if path[0] not in intended and not any(path[:length] in found for length in range(1, len(path) + 1)):
                found[path] = problem
    if found:
        listed = sorted(found.values(), key=lambda problem: sort_key(problem, name))
        if (more := len(listed) - MAX_PROBLEMS) > 0:
            listed[MAX_PROBLEMS:] = [Problem(Origin(name), "", f"and {more} more problems")]
        raise ConfigError(listed)
    return Resolved(config, name, _by_key(config, document))


def sort_key(problem: Problem, name: str) -> tuple[int, int, int]:
    """For sorting: by line and column; then variables and options; then what is missing in the file."""
    origin = problem.origin
    return (0 if origin.line else 2 if origin.name == name else 1), origin.line, origin.column


def nearest_origin(path: Path, document: yaml12.Document) -> Origin | None:
    """The origin of the value at a path, or of the innermost one around it that has one."""
    for length in range(len(path), 0, -1):
        if origin := document.origins.get(path[:length]):
            return origin
    return None


def explained(details: ErrorDetails, document: yaml12.Document, name: str) -> Iterator[tuple[Path, Problem]]:
    """One of pydantic's errors in our words: the key, what is allowed, what was given, and where."""
    kind, value = details["type"], document.value
    if kind == "conflicts":
        for key, message in details["ctx"]["conflicts"]:
            path = tuple(key.split("."))
            yield path, Problem(nearest_origin(path, document) or Origin(name), key, message)
        return
    location = (*details["loc"], "source") if kind.startswith("union_tag") else details["loc"]
    path = ()
    for key in location:  # it also contains names of union members, which are not part of the path
        if isinstance(value, dict) and key in value:
            value, path = value[key], (*path, key)
    if kind in ("missing", "union_tag_not_found"):
        path = (*path, location[-1])
        message = f"is missing; it must be {ALLOWED['.'.join(map(str, path))]}"
        source = document.origins.get((*path[:-1], "source")) if len(path) > 1 else None
        yield path, Problem(source or nearest_origin(path, document) or Origin(name), ".".join(map(str, path)), message)
        return
    if kind == "extra_forbidden":
        yield path, unknown(document, name, path)
        return
    message = f"must be {ALLOWED['.'.join(map(str, path))]}, not {show(value)}"
    hint = "remove the quotes" if isinstance(value, str) and type(_number(value)) in (int, float) else ""
    yield path, Problem(nearest_origin(path, document) or Origin(name), ".".join(map(str, path)), message, hint)


def unknown(document: yaml12.Document, name: str, path: Path) -> Problem:
    """An unknown key, with the known one that is nearest to it."""
    *inside, key = map(str, path)
    origin = document.key_origins.get(path) or nearest_origin(path, document) or Origin(name)
    shown = ".".join([*inside, key[:80]])
    if inside and f"data.{key}" in ALLOWED:  # a key of another source
        (source,) = (name for name, model in SOURCES.items() if key in model.model_fields)
        given = document.value["data"]["source"]
        return Problem(origin, shown, f"requires source: {source}, but the source is {given}")
    near = meant_key(key, document.value["data"]["source"] if inside else None)
    if near and inside and near.startswith("data."):
        near = near.removeprefix("data.")
    hint = f"did you mean {near}?" if near else "`twolayer check` shows all keys"
    return Problem(origin, shown, "unknown key", hint)


def _number(text: str) -> Any:
    try:
        return yaml12.resolve(text)
    except ValueError:
        return None


def _by_key(config: Config, document: yaml12.Document) -> dict[str, Origin]:
    origins = {}
    for key, _ in flat(config):
        path = tuple(key.split("."))
        set_here = path in document.origins or ((path[0],) in document.origins and _has(document.value, path))
        origin = nearest_origin(path, document) if set_here else None
        origins[key] = origin or Origin("default")
    return origins


def _has(value: Any, path: Path) -> bool:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


def show(value: Any) -> str:
    """A value as YAML writes it, on one line of at most 60 characters."""
    text = _flow(value, depth=0)
    return text if len(text) <= 60 else text[:57] + "..."


def _flow(value: Any, depth: int) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() if math.isnan(value):
            return ".nan"
        case float() if math.isinf(value):
            return ".inf" if value > 0 else "-.inf"
        case int() if abs(value) >= 10**20:
            return f"a number of about {int(math.log10(abs(value))) + 1} digits"
        case str():
            return repr(value[:100])
        case list() | tuple() | dict() if depth > 2:
            return "..."
        case list() | tuple():
            return "[" + ", ".join(_flow(item, depth + 1) for item in value[:20]) + "]"
        case dict():
            items = list(value.items())[:20]
            return "{" + ", ".join(f"{key}: {_flow(item, depth + 1)}" for key, item in items) + "}"
    return repr(value)
