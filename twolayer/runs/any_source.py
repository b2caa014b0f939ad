"""What Python's functions take: a config, the name or path of one or of a table, or a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twolayer.config.bundled import bundled
from twolayer.config.loading import AnyConfig, as_config
from twolayer.config.schema import Config
from twolayer.errors import RunError
from twolayer.runs import names, saved_run
from twolayer.runs.saved_run import SavedRun
from twolayer.tables.options import FileData


def is_run(source: str) -> bool:
    """Whether a CONFIG|RUN is a run: a folder, or the name of one in runs/; names of bundled configs come first."""
    in_runs = names.is_name(source) and (names.RUNS / source).is_dir()
    return source not in bundled() and not Path(source).is_file() and (in_runs or Path(source).is_dir())


def config_or_run(source: AnyConfig | None, **values: Any) -> Config | SavedRun:
    """The run that `source` names, or else the config, with these values (see `load_config`). Raises TwolayerError."""
    if source is None or isinstance(source, Config) or not is_run(os.fsdecode(source)):
        return as_config(source, **values)
    if values:
        raise RunError(f"a run is taken as it was trained; remove {next(iter(values))}=", usage=True)
    return saved_run.read(names.find(os.fsdecode(source)))


def name_of(source: AnyConfig | None, config: Config) -> str:
    """The name of a config, for messages and files; without a source that of its table, or of the default."""
    if source is None:
        source = config.data.path if isinstance(config.data, FileData) else "default"
    return "config" if isinstance(source, Config) else names.safe_name(os.fsdecode(source))
