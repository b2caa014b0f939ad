"""What a table adds to a config (N, D_in, D_out and the loss), and the table itself, read once."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from twolayer.config import validation, yaml12
from twolayer.config.schema import FILE_DEFAULTS, SIZES, Config
from twolayer.config.validation import Resolved, show, validate
from twolayer.config.yaml12 import Path
from twolayer.errors import Origin, Problem, extra
from twolayer.files import expand_home
from twolayer.formatting import setting
from twolayer.tables.options import COLUMN_LISTS, FileData, extra_of, split_names

if TYPE_CHECKING:
    from twolayer.tables.dataset import Table

_Files: TypeAlias = list[tuple[int, ...]] | None
Tables: TypeAlias = "list[tuple[object, Table]]"  # at most one, with all that it depends on


def which_target(path: str) -> str:
    """The message if no target is given."""
    with extra("polars", extra_of(path)):
        from twolayer.tables import sources

    names = sources.open_table(FilePath(path), path, named=()).names
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"no target is given; add {setting('data.target', 'COLUMN')}, one of: {shown}"


def with_table(
    document: yaml12.Document,
    name: str,
    folder: FilePath,
    *,
    read: bool,
    saved: bool = False,
    keep_survey: bool = False,
) -> Resolved:
    """The config of a file, with the sizes and the loss that the table gives, and the defaults for files.

    A `saved` config, that of a run, has every key that there was when the run started: it gets no such defaults, and
    the keys that have come since then are as they are without a file.
    """
    given = set(document.value)
    defaults = {} if saved else _defaults(document.value)
    sizes = dict.fromkeys(SIZES, 1)  # until the table is read
    document.value = sizes | defaults | document.value
    for keys in (("data", "path"), ("validation",)):
        _place(document, keys, folder, name)
    resolved = validate(document, name)
    if not read:
        return resolved
    data = with_names_split(cast(FileData, resolved.config.data))
    if data != resolved.config.data:
        document.value["data"] |= {key: getattr(data, key) for key in COLUMN_LISTS}
        resolved = validate(document, name)
    config = resolved.config
    before = _files(config)
    table = _read(config, config.loss if "loss" in given else None, keep_survey=keep_survey)
    found = dict(zip(SIZES, (*table.x.shape, table.y.shape[1]), strict=True))
    for key, value in found.items():
        if key in given and getattr(config, key) != value:
            origin = validation.nearest_origin((key,), document) or Origin(name)
            message = f"is {show(document.value[key])}, but {name_of(data.path)} gives {value}"
            document.problems.append(((key,), Problem(origin, key, message, "remove it")))
    document.value |= found | {"loss": "mse" if table.columns.classes is None else "cross_entropy"}
    for key in {*found, "loss"} - given:
        document.origins[key,] = Origin(name_of(data.path))
    resolved = replace(validate(document, name), table=table)
    _keep(resolved.config, before, replace(table, survey=None))
    return resolved


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults for a file beside these keys."""
    without = []
    if given.get("validation", 0) is None:  # `validation: null`: nothing is held out
        without.append("patience")
    if given.get("batch_size", 0) is None:  # `batch_size: null`: an epoch is one step, a small part of the way
        without.append("average")
    return {key: value for key, value in FILE_DEFAULTS.items() if key not in without}


def with_names_split(data: FileData) -> FileData:
    """Its lists of columns, with texts such as `a,b` as the columns a and b, if no column is called that.

    Opens the table only where there is a comma. Raises DataError.
    """
    given = {key: getattr(data, key) for key in COLUMN_LISTS if getattr(data, key)}
    if not any("," in text for texts in given.values() for text in texts):
        return data
    named = [part.strip() for texts in given.values() for text in texts for part in (text, *text.split(","))]
    columns = column_names(data, named)
    return data.model_copy(update={key: split_names(texts, columns) for key, texts in given.items()})


