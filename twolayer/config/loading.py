"""The way to a config: from a YAML file, the environment and the options to one `Config`, or to all that is wrong."""

from __future__ import annotations

import codecs
import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from twolayer.config import validation, yaml12
from twolayer.config.schema import KEYS, Config, flat, show
from twolayer.config.yaml12 import MAX_PROBLEMS, Path
from twolayer.errors import ConfigError, Origin, Problem, TwolayerError, extra
from twolayer.files import replacing
from twolayer.tables.options import FileData, is_table

if TYPE_CHECKING:
    from twolayer.tables.dataset import Table


MAX_BYTES = 2**20  # a config of more than 1 MiB is some other file
ENVIRONMENT = "TWOLAYER_"

SIZES = ("N", "D_in", "D_out")  # what a table says of a config
# What a config of a file may leave out, and what it has then. What they are worth: docs/your-data.md.
FILE_DEFAULTS = {
    "H": 150,
    "lr": "auto",
    "epochs": 150,
    "reduction": "mean",
    "batch_size": 64,
    "validation": 0.05,
}
PATIENCE = 30  # where `epochs` is left out, too


@dataclass(frozen=True)
class Resolved:
    """A config, the name of its file, the origin of every value in it, by dotted key, and the table it trains on."""

    config: Config
    name: str
    origins: Mapping[str, Origin]
    table: Table | None = None


@dataclass(frozen=True)
class Override:
    """A value that comes over the file's: `path` leads to it, `text` is YAML, `origin` says who gave it."""

    path: Path
    text: str
    origin: str


