"""What a table adds to a config: N, D_in, D_out and the loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path as FilePath
from typing import cast

from twolayer.config import validation, yaml12
from twolayer.config.schema import FILE_DEFAULTS, PATIENCE, SIZES
from twolayer.config.validation import Resolved, show, validate
from twolayer.config.yaml12 import Path
from twolayer.errors import Origin, Problem, extra
from twolayer.tables.options import FileData


def which_target(path: str) -> str:
    """What to say where nobody has said what to predict."""
    with extra("polars", "data"):
        from twolayer.tables import sources

    names = sources.open_table(FilePath(path), path, named=()).names
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"which column is to be predicted? --target COLUMN, of {shown}"


def with_table(document: yaml12.Document, name: str, folder: FilePath, *, read: bool) -> Resolved:
    """The config of a file, with what the file says of it, and the defaults that are for files."""
    given = set(document.value)
    defaults = FILE_DEFAULTS if "epochs" in given else FILE_DEFAULTS | {"patience": PATIENCE}
    if document.value.get("validation", 0) is None:  # asked to hold nothing out
        defaults = {key: value for key, value in defaults.items() if key != "patience"}
    sizes = dict.fromkeys(SIZES, 1)  # until they are known
    document.value = sizes | defaults | document.value
    for keys in (("data", "path"), ("validation",)):
        _place(document, keys, folder, name)
    resolved = validate(document, name)
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
    return replace(validate(document, name), table=table)


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
