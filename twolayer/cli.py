"""The command line: the only user of typer, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from twolayer import __version__, console, loading, memory, process
from twolayer.config import flat, schema
from twolayer.errors import ConfigError, DeviceError, DisagreementError, Origin, Problem, TwolayerError

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
        code, what = error.exit_code, " ".join(error.format_message().replace("Value error, ", "").split())
    except TwolayerError as error:
        code, what = error.exit_code, error
    except (console.OutputClosed, BrokenPipeError):  # whoever read our output, such as `head`, has enough
        code = 0
    except OSError as error:  # what the library reads and writes has its own errors: this is stdout
        code, what = 1, f"the output cannot be written: {error.strerror or error}"
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    if what:
        console.error(what)
    return process.flushed(code)


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
    set_: SetOption = None,
    format_: FormatOption = "table",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the final loss and the time.")] = False,
) -> None:
    """Train the network and print the loss of every iteration.

    The loss in a row is the one before that iteration's update; the loss after the last update stands below.
    """
    if quiet and format_ != "table":
        raise typer.BadParameter(f"--quiet leaves out the rows that --format {format_} asks for; take one of them")
    resolved = _resolve(config, set_ or [], context)

    try:
        from twolayer import training  # a second, nearly all of it torch
        from twolayer.model import device_name
    except (ImportError, OSError) as error:
        raise _no_torch(error) from None

    process.start_computing()
    full, data, model = training.prepare(resolved.config)
    aside = format_ != "table"  # csv and jsonl have stdout to themselves
    if not quiet:
        if not aside:
            console.say(str(model))
        console.about(config, device_name(full.device), full.engine_name, full.threads, full.seed, stderr=aside)

    seconds = 0.0
    view = console.LossView(full.epochs, full.log_every, format_, quiet=quiet)
    try:
        with view:
            for block in training.fit(model, data, full):
                seconds += block.seconds
                view.show(block)
    except KeyboardInterrupt:
        console.note(f"interrupted after {view.done} of {full.epochs} iterations")
        raise typer.Exit(128 + signal.SIGINT) from None
    console.summary(training.final_loss(model, data, full), seconds, full.epochs, stderr=aside)


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

    Times are medians of rounds in turn, with the least and the most; set-up is what comes before the first iteration
    and after the last. The exit code is 1 where an engine's losses are not those of autograd, to rounding.
    """
    resolved = _resolve(config, set_ or [], context)
    try:
        from twolayer.bench import Bench  # a second, nearly all of it torch
        from twolayer.model import device_name
    except (ImportError, OSError) as error:
        raise _no_torch(error) from None

    process.start_computing()
    full, engines, done, interrupted = resolved.config, Bench(resolved.config), 0, False
    if format_ == "table":
        console.say(f"{full.shape}, {full.dtype}, on {device_name(engines.device)}\n")
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
            f"\nshare: of the {products.rate / 1e9:.3g} GFLOP/s that products of {products.size} x {products.size} "
            f"matrices reach here"
        )
        for name, reason in engines.left_out.items():
            console.say(f"left out: {name}, {reason}")
        console.say(f"auto takes {engines.auto}")
    if interrupted:
        raise typer.Exit(128 + signal.SIGINT)
    if wrong := [engine.name for engine in engines.engines if not engines.agrees(engine)]:
        raise DisagreementError(wrong)


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
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Show the config, or all that is wrong with it.

    Every key stands there with its value and where that comes from: the default, a line of the file, the
    environment or an option. Whether the device is there, only `train` finds out.
    """
    resolved = _resolve(config, set_ or [], context)
    rows = [(key, value, str(resolved.origins[key])) for key, value in flat(resolved.config)]
    console.rows(("key", "value", "origin"), rows, format_)


@app.command(epilog="Example:  twolayer init my.yaml")
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where to write it.")] = Path("twolayer.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented config to start from.

    It is the rTorch book's network, with every key there is and a comment on each.
    """
    loading.write_starter(path, force=force)
    name = f"./{path}" if str(path) in loading.bundled() else str(path)
    console.note(f"wrote {path}; train it with: twolayer train {shlex.quote(name)}")


@app.command("schema", epilog="Example:  twolayer schema > twolayer.schema.json")
def schema_command() -> None:
    """Print the JSON Schema of a config.

    Editors complete and check a config by it. The first line of a config names the file to put it into.
    """
    console.json_document(schema())


def _no_torch(error: Exception) -> DeviceError:
    """What to say of a torch that is not there, or lacks a library of its own."""
    return DeviceError(f"PyTorch cannot be imported: {error}")


def _resolve(source: str, sets: Sequence[str], context: typer.Context) -> loading.Resolved:
    """The config with all that comes over it, known to fit into memory. Does not import torch."""
    malformed = [
        Problem(Origin(f"--set {text}"), "", "must be KEY=VALUE, such as --set lr=1e-3")
        for text in sets
        if text.find("=") < 1
    ]
    try:
        resolved = loading.resolve(source, overrides=_overrides(sets, context))
    except ConfigError as error:
        raise ConfigError([*error.problems, *malformed]) from None
    if malformed:
        raise ConfigError(malformed)
    memory.check(resolved.config, resolved.name)
    return resolved


def _overrides(sets: Sequence[str], context: typer.Context) -> Iterator[loading.Override]:
    for text in sets:
        key, _, value = text.partition("=")
        if text.find("=") > 0:
            yield loading.Override(tuple(key.split(".")), value, f"--set {text}")
    for key in NAMED:
        if (given := context.params.get(key)) is not None:
            yield loading.Override((key,), given, f"--{key.replace('_', '-')}")
