"""`twolayer eject`: a training as one file of plain PyTorch."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from twolayer.config.from_table import table_of
from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.errors import DataError
from twolayer.exporters import eject_drawn, eject_run
from twolayer.formatting import setting
from twolayer.runs import table_paths
from twolayer.runs.saved_run import SavedRun
from twolayer.system.console import shell_words
from twolayer.tables.options import FileData
from twolayer.training import setup
from twolayer.training.from_run import begun_again
from twolayer.version import __version__

if TYPE_CHECKING:
    from twolayer.tables.dataset import Table

Style = Literal["loop", "optim", "manual", "scratch", "dual"]
STYLES: tuple[Style, ...] = get_args(Style)
WRITTEN_OUT = ("manual", "scratch", "dual")  # the styles that know all rows at once only

_HOW = {
    "loop": "trained by the loop of the tutorials, with gradients by autograd",
    "optim": "trained with torch.optim.SGD",
    "manual": "trained by back-propagation that is written out, without autograd",
    "scratch": 'trained with tensors alone, in the names of "Neural network from scratch"',
    "dual": "trained in the dual form: by the pre-activations, not by the first layer's weights",
}
_PLAIN = re.compile(r"[\w./=:,@%+ -]+")


@dataclass(frozen=True)
class Origin:
    """What a script is written of: `name` is the config or the run; `command` trains it, where there is one.

    `engine` is that of a run, as `Config.engine_name` has it; empty for a config.
    """

    name: str
    command: str = ""
    engine: str = ""


def engine_of(style: Style) -> Literal["autograd", "manual"]:
    """The engine whose losses a style prints, bit for bit; dual only to rounding."""
    return "manual" if style in ("manual", "scratch") else "autograd"


def of_config(
    config: Config, style: Style, table: Table | None, name: str, arguments: Sequence[str] | None = None
) -> str:
    """The script of a config. `arguments` are those of `twolayer train` that give the same config, if any do.

    Raises DataError where there is none in this style, or as `training.setup.prepare` does.
    """
    check(config, style)
    if config.lr == "auto":
        command = shell_words(["twolayer", "train", *(arguments or [name]), "--engine", engine_of(style)])
        reason = "lr is auto: the learning rates are known when the training has ended"
        how = "train it" if arguments is None else f"train it ({command})"
        raise DataError(f"{reason}; {how} and eject the run, or add {setting('lr', 1e-4)}")
    has_parts = config.parts is not None
    undivided = {"parts": None, "split": "auto"}  # the script has no parts
    config = setup.resolve_auto(config.model_copy(update={"engine": engine_of(style), "form": "auto", **undivided}))
    if table is None and isinstance(config.data, FileData):
        table = table_of(config)
    if arguments is None:
        return script(config, style, Origin(name), table=table)
    words = [*(arguments or [name]), "--engine", engine_of(style)]
    if has_parts:
        words += ["--set", "parts=null", "--set", "split=auto"]
    if not any(word.startswith("--threads") for word in words):
        words += ["--threads", str(config.threads)]
    return script(config, style, Origin(name, shell_words(["twolayer", "train", *words])), table=table)


def of_run(run: SavedRun, style: Style) -> str:
    """The script of a run, with its threads and device. Raises DataError, RunError or DeviceError."""
    if run.config is not None:
        check(run.config, style)
    config, data, model = begun_again(run)
    config = _seen_from_here(config)
    rates = eject_run.rates_of(run, config, data, model) if config.lr == "auto" else None
    table = table_of(config) if isinstance(config.data, FileData) else None
    return script(config, style, Origin(run.name, engine=config.engine_name), rates=rates, table=table)


def _seen_from_here(config: Config) -> Config:
    """The config with its tables' paths relative where they lie below the current folder: a run has absolute ones."""
    changed: dict[str, Any] = {}
    for key, path in table_paths.tables(config).items():
        if (place := Path(path)).is_relative_to(Path.cwd()):
            relative = str(place.relative_to(Path.cwd()))
            is_data = key == "data.path"
            changed |= {"data": config.data.model_copy(update={"path": relative})} if is_data else {key: relative}
    return config.model_copy(update=changed)


def check(config: Config, style: Style) -> None:
    """Raise DataError where a config has no script in this style."""
    if style not in WRITTEN_OUT:
        return
    if isinstance(config.data, FileData):
        raise DataError(f"style {style} is for drawn data; a table has the styles loop and optim")
    if config.is_by_epoch:
        keys = [key for key in ("batch_size", "average") if getattr(config, key) is not None]
        has = "is" if len(keys) == 1 else "are"
        raise DataError(
            f"style {style} trains on all rows at once, but {' and '.join(keys)} {has} set; use loop or optim"
        )


def script(
    config: Config,
    style: Style,
    origin: Origin,
    *,
    rates: Mapping[int, float] | None = None,
    table: Table | None = None,
) -> str:
    """The script: Python source, as `ruff format` leaves it.

    `config` has its device and threads resolved, `table` is its file's. `rates` are the learning rates where `lr` is
    auto, by the number of updates before the first that they hold for. Raises DataError where there is no such script.
    """
    check(config, style)
    start = _docstring(config, style, origin)
    if table is None:
        return start + eject_drawn.script(config, style, rates)
    from twolayer.exporters import eject_table  # polars

    return start + eject_table.script(config, style, rates, table)


def _docstring(config: Config, style: Style, origin: Origin) -> str:
    """What the file is, and which losses it prints."""
    kind = "run" if origin.engine else "config"
    first = f"The network of the {kind} {origin.name}, {_HOW[style]}."
    promise = _promise(config, style, origin)
    text = f"{promise} Written by twolayer {__version__} with PyTorch {torch.__version__}."
    lines = [*textwrap.wrap(first, 84, break_on_hyphens=False), "", *textwrap.wrap(text, 88, break_on_hyphens=False)]
    return '"""' + "\n".join(lines) + '\n"""\n\n'


def _promise(config: Config, style: Style, origin: Origin) -> str:
    """Which losses the script prints, and how exactly."""
    engine, is_exact = engine_of(style), style != "dual" and config.N * config.H <= selection.PART
    if origin.engine:
        exact = is_exact and origin.engine == engine
        why = "" if exact or origin.engine == engine else f" (its engine was {origin.engine})"
        return f"Prints the losses of that run, {_digits(exact=exact)}{why}."
    command = f"`{origin.command}`" if _PLAIN.fullmatch(origin.command) else f"the engine {engine}"
    return f"Prints the losses of {command}, {_digits(exact=is_exact)}."


def _digits(*, exact: bool) -> str:
    return "digit for digit" if exact else "but for rounding"
