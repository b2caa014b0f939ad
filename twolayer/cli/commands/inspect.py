"""The command `inspect`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from twolayer.cli import inspect_view, process, source, terminal
from twolayer.cli.options import (
    ClassesOption,
    EpochsOption,
    ExcludeOption,
    InputsOption,
    LrOption,
    MissingOption,
    SeedOption,
    SetOption,
    SourceArgument,
    TargetOption,
    ThreadsOption,
)
from twolayer.cli.process import computing
from twolayer.errors import NoRowsError
from twolayer.runs.names import safe_name
from twolayer.runs.saved_run import SavedRun

if TYPE_CHECKING:
    from twolayer.config.validation import Resolved
    from twolayer.training.from_run import Place

commands = typer.Typer()

_VIEWS = ("parameters", "layer", "forward", "backward", "step", "on")


@commands.command("inspect", epilog="Example:  twolayer inspect default-1 --at 100 --backward")
def inspect_command(
    context: typer.Context,
    config: SourceArgument = "default",
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="start|end|INT",
            help="Which weights: the initial ones, those that are kept, or those after n iterations (epochs).  "
            "[default: end of a run, start of a config]",
            show_default=False,
        ),
    ] = "",
    parameters: Annotated[bool, typer.Option("--parameters", help="Show weights and biases.")] = False,
    layer: Annotated[int | None, typer.Option("--layer", metavar="0|1|2", help="Show a layer.")] = None,
    forward: Annotated[bool, typer.Option("--forward", help="Show how some rows go through the network.")] = False,
    backward: Annotated[bool, typer.Option("--backward", help="Show the gradients, from the output back.")] = False,
    step: Annotated[bool, typer.Option("--step", help="Show what one step of gradient descent changes.")] = False,
    on: Annotated[
        str | None, typer.Option("--device", metavar="DEVICE", help="Compare with the same on a device, such as cuda.")
    ] = None,
    as_python: Annotated[bool, typer.Option("--as-python", help="Print the lines of Python that show this.")] = False,
    rows: Annotated[int, typer.Option("--rows", metavar="INT", help="Rows, or numbers, to show.", min=1)] = 5,
    epochs: EpochsOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    threads: ThreadsOption = None,
    target: TargetOption = None,
    inputs: InputsOption = None,
    exclude: ExcludeOption = None,
    missing: MissingOption = None,
    classes: ClassesOption = False,
    set_: SetOption = None,
    format_: Annotated[Literal["table", "jsonl"], typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Take a network apart: parameters, hidden units, gradients.

    The gradients are those of the loss over the training rows, by autograd and by back-propagation that is written out.
    Of a table's network the page also shows how much each column matters: the rise of the validation loss when its
    values are shuffled.

    Nothing is written: a run may be running, stopped or diverged.
    """
    view = _view(context)
    found = source.find(config, set_ or [], context)
    try:
        place = _place(found, config, at)
    except NoRowsError as error:
        if not isinstance(found, SavedRun) or not _show_alone(found, at, view, error, context):
            raise
        return
    if as_python:
        for line in inspect_view.python_lines(place, source.as_python(found, config), view, rows, layer):
            terminal.say(line)
        return
    _print(place, view, context)


def _print(place: Place, view: str, context: typer.Context) -> None:
    """Print the page or the view. Raises TwolayerError."""
    from twolayer.training import importance, inspection

    for note in place.notes:
        terminal.note(note)
    rows, layer, on = (context.params[name] for name in ("rows", "layer", "on"))
    found = inspection.inspect(place.model, place.data, place.config, place.lr)
    columns = None
    if not view and place.data.columns is not None:
        columns = importance.permutation_importance(place.model, place.data, place.config)
    other = inspection.moved(found, on) if on is not None else None
    if context.params["format_"] == "jsonl":
        inspect_view.write_json(found, columns, other, view, rows, layer)
        return
    terminal.say(place.text)
    inspect_view.show(found, columns, other, view, rows, layer)


def _show_alone(run: SavedRun, at: str, view: str, error: NoRowsError, context: typer.Context) -> bool:
    """Print what can be shown of the weights that a run keeps without its rows; False if these are not asked for."""
    from twolayer.cli import inspect_alone
    from twolayer.runs import model_file
    from twolayer.training import loaded_run

    kept = model_file.read(run) if at in ("", "end") else None
    if kept is None:
        return False
    found = loaded_run.load(run.path)
    if context.params["as_python"] and view in ("", "parameters"):
        terminal.say("\n".join(inspect_alone.python_lines(found, view)))
        return True
    as_json = context.params["format_"] == "jsonl"
    inspect_alone.show(found, kept.iterations, view, error, as_json=as_json)
    return True


def _place(found: Resolved | SavedRun, name: str, at: str) -> Place:
    """The network where --at says. Raises TwolayerError or BadParameter."""
    if at not in ("", "start", "end") and not at.isdecimal():
        raise typer.BadParameter(f"--at must be start, end or a number of iterations or epochs, not {at!r}")
    with computing():
        from twolayer.training import from_run  # a second, nearly all of it torch

    process.start_computing()
    where = int(at) if at.isdecimal() else at
    if isinstance(found, SavedRun):
        return from_run.place_in_run(found, where or "end" if where != 0 else "start")
    if isinstance(where, int) and where > found.config.epochs:
        raise typer.BadParameter(f"--at {at} is after the last of {found.config.epochs}; add --epochs {at}")
    return from_run.place_in_config(found.config, found.table, safe_name(name), where or "start")


def _view(context: typer.Context) -> str:
    """The only view that is asked for; empty for the page. Raises BadParameter."""
    given = [name for name in _VIEWS if context.params[name] is not None and context.params[name] is not False]
    if len(given) > 1:
        first, second = (f"--{name}".replace("--on", "--device") for name in given[:2])
        raise typer.BadParameter(f"{first} and {second} are two views; ask for one")
    layer = context.params["layer"]
    if layer is not None and layer not in (0, 1, 2):
        raise typer.BadParameter(f"--layer must be 0, 1 or 2, not {layer}")
    on = context.params["on"]
    if on is not None and not re.fullmatch("auto|cpu|mps|cuda(:[0-9]{1,4})?", on):
        raise typer.BadParameter(f"--device must be cpu, cuda, cuda:<n>, mps or auto, not {on!r}")
    return given[0] if given else ""
