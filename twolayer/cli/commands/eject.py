"""The command `eject`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from twolayer.cli import process, source, terminal
from twolayer.cli.options import (
    ClassesOption,
    DeviceOption,
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
    home,
)
from twolayer.cli.process import computing
from twolayer.cli.resolving import typed
from twolayer.exporters.script_path import check_path
from twolayer.files import replacing
from twolayer.runs.names import safe_name
from twolayer.runs.saved_run import SavedRun
from twolayer.system.console import shell_words

if TYPE_CHECKING:
    from twolayer.config.validation import Resolved

commands = typer.Typer()

Style = Literal["loop", "optim", "manual", "scratch", "dual"]


@commands.command(epilog="Example:  twolayer eject default --style manual")
def eject(
    context: typer.Context,
    config: SourceArgument = "default",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="The file to write; - is stdout.  [default: <name>_<style>.py]",
            callback=home,
        ),
    ] = None,
    style: Annotated[
        Style,
        typer.Option(
            "--style",
            help="How it is written: loop (autograd), optim (torch.optim.SGD), manual (no autograd), scratch (tensors "
            "alone), dual (the fused engine's algebra).",
            autocompletion=lambda: list(get_args(Style)),
        ),
    ] = "loop",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    device: DeviceOption = None,
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
) -> None:
    """Write a training as one file of plain PyTorch, without twolayer.

    The file prints the history as csv: with the styles loop and optim exactly the losses of --engine autograd, with
    manual and scratch those of --engine manual, at the same number of threads; with dual the same but for rounding. For
    a table it also reads, encodes and scales the columns, with polars and numpy; the styles are loop and optim.

    Only that file is written. With lr auto, eject a run: the file has the learning rates that it took.
    """
    found = source.find(config, set_ or [], context)
    path = out or Path(f"{safe_name(config).replace('-', '_')}_{style}.py")
    is_stdout = str(path) == "-"
    if not is_stdout:
        check_path(path, force=force)
    text = _script(found, style, config, context)
    if is_stdout:
        terminal.write(text)
        return
    with replacing(path) as file:
        file.write(text.encode())
    terminal.note(f"wrote {path}; run it with: python {shell_words([str(path)])}")


def _script(found: Resolved | SavedRun, style: Style, name: str, context: typer.Context) -> str:
    """The script. Raises TwolayerError."""
    with computing():
        from twolayer.exporters import eject as ejecting  # a second, nearly all of it torch

    process.start_computing()
    if isinstance(found, SavedRun):
        return ejecting.of_run(found, style)
    return ejecting.of_config(found.config, style, found.table, safe_name(name), _command(context))


def _command(context: typer.Context) -> list[str]:
    """The arguments of `twolayer train` for the same training, as far as they were typed."""
    kept, arguments = [], list(typed(context)[1:])
    while arguments:
        argument = arguments.pop(0)
        if argument in ("-o", "--out", "--style"):
            arguments[:1] = []
        elif not argument.startswith(("-o", "--out=", "--style=")) and argument != "--force":
            kept.append(argument)
    return kept
