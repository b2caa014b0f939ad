"""What commands that take CONFIG|RUN work on: a config with its options, or a run as it was trained."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from twolayer.cli.resolving import LISTS, NAMED, resolve
from twolayer.config.validation import Resolved
from twolayer.runs import names, saved_run
from twolayer.runs.any_source import is_run
from twolayer.runs.run_files import CONFIG
from twolayer.runs.saved_run import SavedRun

_OF_CONFIGS = (*NAMED, *LISTS, "missing", "classes", "set_")  # options that only configs have


def find(source: str, sets: Sequence[str], context: typer.Context) -> Resolved | SavedRun:
    """The run that `source` names, or else its config with the options. Raises TwolayerError or BadParameter."""
    if not is_run(source):
        return resolve(source, sets, context)
    given = [key for key in _OF_CONFIGS if context.params.get(key)]
    if given:
        option = f"--{given[0].rstrip('_').replace('_', '-')}"
        raise typer.BadParameter(f"a run is taken as it was trained; remove {option}")
    return saved_run.read(names.find(source))


def as_python(found: Resolved | SavedRun, source: str) -> str:
    """The call of `twolayer.load_config` that gives the same config."""
    if isinstance(found, SavedRun):
        return f"twolayer.load_config({str(found.path / CONFIG)!r})"
    given = {key for key, origin in found.origins.items() if str(origin).startswith("--")}
    values = {key: value for key, value in found.config if key in given and key != "data"}
    data = found.config.data
    if any(key.startswith("data.") for key in given):
        values["data"] = {"source": data.source} | {k: v for k, v in data if v != type(data).model_fields[k].default}
    return f"twolayer.load_config({', '.join([repr(source), *(f'{key}={value!r}' for key, value in values.items())])})"