def load_config(
    source: str | os.PathLike[str] = "default", *, environment: Mapping[str, str] | None = None, **values: Any
) -> Config:
    """Read a config, by path or by the name of a bundled one.

    The environment's `TWOLAYER_<KEY>` variables (`os.environ`, unless `environment` is given) come over the
    file, and keyword arguments over both: `load_config("default", epochs=10)`. Raises ConfigError with every
    problem at once.
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
    """Like `load_config`, for YAML texts as overrides (the command line's), and with the origin of every value.

    `source` may be a table, too: then all but the target has its default. A table is read, unless `read` is false, for
    what the config does not say. `raw` is what the file `source` holds, where that has been read already. Raises
    ConfigError, and DataError for what is wrong with the table.
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
        raise ConfigError([Problem(Origin(name), "", "is empty; a config is a list of `key: value` lines")])
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
            raise ConfigError([Problem(Origin(name), "", _which_target(name))])
        return _with_table(document, name, folder, read=read)
    return _validate(document, name)


def _which_target(path: str) -> str:
    """What to say where nobody has said what to predict."""
    with extra("polars", "data"):
        from twolayer.tables import readers

    names = readers.open_table(FilePath(path), path, named=()).names
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"which column is to be predicted? --target COLUMN, of {shown}"


def _with_table(document: yaml12.Document, name: str, folder: FilePath, *, read: bool) -> Resolved:
    """The config of a file, with what the file says of it, and the defaults that are for files."""
    given = set(document.value)
    defaults = FILE_DEFAULTS if "epochs" in given else FILE_DEFAULTS | {"patience": PATIENCE}
    if document.value.get("validation", 0) is None:  # asked to hold nothing out
        defaults = {key: value for key, value in defaults.items() if key != "patience"}
    sizes = dict.fromkeys(SIZES, 1)  # until they are known
    document.value = sizes | defaults | document.value
    for keys in (("data", "path"), ("validation",)):
        _place(document, keys, folder, name)
    resolved = _validate(document, name)
    if not read:
        return resolved
    with extra("polars", "data"):
        from twolayer.tables import dataset  # which takes a while

    config = resolved.config
    data = cast(FileData, config.data)
    table = dataset.read(
        data,
        FilePath(),
        validation=config.validation,
        seed=config.seed,
        loss=config.loss if "loss" in given else None,
        dtype=config.dtype,
    )
    found = dict(zip(SIZES, (*table.x.shape, table.y.shape[1]), strict=True))
    for key, value in found.items():
        if key in given and getattr(config, key) != value:
            message = f"is {show(document.value[key])}, and {name_of(data.path)} gives {value}; leave it out"
            document.problems.append(
                ((key,), Problem(validation.nearest((key,), document) or Origin(name), key, message))
            )
    document.value |= found | {"loss": "mse" if table.columns.classes is None else "cross_entropy"}
    for key in {*found, "loss"} - given:
        document.origins[key,] = Origin(name_of(data.path))
    return replace(_validate(document, name), table=table)


def _place(document: yaml12.Document, keys: Path, folder: FilePath, name: str) -> None:
    """A path that the config's file gives starts at that file's folder; one of an option, where the user is."""
    *above, last = keys
    holder = document.value
    for key in above:
        holder = holder[key]
    if isinstance(path := holder.get(last), str) and path:
        origin = validation.nearest(keys, document)
        base = folder if origin is not None and origin.name == name else FilePath()
        holder[last] = str(base / path)


def name_of(path: str) -> str:
    """The last part of a path."""
    return FilePath(path).name


def bundled() -> dict[str, FilePath]:
    """The configs that come with twolayer, by name."""
    here = FilePath(__file__).parent
    folder = here / "configs"
    if not folder.is_dir():  # a checkout: the wheel puts the folder inside the package
        folder = here.parents[1] / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def write_starter(path: FilePath, name: str = "default", *, force: bool = False) -> list[FilePath]:
    """Write a bundled config as a file to start from, and beside it the table that it trains on; the files written.

    A file appears whole or not at all. Raises TwolayerError where there is one already (unless `force`), or where none
    can be written.
    """
    if name not in (configs := bundled()):
        raise ConfigError([Problem(Origin("--from"), "", f"no such config; there are {', '.join(configs)}")])
    source = configs[name]
    table = source.with_suffix(".csv")
    copies = {path: source} | ({path.parent / table.name: table} if table.exists() else {})
    for target in copies:
        if target.is_dir():
            raise TwolayerError(f"{target} is a folder; name a file")
        if target.exists() and not force:
            raise TwolayerError(f"{target} is there already; --force overwrites it")
    for target, origin in copies.items():
        try:
            data = origin.read_bytes()
        except OSError as error:
            raise TwolayerError(f"{origin}: cannot be read: {error.strerror or error}") from None
        with replacing(target) as file:
            file.write(data)
    return list(copies)


def _read(source: str | os.PathLike[str]) -> tuple[str, str, FilePath]:
    """The name that stands in messages, the text, and the folder that its paths start at. Raises ConfigError."""
    configs = bundled()
    name = os.fspath(source)
    if isinstance(source, str) and name in configs:  # "./default" and Path("default") are files of that name
        path, name = configs[name], f"{name}.yaml"
    else:
        path = FilePath(name)

    def refuse(message: str) -> ConfigError:
        return ConfigError([Problem(Origin(name), "", message)])

    try:
        with path.open("rb") as file:  # never the whole: it may be /dev/zero
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near = difflib.get_close_matches(name, configs, n=1)
        hint = f"did you mean {near[0]}?" if near else f"bundled configs are {', '.join(configs)}"
        raise refuse(f"no such file; {hint}") from None
    except IsADirectoryError:
        raise refuse("is a folder, not a file") from None
    except (OSError, ValueError) as error:
        raise refuse(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise refuse("is over 1 MiB, which no config is")
    return name, _decoded(name, raw), path.parent


def _decoded(name: str, raw: bytes) -> str:
    """The text of a config's file. Raises ConfigError."""
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
        if name in keys and variables[name]:  # an empty variable is as good as none
            yield Override((keys[name],), variables[name], name)
        elif name not in keys and name.startswith(ENVIRONMENT):
            near = validation.meant(name.removeprefix(ENVIRONMENT), KEYS)
            hint = f"did you mean {ENVIRONMENT}{near.upper()}?" if near else "`twolayer check` shows all keys there are"
            document.problems.append(((name,), Problem(Origin(name), "", f"names no key; {hint}")))


def _parse_override(layer: Override, document: yaml12.Document) -> Any:
    try:
        parsed = yaml12.parse(layer.text, layer.origin, lines=False)
    except ConfigError as error:
        found = [Problem(Origin(layer.origin), problem.key, problem.message) for problem in error.problems]
        document.problems += [(layer.path, problem) for problem in found]
        return None
    for path, problem in parsed.problems:
        key = ".".join(map(str, layer.path + path))
        document.problems.append((layer.path + path, Problem(Origin(layer.origin), key, problem.message)))
    return parsed.value


def _put(document: yaml12.Document, layer: Override, value: Any) -> None:
    """Set the value at a path, and forget the origins of all that it replaces."""
    if len(layer.path) > 1 and (layer.path[0] != "data" or len(layer.path) > 2 or not layer.path[1]):
        shown = ".".join(map(str, layer.path))[:80]
        message = "unknown key; `twolayer check` shows all there are"
        document.problems.append((layer.path, Problem(Origin(layer.origin), shown, message)))
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
    # What the file got wrong at this place no longer counts.
    document.problems[:] = [
        (path, problem)
        for path, problem in document.problems
        if path[:depth] != layer.path or problem.origin.name == layer.origin
    ]


def _validate(document: yaml12.Document, name: str) -> Resolved:
    found = dict(document.problems)
    given = set(document.value)
    strange = [key for key in document.value if key not in KEYS]
    for key in strange:
        found.setdefault((key,), validation.unknown(document, name, (key,)))
    try:
        config = Config.model_validate({key: value for key, value in document.value.items() if key in KEYS})
    except ValidationError as error:
        intended = {validation.meant(key, KEYS) for key in strange} - given  # a mistyped key is not missing as well
        for path, problem in (
            item for details in error.errors() for item in validation.in_our_words(details, document, name)
        ):
            if path[0] not in intended and not any(path[:length] in found for length in range(1, len(path) + 1)):
                found[path] = problem
    if found:
        listed = sorted(found.values(), key=lambda problem: validation.order(problem, name))
        if (more := len(listed) - MAX_PROBLEMS) > 0:
            listed[MAX_PROBLEMS:] = [Problem(Origin(name), "", f"and {more} more problems")]
        raise ConfigError(listed)
    return Resolved(config, name, _by_key(config, document))


def _by_key(config: Config, document: yaml12.Document) -> dict[str, Origin]:
    origins = {}
    for key, _ in flat(config):
        path = tuple(key.split("."))
        set_here = path in document.origins or ((path[0],) in document.origins and _has(document.value, path))
        origin = validation.nearest(path, document) if set_here else None
        origins[key] = origin or Origin("default")
    return origins


def _has(value: Any, path: Path) -> bool:
    for step in path:
        if not isinstance(value, dict) or step not in value:
            return False
        value = value[step]
    return True
