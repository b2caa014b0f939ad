"""The command line: the only user of typer, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Annotated, Literal

import typer

from twolayer import __version__, console, listing, loading, process, runs
from twolayer.config import flat, schema
from twolayer.errors import DataError, DeviceError, DisagreementError, OutputError, TwolayerError, extra
from twolayer.options import (
    CheckpointOption,
    ConfigArgument,
    DataArgument,
    DeviceOption,
    EngineOption,
    EpochsOption,
    FormatOption,
    LogEveryOption,
    LrOption,
    NoSaveOption,
    NoteOption,
    OutOption,
    ResumeOption,
    RunArgument,
    SeedOption,
    SetOption,
    TargetOption,
    ThreadsOption,
    resolve,
    resolve_again,
    resolve_data,
)

app = typer.Typer(
    name="twolayer",
    help="Train the two-layer network, Linear -> ReLU -> Linear, by plain gradient descent.",
    epilog="Example:  twolayer train",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: legible in forty columns, at a pipe and in any locale, and 50 ms sooner
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (`sys.argv`, unless given) and show what goes wrong; the exit code."""
    process.prepare_streams()
    what: TwolayerError | str = ""
    try:
        code = app(arguments, prog_name="twolayer", standalone_mode=False) or 0
        sys.stdout.flush()
    except typer.TyperException as error:
        message = error.format_message().replace("Value error, ", "").removeprefix("Invalid value: ")
        code, what = error.exit_code, " ".join(message.split())
    except TwolayerError as error:
        code, what = error.exit_code, error
    except (console.OutputClosed, BrokenPipeError):  # whoever read our output, such as `head`, has enough
        code = 0
    except OSError as error:  # what the library reads and writes has its own errors: this is stdout
        what = OutputError(error)
        code = what.exit_code
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    if what:
        console.error(what)
    return process.flushed(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.say(f"twolayer {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _twolayer(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog="Example:  twolayer train scratch --epochs 1000 --set H=64")
def train(
    context: typer.Context,
    config: ConfigArgument = "default",
    device: DeviceOption = None,
    epochs: EpochsOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    log_every: LogEveryOption = None,
    target: TargetOption = None,
    set_: SetOption = None,
    out: OutOption = None,
    no_save: NoSaveOption = False,
    note: NoteOption = None,
    checkpoint_every: CheckpointOption = None,
    resume: ResumeOption = None,
    format_: FormatOption = "table",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no rows: only the final loss and the time.")
    ] = False,
) -> None:
    """Train the network and print the loss of every iteration.

    The loss in a row is the one before that iteration's update; the loss after the last update stands below. History,
    checkpoints and the model are kept in a run folder, from which --resume goes on, bit for bit.
    """
    if quiet and format_ != "table":
        raise typer.BadParameter(f"--quiet leaves out the rows that --format {format_} asks for; take one of them")
    if no_save and (out or note or resume or checkpoint_every):
        options = "--out, --note, --resume or --checkpoint-every"
        raise typer.BadParameter(f"--no-save keeps no run folder; it does not go with {options}")
    if out is not None and not resume:
        runs.check_free(out)
    runs.check_note(note or "")
    if resume is None:
        resolved, run = resolve(config, set_ or [], context, saved=not no_save), None
        given = checkpoint_every or "30s"
    else:
        source = context.get_parameter_source("config")
        if out or note or (source is not None and source.name == "COMMANDLINE"):
            raise typer.BadParameter("--resume goes on with a run as it is; it goes with no CONFIG, --out or --note")
        run = runs.claim(runs.find(resume))
        resolved = resolve_again(run, set_ or [], context)
        given = checkpoint_every or str(run.info.get("checkpoint_every", "30s"))
    every = runs.every(given)
    try:
        from twolayer import recording, session, training  # a second, nearly all of it torch
    except (ImportError, OSError) as error:
        raise _not_there(error) from None

    process.start_computing()
    full, data, model = training.prepare(resolved.config, resolved.table)
    if not no_save:
        console.outlive_reader()
    if run is not None:
        fit, damages = recording.go_on(run, full, data, model, every)
        for damage in damages:
            console.note(damage)
        if not fit.done:
            console.note(f"{run.path}: has no good checkpoint; it begins again at iteration 1")
    elif not no_save:
        fit = training.Fit(model, data, full, cut_every=every.iterations)
        run = recording.start(fit, every, out=out, source=config, note=note or "")
    else:
        fit = training.Fit(model, data, full)
    recorder = recording.Recording(run, fit, every) if run is not None else None
    name = config if resume is None else resolved.name
    raise typer.Exit(session.follow(fit, recorder, name, format_, quiet=quiet))


@app.command(epilog="Example:  twolayer bench --device cuda")
def bench(
    context: typer.Context,
    config: ConfigArgument = "default",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    set_: SetOption = None,
    rounds: Annotated[int, typer.Option("--rounds", metavar="INT", min=1, help="Times to measure each engine.")] = 7,
    format_: FormatOption = "table",
) -> None:
    """Measure every engine on this machine, and check that all compute the same.

    Times are medians of rounds in turn, with the least and the most; set-up is what an engine takes to begin, and to
    write the weights back. The exit code is 1 where an engine's losses are not those of autograd, to rounding.
    """
    resolved = resolve(config, set_ or [], context)
    try:
        from twolayer.bench import Bench  # a second, nearly all of it torch
        from twolayer.model import device_name
    except (ImportError, OSError) as error:
        raise _not_there(error) from None

    process.start_computing()
    full, engines, done, interrupted = resolved.config, Bench(resolved.config), 0, False
    if format_ == "table":
        console.say(f"{full.shape}, {full.dtype}, on {device_name(engines.device)}; microseconds an iteration\n")
    try:
        with console.Bar(rounds) as bar:
            bar.draw(0, "rounds")
            for done in engines.rounds(rounds):
                bar.draw(done, "rounds")
    except KeyboardInterrupt:
        console.note(f"interrupted after {done} of {rounds} rounds")
        interrupted = True
    if done:
        console.measured(list(engines.rows()), format_)
    if done and format_ == "table":
        products = engines.products
        console.say(
            f"\nshare: of {products.rate / 1e9:.3g} GFLOP/s, the rate of {products.size} x {products.size} products "
            f"with {products.config.threads} threads"
        )
        for name, reason in engines.left_out.items():
            console.say(f"left out: {name}, {reason}")
        console.say(f"auto takes {engines.auto}")
    if interrupted:
        raise typer.Exit(128 + signal.SIGINT)
    if wrong := [engine.name for engine in engines.engines if not engines.agrees(engine)]:
        raise DisagreementError(wrong)


@app.command("lr", epilog="Example:  twolayer lr scratch --set H=64")
def lr_command(
    context: typer.Context,
    config: ConfigArgument = "default",
    device: DeviceOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    threads: ThreadsOption = None,
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Measure the largest stable step at the initial weights.

    lambda is the largest eigenvalue of the Hessian of the loss; beyond a step of 2 / lambda gradient descent moves away
    from any minimum. 1 / lambda is what `lr: auto` begins with.
    """
    resolved = resolve(config, set_ or [], context)
    try:
        from twolayer import stepsize, training  # a second, nearly all of it torch
    except (ImportError, OSError) as error:
        raise _not_there(error) from None

    process.start_computing()
    full, data, model = training.prepare(resolved.config, resolved.table)
    found = stepsize.curvature(model, data, full)
    rows = [
        ("lambda", found.largest, f"by {found.products} products with the Hessian"),
        ("2 / lambda", found.limit, "the largest stable step"),
        ("1 / lambda", found.limit / 2, "to try; what lr auto begins with"),
    ]
    if full.lr != "auto":
        rows.append(("lr", full.lr, f"given: {full.lr / found.limit:.3g} times the largest stable step"))
    if format_ == "table":
        console.rows(
            ("what", "value", "comment"), [(name, f"{value:.4g}", what) for name, value, what in rows], format_
        )
    else:
        console.rows(("what", "value", "comment"), rows, format_)


@app.command(epilog="Example:  twolayer check my.yaml --set lr=1e-3")
def check(
    context: typer.Context,
    config: ConfigArgument = "default",
    device: DeviceOption = None,
    epochs: EpochsOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    log_every: LogEveryOption = None,
    target: TargetOption = None,
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Show the config, or all that is wrong with it.

    Every key stands there with its value and where that comes from: the default, a line of the file, the
    environment or an option. Whether the device is there, only `train` and `bench` find out.
    """
    resolved = resolve(config, set_ or [], context)
    rows = [(key, value, str(resolved.origins[key])) for key, value in flat(resolved.config)]
    console.rows(("key", "value", "origin"), rows, format_)


@app.command("data", epilog="Example:  twolayer data my.csv --target price")
def data_command(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A table, or a config that names one.")],
    target: TargetOption = None,
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Show what a table holds, what would be trained on, and how.

    What keeps the table from being trained on stands below, and makes the exit code 1.
    """
    data, targets = resolve_data(path, set_ or [], context)
    with extra("polars", "data"):
        from twolayer import tables

    found = tables.summary(
        data.path,
        data.path,
        target=targets,
        inputs=data.inputs,
        exclude=data.exclude,
        missing=data.missing,
        separator=data.separator,
        decimal=data.decimal,
    )
    names = ("column", "type", "used as", "missing", "distinct", "least", "mean", "most")
    if format_ == "table":
        console.say(f"{found.rows} rows\n")
    digits = format_ == "table"
    console.rows(
        names,
        [
            [f"{cell:.4g}" if digits and isinstance(cell, float) else cell for cell in astuple(column)]
            for column in found.columns
        ],
        format_,
    )
    for problem in found.problems:
        console.note(problem)
    if found.problems:
        raise typer.Exit(1)


@app.command(epilog="Example:  twolayer evaluate my-1 test.csv")
def evaluate(run: RunArgument, data: DataArgument, format_: FormatOption = "table") -> None:
    """Measure a run's model on a table, beside a linear model and a constant.

    The linear model and the constant (the mean, or the frequencies of the classes) are those of the run's training
    rows. The loss is in the training's units; R2, RMSE and MAE are in the target's own.
    """
    path = runs.find(run)
    try:
        from twolayer import serving  # a second, nearly all of it torch
    except (ImportError, OSError) as error:
        raise _not_there(error) from None

    process.start_computing()
    serving.evaluate(path, data, format_)


@app.command(epilog="Example:  twolayer predict my-1 new.csv -o predicted.csv")
def predict(
    run: RunArgument,
    data: DataArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help=".csv, .tsv, .parquet, .arrow, .ndjson; stdout, unless given."
        ),
    ] = None,
    format_: Annotated[
        Literal["csv", "parquet", "ndjson"] | None, typer.Option("--format", help="csv, unless FILE says otherwise.")
    ] = None,
) -> None:
    """Write a table's rows with a run's predictions beside them.

    The inputs are found by their columns' names; all other columns are carried along. In a CSV, text that a
    spreadsheet would take for a formula is led by a single quote.
    """
    path = runs.find(run)
    try:
        from twolayer import serving  # a second, nearly all of it torch
    except (ImportError, OSError) as error:
        raise _not_there(error) from None

    process.start_computing()
    serving.write_predictions(path, data, out, format_)


@app.command("runs", epilog="Example:  twolayer runs --format csv")
def runs_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the runs are.")] = runs.RUNS,
    format_: FormatOption = "table",
) -> None:
    """List the runs, newest first."""
    rows, broken = listing.listed(folder)
    columns: tuple[str, ...] = listing.COLUMNS
    if format_ == "table":  # in eighty columns; the other formats have every column and every digit
        columns, rows = listing.brief(rows)
    console.rows(columns, rows, format_)
    for message in broken:
        console.note(message)


@app.command(epilog="Example:  twolayer init my.yaml")
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where to write it.")] = Path("twolayer.yaml"),
    name: Annotated[str, typer.Option("--from", metavar="NAME", help="The bundled config to copy.")] = "default",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented config to start from.

    `default` is the rTorch book's network, with every key there is and a comment on each; `diabetes` trains on a table,
    which is written beside it.
    """
    written = " and ".join(map(str, loading.write_starter(path, name, force=force)))
    source = f"./{path}" if str(path) in loading.bundled() else str(path)
    console.note(f"wrote {written}; train it with: twolayer train {shlex.quote(source)}")


@app.command("schema", epilog="Example:  twolayer schema > twolayer.schema.json")
def schema_command() -> None:
    """Print the JSON Schema of a config.

    Editors complete and check a config by it. The first line of a config names the file to put it into.
    """
    console.json_document(schema())


def _not_there(error: Exception) -> DataError | DeviceError:
    """What to say of polars or a torch that is not there, or lacks a library of its own."""
    if (getattr(error, "name", "") or "").partition(".")[0] == "polars":
        return DataError("reading tables needs polars: pip install 'twolayer[data]'")
    return DeviceError(f"PyTorch cannot be imported: {error}")
