"""The arguments and options of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twolayer import console, loading

# The keys that have an option of their own.
NAMED = ("device", "epochs", "lr", "seed", "engine", "threads", "log_every")

ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, or a bundled config: default, scratch or modules.",
        autocompletion=lambda: list(loading.bundled()),
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:<n>, mps or auto.")
]
EpochsOption = Annotated[str | None, typer.Option("--epochs", metavar="INT", help="Passes over the data.")]
LrOption = Annotated[str | None, typer.Option("--lr", metavar="FLOAT", help="The step of gradient descent.")]
SeedOption = Annotated[str | None, typer.Option("--seed", metavar="INT", help="Draws the data and the weights.")]
EngineOption = Annotated[
    str | None, typer.Option("--engine", metavar="ENGINE", help="auto, autograd, manual or fused.")
]
ThreadsOption = Annotated[str | None, typer.Option("--threads", metavar="INT", help="CPU threads, or auto.")]
LogEveryOption = Annotated[
    str | None, typer.Option("--log-every", metavar="INT", help="Print every so many iterations.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of the config, such as H=200 or data.noise=0.5; repeatable.",
    ),
]
FormatOption = Annotated[console.Format, typer.Option("--format", help="How rows are printed.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run folder; runs/<config>-<n>, unless given.")
]
NoSaveOption = Annotated[bool, typer.Option("--no-save", help="Keep no run folder.")]
NoteOption = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A note to keep with the run.")]
CheckpointOption = Annotated[
    str,
    typer.Option("--checkpoint-every", metavar="INT|<n>s", help="A checkpoint every so many iterations, or seconds."),
]
ResumeOption = Annotated[
    str | None, typer.Option("--resume", metavar="RUN", help="Go on with a run, up to --epochs iterations in all.")
]