def column_names(data: FileData, named: Sequence[str] = ()) -> list[str]:
    """The names of a table's columns, and of its arrays. Raises DataError.

    Behind a link the table must have one of the columns `named`; see `sources.open_table`.
    """
    with extra("polars", extra_of(data.path)):
        from twolayer.tables import sources

    source = sources.open_table(
        data.path, data.path, separator=data.separator, decimal=data.decimal, header=data.header, sheet=data.sheet,
        named=named,
    )  # fmt: skip
    return list(dict.fromkeys([*source.names, *source.groups]))


# The table that was read last, until it is trained on or its config is freed: one read serves `load_config` and
# `train`. By the id of the config's `data`, which copies of the config share, with all that the table depends on.
_kept: dict[int, tuple[object, Table]] = {}


def table_of(config: Config) -> Table:
    """The table that a config trains on: the one that `load_config` has read, unless its files have changed since.

    Raises DataError.
    """
    dependencies, table = _kept.pop(id(config.data), (None, None))
    if table is not None and dependencies == _dependencies(config, _files(config)):
        return table
    return _read(config, config.loss)


# Where the contexts of `sharing` that are open keep the table that was read last.
_sharing: list[Tables] = []


@contextmanager
def sharing(last: Tables) -> Iterator[None]:
    """A context in which a table that is read is kept in `last`, and not read again for the next config that has it.

    The trainings of a sweep have it from there; nothing may change its arrays.
    """
    _sharing.append(last)
    try:
        yield
    finally:
        _sharing.pop()


def _read(config: Config, loss: str | None, *, keep_survey: bool = False) -> Table:
    if not _sharing or keep_survey or (files := _files(config)) is None:
        return _read_anew(config, loss, keep_survey=keep_survey)
    last, depends = _sharing[-1], (_dependencies(config, files), loss)
    if not last or last[0][0] != depends:
        last.clear()  # before the next one takes memory
        last.append((depends, _read_anew(config, loss, keep_survey=False)))
    return last[0][1]


def _read_anew(config: Config, loss: str | None, *, keep_survey: bool) -> Table:
    data = cast(FileData, config.data)
    with extra("polars", extra_of(data.path)):
        from twolayer.tables import dataset  # slow to import

    return dataset.read(
        data,
        validation=config.validation,
        seed=config.seed,
        loss=loss,
        dtype=config.dtype,
        keep_survey=keep_survey,
    )


def _keep(config: Config, before: _Files, table: Table) -> None:
    """Keep a table; `before` is the state of its files before they were read."""
    _kept.clear()  # a list of configs must not hold a list of tables
    if before is not None:
        _kept[id(config.data)] = (_dependencies(config, before), table)
        weakref.finalize(config.data, _kept.pop, id(config.data), None)


def _dependencies(config: Config, files: _Files) -> object:
    """All that a table depends on. The seed draws the rows that are held out."""
    seed = config.seed if isinstance(config.validation, float) else None
    return files, config.data.model_dump(), config.validation, seed, config.loss, config.dtype


def _files(config: Config) -> _Files:
    """Device, inode, size and times of each file that the config trains on; None if they cannot be relied on."""
    paths = [cast(FileData, config.data).path, *([config.validation] if isinstance(config.validation, str) else [])]
    try:
        found = [FilePath(path).stat() for path in paths]
    except (OSError, ValueError):  # reading it will say why
        return None
    # Time stamps may be as coarse as 2 seconds: a file can change within them and look the same.
    if time.time_ns() - max(status.st_mtime_ns for status in found) < 2 * 10**9:
        return None
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found]


def _place(document: yaml12.Document, keys: Path, folder: FilePath, name: str) -> None:
    """Make a path of the config's file relative to that file's folder; one of an option stays as given.

    Every path in a config comes by here: `~/` is the home folder in all of them.
    """
    *above, last = keys
    holder = document.value
    for key in above:
        holder = holder[key]
    if isinstance(path := holder.get(last), str) and path:
        origin = validation.nearest_origin(keys, document)
        base = folder if origin is not None and origin.name == name else FilePath()
        holder[last] = str(base / expand_home(path))


def name_of(path: str) -> str:
    """The last part of a path."""
    return FilePath(path).name
