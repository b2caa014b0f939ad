"""What `inspect` shows of a run whose rows are not there any more: what its model file and its config say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from twolayer.cli import inspect_view, terminal
from twolayer.errors import NoRowsError, RunError
from twolayer.formatting import counted, json_number, safe

if TYPE_CHECKING:
    from twolayer.training.inspection import Tensor
    from twolayer.training.loaded_run import LoadedRun

_LISTED = 6  # columns by name
_LACKING = "hidden units, gradients and the importance of columns"


def show(found: LoadedRun, iteration: int, view: str, error: NoRowsError, *, as_json: bool) -> None:
    """Print the page, or the parameters. Raises RunError for a view of rows."""
    if view not in ("", "parameters"):
        option = {"on": "device"}.get(view, view)
        hint = "without them there are --parameters, and the page of no view"
        raise RunError(f"--{option} needs the rows of the training: {error.reason}", hint=hint)
    lacking = f"not available: {_LACKING}: {error.reason}; {error.hint}"
    named = {name: parameter.detach() for name, parameter in found.model.named_parameters()}
    if as_json:
        lines = [_line(name, tensor, view) for name, tensor in named.items()]
        terminal.write("".join(json.dumps(line) + "\n" for line in lines))
        if not view:
            terminal.note(lacking)
        return
    terminal.say("\n".join(_facts(found, iteration)))
    if view:
        inspect_view.tensors(named)
        return
    terminal.say(str(found.model))
    inspect_view.parameter_table(named)
    terminal.say(f"\n{lacking}")


def python_lines(found: LoadedRun, view: str) -> list[str]:
    """Lines for a Python prompt that show the same."""
    each = "for name, p in run.model.named_parameters():"
    lines = ["import twolayer", f"run = twolayer.load({str(found.path)!r})"]
    if view:
        return [*lines, f"{each} print(name, p)"]
    return [*lines, "print(run.model)", f"{each} print(name, tuple(p.shape), p.norm(), p.min(), p.max())"]


def _facts(found: LoadedRun, iteration: int) -> Iterator[str]:
    """Sentences about the model: where it is from, and the table that it was trained on."""
    config = found.config
    unit = f"{config.unit} " if config is not None else ""
    yield f"run {safe(found.path.name)}, {found.status}: the weights that it keeps, of {unit}{iteration}"
    if config is None or found.predictor is None:
        return
    columns = found.predictor.columns
    targets = ", ".join(target.column for target in columns.targets[:_LISTED])
    what = f"{len(columns.classes)} classes of {targets}" if columns.classes is not None else targets
    names = ", ".join(columns.inputs[:_LISTED]) + (", ..." if len(columns.inputs) > _LISTED else "")
    yield safe(f"{what} from {counted(len(columns.inputs), 'column')} ({names}); {counted(config.N, 'row')} trained on")


def _line(name: str, tensor: Tensor, view: str) -> dict[str, Any]:
    if view:
        return {"name": name, "shape": list(tensor.shape), "values": inspect_view.numbers(tensor.tolist())}
    figures = {key: json_number(float(getattr(tensor, key)())) for key in ("norm", "min", "max")}
    return {"tensor": name, "shape": list(tensor.shape), **figures}
