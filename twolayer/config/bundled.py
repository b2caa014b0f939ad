"""The configs that come with twolayer."""

from __future__ import annotations

from pathlib import Path as FilePath

from twolayer.errors import ConfigError, Origin, Problem, TwolayerError
from twolayer.files import reading, replacing


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
        with reading(origin, TwolayerError):
            data = origin.read_bytes()
        with replacing(target) as file:
            file.write(data)
    return list(copies)
