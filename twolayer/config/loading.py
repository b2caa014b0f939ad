"""Loads a config from a YAML file, the environment and options."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, TypeAlias

from twolayer.config import yaml12
from twolayer.config.bundled import bundled
from twolayer.config.from_table import which_target, with_table
from twolayer.config.key_names import meant_key
from twolayer.config.schema import KEYS, Config
from twolayer.config.validation import Resolved, show, validate
from twolayer.config.yaml12 import Path
from twolayer.errors import ConfigError, Origin, Problem
from twolayer.files import expand_home, reason
from twolayer.formatting import nearest
from twolayer.tables import file_kind
from twolayer.tables.options import COLUMN_LISTS, FileData, is_table

MAX_BYTES = 2**20  # a file over 1 MiB is not a config
ENVIRONMENT = "TWOLAYER_"
_ALL_KEYS = "`twolayer check` shows all keys"
_HAS_VALUES = "a Config has its values already; load one with this value, or name its file"


# A text that is taken as it is where it would be YAML's own sign, or none: one mark, such as a separator; or \\t.
_MARK = re.compile(r"[^\w~]|\\t")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes of a path, as Python holds them


@dataclass(frozen=True)
class Override:
    """A value that replaces the file's: the path of its key, its YAML text, and the name of the variable or option.

    With `literal` the text is no YAML, but the value itself.
    """

    path: Path
    text: str
    origin: str
    literal: bool = False

    @property
    def is_column_list(self) -> bool:
        """Whether the key is a list of columns."""
        return self.path[:1] == ("data",) and self.path[1:] in {(key,) for key in COLUMN_LISTS}


# What Python's functions take for a config: itself, its path or name, or the path of a table.
AnyConfig: TypeAlias = Config | str | os.PathLike[str]


def load_config(
    source: str | os.PathLike[str] | None = None, *, environment: Mapping[str, str] | None = None, **values: Any
) -> Config:
    """Load a config, by path or by the name of a bundled one, or that of a table.

    `TWOLAYER_<KEY>` variables in `environment` (default: `os.environ`) replace values of the file, and keyword
    arguments replace both: `load_config("default", epochs=10)`. A `data` with neither a source nor a path changes
    single keys of the file's: `load_config("my.csv", data={"target": "price"})`. Without a file a table needs no other
    key: `load_config(data={"path": "my.csv", "target": "price"})`; without a table the file is "default".

    Raises ConfigError with all problems at once, and DataError for a table that cannot be trained on.
    """
    raw = None
    if source is None:
        data = values.get("data")
        is_table = isinstance(data, Mapping) and (data.get("source") == "file" or "path" in data)
        source, raw = ("load_config", b"{}") if is_table else ("default", None)
    return resolve(source, environment=environment, values=_as_given(values), raw=raw, saved=False).config


def as_config(source: AnyConfig | None, **values: Any) -> Config:
    """A config as it is, or loaded with these values (see `load_config`). Raises ConfigError and DataError."""
    if not isinstance(source, Config):
        return load_config(source, **values)
    if values:
        raise ConfigError([Problem(Origin(f"{next(iter(values))}="), "", _HAS_VALUES)])
    return source


def _as_given(values: Mapping[str, Any]) -> Iterator[tuple[Override, Any]]:
    """Keyword arguments as overrides; of a `data` without source and path each key is one."""
    for key, value in values.items():
        if key == "data" and isinstance(value, Mapping):
            value = {name: _plain(item) for name, item in value.items()}
            if value and not value.keys() & {"source", "path"}:
                yield from ((Override((key, name), "", f"{key}="), item) for name, item in value.items())
                continue
        yield Override((key,), "", f"{key}="), _plain(value)


def _plain(value: Any) -> Any:
    """A path as its text."""
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def resolve(
    source: str | os.PathLike[str] = "default",
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Iterable[Override] = (),
    values: Iterable[tuple[Override, Any]] = (),
    read: bool = True,
    raw: bytes | None = None,
    saved: bool = True,
    keep_survey: bool = False,
) -> Resolved:
    """Like `load_config`, but with YAML texts as overrides (of the command line), and with the origin of every value.

    `source` may also be a table: then everything but the target has its default. Unless `read` is false, the table is
    read, for the sizes and the loss, and with `keep_survey` keeps what its folds are made of. `raw` is the content of
    `source` where that has been read already. With `saved` it is a run's config: it has all keys that its version of
    twolayer knew. Raises ConfigError and DataError.
    """
    if isinstance(source, str):
        source = expand_home(source)
    if is_table(source):
        name, folder = os.fspath(source), FilePath()
        text = f"data: {{source: file, path: {yaml12.dump(name)}}}"
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
    for layer, value in [*_added_up(parsed), *values]:
        _put(document, layer, value)
    data = document.value.get("data")
    if isinstance(data, dict) and "source" not in data and data.keys() & FileData.model_fields.keys():
        data["source"] = "file"
    if isinstance(data, dict) and data.get("source") == "file":
        if is_table(source) and "target" not in data:
            raise ConfigError([Problem(Origin(name), "", which_target(name))])
        return with_table(document, name, folder, read=read, saved=saved and raw is not None, keep_survey=keep_survey)
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

    if (url := file_kind.url_of(name)) is not None:
        raise ConfigError([Problem(Origin(url), "", file_kind.about_url(url))])
    try:
        with path.open("rb") as file:  # not all of it: it may be /dev/zero
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near = nearest(name, configs)
        hint = f"did you mean {near}?" if near else f"bundled configs are {', '.join(configs)}"
        raise refuse(f"no such file; {hint}") from None
    except IsADirectoryError:
        raise refuse("is a folder, not a file") from None
    except (OSError, ValueError) as error:
        raise refuse(f"cannot be read: {reason(error)}") from None
    if instead := file_kind.instead_of_config(path, raw):
        raise refuse(instead)
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
            near = meant_key(name.removeprefix(ENVIRONMENT))
            hint = (
                f"did you mean {ENVIRONMENT}{near.upper()}?"
                if near and near in KEYS
                else "`twolayer check` shows all keys"
            )
            document.problems.append(((name,), Problem(Origin(name), "", "is not the name of a key", hint)))


def _added_up(parsed: Iterable[tuple[Override, Any]]) -> Iterator[tuple[Override, Any]]:
    """The overrides with their values; those of one list of columns add up, in the order in which they come."""
    found: dict[Path, list[Any]] = {}
    for layer, value in parsed:
        if layer.is_column_list and isinstance(value, list):
            value = found[layer.path] = [*found.get(layer.path, ()), *value]
        elif layer.is_column_list:
            found.pop(layer.path, None)
        yield layer, value


def _parse_override(layer: Override, document: yaml12.Document) -> Any:
    """The value of an override's text: of YAML, where it is not the value itself."""
    if layer.is_column_list and (layer.literal or not _is_yaml_list(layer.text)):
        return [layer.text]
    if layer.path == ("data", "header") and "," in layer.text and not _is_yaml_list(layer.text):
        return [name.strip() for name in layer.text.split(",")]
    if layer.literal or _MARK.fullmatch(layer.text) or _NOT_UTF8.search(layer.text):
        return layer.text.replace("\\t", "\t")
    try:
        parsed = yaml12.parse(layer.text, layer.origin, lines=False)
    except ConfigError as error:
        found = [replace(problem, origin=Origin(layer.origin)) for problem in error.problems]
        document.problems += [(layer.path, problem) for problem in found]
        return None
    for path, problem in parsed.problems:
        key = ".".join(map(str, layer.path + path))
        document.problems.append((layer.path + path, replace(problem, origin=Origin(layer.origin), key=key)))
    if layer.is_column_list and isinstance(parsed.value, str):
        return [parsed.value]
    return parsed.value


def _is_yaml_list(text: str) -> bool:
    """Whether the text of a list of columns is YAML: a list, a text in quotes, or null. All else is names."""
    return text.strip()[:1] in ("[", '"', "'", "") or text in ("null", "~")


def _put(document: yaml12.Document, layer: Override, value: Any) -> None:
    """Set the value at a path, and remove the origins of everything that it replaces."""
    if len(layer.path) > 1 and (layer.path[0] != "data" or len(layer.path) > 2 or not layer.path[1]):
        shown = ".".join(map(str, layer.path))[:80]
        near = meant_key(str(layer.path[-1]))
        hint = f"did you mean {near}?" if near else _ALL_KEYS
        problem = Problem(Origin(layer.origin), shown, "unknown key", hint)
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
