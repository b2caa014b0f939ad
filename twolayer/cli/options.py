"""The options that commands share, and the config that they make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from twolayer.cli import completion, terminal
from twolayer.files import expand_home
from twolayer.reporting.downsampling import Scale
from twolayer.sweeps import saved_sweep
from twolayer.sweeps.folder import is_sweep

# The keys that have an option of their own.


def home(value: Any) -> Any:
    """A path as it was typed, or several, with `~/` as the home folder: no shell expands it in `--out=~/x`."""
    if isinstance(value, (list, tuple)):
        return [home(one) for one in value]
    return type(value)(expand_home(str(value))) if isinstance(value, (str, Path)) else value


def sweep_alone(paths: Sequence[Path]) -> saved_sweep.SavedSweep | None:
    """The sweep in the only one of these folders; None where they are runs. Raises BadParameter for a mix."""
    sweeps = [path for path in paths if is_sweep(path)]
    if sweeps and len(paths) > 1:
        raise typer.BadParameter(f"{sweeps[0]} is a sweep, and is shown alone; its runs are the folders in it")
    return saved_sweep.read(sweeps[0]) if sweeps else None


def checked_jobs(text: str | None) -> int | None:
    """The number of `--jobs`; None for auto. Raises BadParameter."""
    if text == "auto":
        return None
    if text is not None and not (text.isdecimal() and text.isascii() and 0 < int(text[:9]) <= 1024):
        raise typer.BadParameter(f"--jobs must be a number from 1 to 1024, or auto, not {text!r}")
    return int(text or 1)


TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="COLUMNS",
        help="Columns of the table to predict, with commas between them; repeatable.",
        autocompletion=completion.columns,
    ),
]
InputsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--inputs",
        metavar="COLUMNS",
        help="Columns of the table to predict from; repeatable.  [default: all others]",
        autocompletion=completion.columns,
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="COLUMNS",
        help="Columns of the table not to use; repeatable.",
        autocompletion=completion.columns,
    ),
]
MissingOption = Annotated[
    str | None,
    typer.Option(
        "--missing",
        metavar="refuse|mean",
        help="What to do with missing inputs.",
        autocompletion=completion.values("data.missing"),
    ),
]
ClassesOption = Annotated[bool, typer.Option("--classes", help="Predict classes, also where they are numbers.")]
ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, a bundled config (default, scratch, modules, diabetes), or a table, such as my.csv.",
        autocompletion=completion.configs,
    ),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG|RUN",
        help="A config or a table, as for train; or a run: its folder, or its name in runs/.",
        autocompletion=completion.configs_and_runs,
        callback=home,
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run on a table: its folder, or its name in runs/; or its model.safetensors, wherever that lies.",
        autocompletion=completion.models,
        callback=home,
    ),
]
ExportedArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run: its folder, or its name in runs/; or its model.safetensors, wherever that lies.",
        autocompletion=completion.models,
        callback=home,
    ),
]
SavedArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run: its folder, or its name in runs/.", autocompletion=completion.runs, callback=home
    ),
]
RunsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="Runs: their folders, or their names in runs/.",
        show_default=False,
        autocompletion=completion.runs,
        callback=home,
    ),
]
DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A table with the run's input columns; - reads CSV or NDJSON from a pipe.",
        autocompletion=completion.tables,
        callback=home,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where to compute: cpu, cuda, cuda:<n>, mps or auto.",
        autocompletion=completion.values("device"),
    ),
]
EpochsOption = Annotated[str | None, typer.Option("--epochs", metavar="INT", help="Passes over the data.")]
LrOption = Annotated[
    str | None,
    typer.Option("--lr", metavar="FLOAT|auto", help="Learning rate.", autocompletion=completion.values("lr")),
]
SeedOption = Annotated[str | None, typer.Option("--seed", metavar="INT", help="Seed of the random data and weights.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="How gradients are computed: auto, autograd, manual, fused or compiled.",
        autocompletion=completion.values("engine"),
    ),
]
ThreadsOption = Annotated[
    str | None,
    typer.Option(
        "--threads",
        metavar="INT|auto",
        help="CPU threads.",
        autocompletion=completion.values("threads"),
    ),
]
LogEveryOption = Annotated[str | None, typer.Option("--log-every", metavar="INT", help="Print every n-th row.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any key of the config, such as H=200 or data.noise=0.5; repeatable.",
        autocompletion=completion.settings,
    ),
]
ReadingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="How DATA is read: data.separator, data.decimal, data.header or data.sheet.  [default: as in training]",
        autocompletion=completion.settings,
    ),
]
FormatOption = Annotated[terminal.Format, typer.Option("--format", help="How to print rows.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The run folder.  [default: runs/<config>-<n>]", callback=home),
]
NoSaveOption = Annotated[bool, typer.Option("--no-save", help="Create no run folder.")]
NoteOption = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A note to save with the run.")]
TensorBoardOption = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard event files into the run folder.")
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint-every",
        metavar="INT|<n>s",
        help="Save a checkpoint every n iterations, or every n seconds.  [default: 30s]",
    ),
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="RUN",
        help="Continue a run, up to --epochs in total.",
        autocompletion=completion.runs,
        callback=home,
    ),
]
FoldsOption = Annotated[
    int | None,
    typer.Option("--folds", metavar="INT", help="First score the table by cross-validation with n folds."),
]
RepeatsOption = Annotated[
    int | None,
    typer.Option("--repeats", metavar="INT", help="Repeat this with other folds, n times in all.  [default: 1]"),
]
SeedsOption = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        metavar="INT|LIST",
        help="Train with several seeds: 10 for ten, from the config's on, or a list, such as 3,7,11.",
    ),
]
SweepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="KEY=VALUES",
        help="Train with each value of a key: lr=1e-4,1e-3, lr=1e-5..1e-2*7 or H=16..256+16; repeatable.",
        autocompletion=completion.swept,
    ),
]
JobsOption = Annotated[
    str | None,
    typer.Option("--jobs", metavar="INT|auto", help="Processes for --seeds and --sweep.  [default: 1]"),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the trainings of --seeds and --sweep, and train none.")
]

ScaleOption = Annotated[
    Scale,
    typer.Option("--scale", help="Scale of the loss axis; auto uses log if the losses span a factor of 100."),
]
