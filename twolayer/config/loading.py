"""Loads a config from a YAML file, the environment and options."""

from __future__ import annotations

import codecs
import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from twolayer.config import validation, yaml12
from twolayer.config.bundled import bundled
from twolayer.config.from_table import which_target, with_table
from twolayer.config.schema import KEYS, Config
from twolayer.config.validation import Resolved, show, validate
from twolayer.config.yaml12 import Path
from twolayer.errors import ConfigError, Origin, Problem
from twolayer.files import reason
from twolayer.tables.options import is_table

MAX_BYTES = 2**20  # a file over 1 MiB is not a config
ENVIRONMENT = "TWOLAYER_"


@dataclass(frozen=True)
class Override:
    """A value that replaces the file's: the path of its key, its YAML text, and the name of the variable or option."""

    path: Path
    text: str
    origin: str


def load_config(
    source: str | os.PathLike[str] = "default", *, environment: Mapping[str, str] | None = None, **values: Any
) -> Config:
    """Load a config, by path or by the name of a bundled one.

    `TWOLAYER_<KEY>` variables in `environment` (default: `os.environ`) replace values of the file, and keyword
    arguments replace both: `load_config("default", epochs=10)`. Raises ConfigError with all problems at once, and
    DataError for a table that cannot be trained on.
    """
    given = [(Override((key,), "", f"{key}="), value) for key, value in values.items()]
    return resolve(source, environment=environment, values=given).config


def resolve(
    source: str | os.PathLike[str] = "default",
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Iterable[Override] = (),
    values: Iterable[tuple[Override, Any]] = (),
    read: bool = True,
    raw: bytes | None = None,
) -> Resolved:
    """Like `load_config`, but with YAML texts as overrides (of the command line), and with the origin of every value.

    `source` may also be a table: then everything but the target has its default. Unless `read` is false, the table is
    read, for the sizes and the loss. `raw` is the content of `source` where that is a run's config, which has been read
    already: it has all keys that its version of twolayer knew. Raises ConfigError and DataError.
    """
    if is_table(source):
        name, folder = os.fspath(source), FilePath()
        text = f"data: {{source: file, path: {json.dumps(name)}}}"
    elif raw is not None:
        name, folder = os.fspath(source), FilePath(source).parent
        text = _decoded(name, raw)
    else:
        name, text, folder = _read(source)
    document = yaml12.parse(text, name)
    if document.value is None and not document.problems:
        raise ConfigError([Problem(Origin(name), "", "is empty", "a config is a list of `key: value` lines")])
    if not isinstance(document.value, dict):
        raise ConfigError(
            [Problem(document.origins[()], "", f"must be a mapping (`key: value` lines), not {show(document.value)}")]
        )

    layers = [*_environment(os.environ if environment is None else environment, document), *overrides]
    parsed = [(layer, _parse_override(layer, document)) for layer in layers]
    for layer, value in [*parsed, *values]:
        _put(document, layer, value)
    if isinstance(data := document.value.get("data"), dict) and data.get("source") == "file":
        if is_table(source) and "target" not in data:
            raise ConfigError([Problem(Origin(name), "", which_target(name))])
        return with_table(document, name, folder, read=read, saved=raw is not None)
    return validate(document, name)


def _read(source: str | os.PathLike[str]) -> tuple[str, str, FilePath]:
    """The name for messages, the text, and the folder that paths are relative to. Raises ConfigError."""
    configs = bundled()
    name = os.fspath(source)
    if isinstance(source, str) and name in configs:  # "./default" and Path("default") are files of that name
        path, name = configs[name], f"{name}.yaml"
    else:
        path = FilePath(name)

    def refuse(message: str) -> ConfigError:
        return ConfigError([Problem(Origin(name), "", message)])

    try:
        with path.open("rb") as file:  # not all of it: it may be /dev/zero
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near = difflib.get_close_matches(name, configs, n=1)
        hint = f"did you mean {near[0]}?" if near else f"bundled configs are {', '.join(configs)}"
        raise refuse(f"no such file; {hint}") from None
    except IsADirectoryError:
        raise refuse("is a folder, not a file") from None
    except (OSError, ValueError) as error:
        raise refuse(f"cannot be read: {reason(error)}") from None
    if len(raw) > MAX_BYTES:
        raise refuse("is over 1 MiB; a config is smaller")
    return name, _decoded(name, raw), path.parent


def _decoded(name: str, raw: bytes) -> str:
    """The text of a config file. Raises ConfigError."""
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        lines = raw[: error.start].decode().split("\n")
        place = Origin(name, len(lines), len(lines[-1]) + 1)
        message = f"is not UTF-8: byte 0x{raw[error.start]:02x}"
        raise ConfigError([Problem(place, "", message)]) from None


def _environment(variables: Mapping[str, str], document: yaml12.Document) -> Iterator[Override]:
    keys = {ENVIRONMENT + key.upper(): key for key in KEYS}
    for name in sorted(variables):
        if name in keys and variables[name]:  # an empty variable counts as unset
            yield Override((keys[name],), variables[name], name)
        elif name not in keys and name.startswith(ENVIRONMENT):
            near = validation.nearest_name(name.removeprefix(ENVIRONMENT), KEYS)
            hint = f"did you mean {ENVIRONMENT}{near.upper()}?" if near else "`twolayer check` shows all keys"
            document.problems.append(((name,), Problem(Origin(name), "", "is not the name of a key", hint)))


def _parse_override(layer: Override, document: yaml12.Document) -> Any:
    try:
        parsed = yaml12.parse(layer.text, layer.origin, lines=False)
    except ConfigError as error:
        found = [replace(problem, origin=Origin(layer.origin)) for problem in error.problems]
        document.problems += [(layer.path, problem) for problem in found]
        return None
    for path, problem in parsed.problems:
        key = ".".join(map(str, layer.path + path))
        document.problems.append((layer.path + path, replace(problem, origin=Origin(layer.origin), key=key)))
    return parsed.value


def _put(document: yaml12.Document, layer: Override, value: Any) -> None:
    """Set the value at a path, and remove the origins of everything that it replaces."""
    if len(layer.path) > 1 and (layer.path[0] != "data" or len(layer.path) > 2 or not layer.path[1]):
        shown = ".".join(map(str, layer.path))[:80]
        problem = Problem(Origin(layer.origin), shown, "unknown key", "`twolayer check` shows all keys")
        document.problems.append((layer.path, problem))
        return
    target: Any = document.value
    for key in layer.path[:-1]:
        if not isinstance(target.get(key), dict):
            target[key] = {}
            document.origins[layer.path[:1]] = Origin(layer.origin)
        target = target[key]
    target[layer.path[-1]] = value
    depth = len(layer.path)
    for origins in (document.origins, document.key_origins):
        for path in [path for path in origins if path[:depth] == layer.path]:
            del origins[path]
        origins[layer.path] = Origin(layer.origin)
    # Problems of the value that was replaced no longer count.
    document.problems[:] = [
        (path, problem)
        for path, problem in document.problems
        if path[:depth] != layer.path or problem.origin.name == layer.origin
    ]
