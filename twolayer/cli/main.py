"""The command line: assembles the commands, and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from twolayer.cli import completion, ranks, terminal
from twolayer.cli.commands import (
    bench,
    check,
    compare,
    data,
    doctor,
    eject,
    evaluate,
    export,
    init,
    inspect,
    lr,
    plot,
    predict,
    report,
    runs,
    schema,
    show,
    train,
)
from twolayer.config.key_names import meant_key
from twolayer.errors import OutputError, TwolayerError
from twolayer.formatting import nearest, speak_of_options
from twolayer.system.console import is_closed_pipe
from twolayer.version import __version__

# In the order in which somebody new needs them.
GROUPS = {
    "Train": (train, init, check, schema),
    "Your own table": (data, evaluate, predict),
    "Saved runs": (runs, show, compare, plot, report, export),
    "Take apart": (inspect, eject),
    "Measure": (lr, bench, doctor),
}


class _Group(TyperGroup):
    """Lists the commands in groups, each with its whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the groups into the help."""
        names, width = iter(self.list_commands(ctx)), max(map(len, self.commands))
        for title, members in GROUPS.items():
            with formatter.section(title):
                here = islice(names, len(members))
                formatter.write_dl(
                    [(f"{name:<{width}}", self.commands[name].get_short_help_str(1000)) for name in here]
                )


app = typer.Typer(
    name="twolayer",
    cls=_Group,
    help="Train the two-layer network, Linear -> ReLU -> Linear, by plain gradient descent.",
    epilog="Example:  twolayer train",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: readable in 40 columns, in a pipe and in any locale, and 50 ms faster
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: `sys.argv`) and print its errors; the exit code."""
    terminal.prepare_streams()
    speak_of_options()
    if os.environ.get(completion.VARIABLE, "").startswith("complete_"):
        return terminal.flushed(completion.answer(app))
    what: TwolayerError | str = ""
    try:
        given = tuple(sys.argv[1:] if arguments is None else arguments)
        code = app(given, prog_name="twolayer", standalone_mode=False, obj=given) or 0
        sys.stdout.flush()
    except typer.TyperException as error:
        code, what = error.exit_code, _in_our_words(error)
    except TwolayerError as error:
        code, what = error.exit_code, error
    except terminal.OutputClosed:  # the reader of our output, such as `head`, has closed it
        code = 0
    except OSError as error:  # files have errors of their own: this is stdout
        code = 0
        if not is_closed_pipe(error):
            what = OutputError(error)
            code = what.exit_code
    except MemoryError:
        code, what = 1, "out of memory: this needs more than is available"
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    if what:
        terminal.error(what)
    return terminal.flushed(code)


def _in_our_words(error: typer.TyperException) -> str:
    """A wrong command line as one line, with what to do about it."""
    message = " ".join(error.format_message().split()).removeprefix("Invalid value: ").rstrip(".")
    message = message.replace("Value error, ", "").replace("Input should be", "must be")
    message, _, options = message.partition(" (Possible options: ")
    context = getattr(error, "ctx", None)
    if (
        context is not None
        and message.startswith("No such option: ")
        and (meant := _meant(message.split()[-1], context))
    ):
        return f"{message}; did you mean {meant}?"
    near = get_close_matches(message.split()[-1], options.removesuffix(")").split(", "), cutoff=0.7)
    if near:
        return f"{message}; did you mean {' or '.join(near)}?"
    if isinstance(error, typer.BadParameter) and error.message:  # which says what is allowed
        return message
    if context is None or message.endswith("?"):
        return message
    return f"{message}; see {context.command_path} --help"


def _meant(option: str, context: typer.Context) -> str | None:
    """The option that is meant by one that a command does not have; where a key has none of its own, by --set."""
    known = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
    if near := nearest(option, known):
        return near
    key = meant_key(option.lstrip("-").replace("-", "_"))
    if key is not None and (named := f"--{key.rpartition('.')[2].replace('_', '-')}") in known:
        return named
    return f"--set {key}=VALUE" if key is not None and "--set" in known else None


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
    ranks.refuse(context.invoked_subcommand)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for members in GROUPS.values():
    for command in members:
        app.add_typer(command.commands)
