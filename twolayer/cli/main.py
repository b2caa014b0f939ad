"""The command line: puts the commands together, and turns errors into messages and exit codes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from twolayer.cli import terminal
from twolayer.cli.commands import (
    bench,
    check,
    compare,
    data,
    evaluate,
    init,
    lr,
    plot,
    predict,
    report,
    runs,
    schema,
    show,
    train,
)
from twolayer.errors import OutputError, TwolayerError
from twolayer.version import __version__

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
    terminal.prepare_streams()
    what: TwolayerError | str = ""
    try:
        code = app(arguments, prog_name="twolayer", standalone_mode=False) or 0
        sys.stdout.flush()
    except typer.TyperException as error:
        message = error.format_message().replace("Value error, ", "").removeprefix("Invalid value: ")
        code, what = error.exit_code, " ".join(message.split())
    except TwolayerError as error:
        code, what = error.exit_code, error
    except (terminal.OutputClosed, BrokenPipeError):  # whoever read our output, such as `head`, has enough
        code = 0
    except OSError as error:  # what the library reads and writes has its own errors: this is stdout
        what = OutputError(error)
        code = what.exit_code
    except MemoryError:
        code, what = 1, "out of memory: there is less than this takes"
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    if what:
        terminal.error(what)
    return terminal.flushed(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        terminal.say(f"twolayer {__version__}")
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


for command in (train, bench, lr, data, evaluate, predict, runs, show, plot, report, compare, check, init, schema):
    app.add_typer(command.commands)
