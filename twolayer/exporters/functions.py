"""`twolayer.eject` and `twolayer.export`: files from Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twolayer.config.bundled import bundled
from twolayer.config.loading import AnyConfig
from twolayer.config.schema import Config
from twolayer.errors import RunError, extra
from twolayer.exporters import eject as ejecting
from twolayer.exporters.eject import STYLES, Style
from twolayer.exporters.script_path import check_path
from twolayer.files import replacing
from twolayer.runs import names
from twolayer.runs.any_source import config_or_run, name_of

if TYPE_CHECKING:
    from twolayer.exporters.writing import Exported


def eject(
    source: AnyConfig | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    style: Style = "loop",
    force: bool = False,
    **values: Any,
) -> str:
    """A training as the source of one file of plain PyTorch, which prints its losses; written to `path`, if given.

    `source` is a config (with keys as keyword arguments; left out as for `load_config`) or a run. `style` is loop
    (autograd), optim (torch.optim.SGD), manual (no autograd), scratch (tensors alone) or dual (the fused engine's
    algebra). A file that exists is only replaced with `force`. Raises TwolayerError where there is no such script.
    """
    if style not in STYLES:
        raise RunError(f"style: must be one of {', '.join(STYLES)}, not {style!r}", usage=True)
    if path is not None:
        check_path(Path(path), force=force)
    found = config_or_run(source, **values)
    if isinstance(found, Config):
        name = "default" if source is None and not values else source
        arguments = [name] if isinstance(name, str) and name in bundled() and not values else None
        text = ejecting.of_config(found, style, None, name_of(source, found), arguments)
    else:
        text = ejecting.of_run(found, style)
    if path is not None:
        with replacing(Path(path)) as file:
            file.write(text.encode())
    return text


def export(run: str | os.PathLike[str], path: str | os.PathLike[str], *, force: bool = False) -> Exported:
    """Write the model of a run, or of a model file, as a file that is used without twolayer.

    The suffix of `path` says what is written: .onnx, .json, .py (numpy alone) or .md (a model card). It is tried on
    rows whose predictions are known first; the result says how far it was off. A file that exists is only replaced with
    `force`. Raises RunError, and DataError if a library is missing.
    """
    if Path(path).suffix.lower() == ".onnx":  # its extra brings polars, too: name that one
        from twolayer.exporters import onnx_graph  # noqa: F401
    with extra("polars", "data"):
        from twolayer.exporters import writing

    return writing.export(names.find_model(os.fsdecode(run)), Path(path), force=force)
