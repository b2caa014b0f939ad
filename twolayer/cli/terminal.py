"""The result on stdout, messages on stderr."""

from __future__ import annotations

import codecs
import csv
import io
import json
import locale
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from twolayer.cli.columns import aligned, fit, wrapped_widths
from twolayer.errors import ConfigError, TableError, TwolayerError
from twolayer.formatting import json_number, no_formula, safe
from twolayer.system.console import is_closed_pipe

Format = Literal["table", "csv", "jsonl"]
_MIN_WIDTH, _MIN_HEIGHT = 20, 2  # characters and lines; less is not the size of a terminal: COLUMNS=0 of a build server


class OutputClosed(Exception):  # noqa: N818 it is not an error: the reader wants no more
    """The reader of stdout has closed it. (typer handles a BrokenPipeError itself, and exits with 1.)"""


class _Console(Console):
    outlives_reader = False

    @property
    def size(self) -> ConsoleDimensions:
        """The width and height; the usual ones where those of the terminal are none to print in."""
        width, height = super().size
        return ConsoleDimensions(width if width >= _MIN_WIDTH else 80, height if height >= _MIN_HEIGHT else 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:  # which rich knows by one of its names only
            if not is_closed_pipe(error):
                raise
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        if not self.outlives_reader:
            raise OutputClosed
        drop_output()


class _Aside(_Console):
    """A console that ignores a closed stream: a training does not end for want of messages."""

    def on_broken_pipe(self) -> NoReturn:
        raise OutputClosed

    def _check_buffer(self) -> None:
        with suppress(OSError, OutputClosed):
            super()._check_buffer()


@cache
def out() -> Console:
    """The console on stdout. On a terminal it wraps between words; elsewhere a line stays a line."""
    return _Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())


@cache
def err() -> Console:
    """The console on stderr."""
    return _Aside(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stderr.isatty(), stderr=True)


def width() -> int | None:
    """The characters in a line of a table on stdout: the terminal's, or COLUMNS; None, for any number, elsewhere."""
    return out().width if out().is_terminal or "COLUMNS" in os.environ else None


def outlive_reader() -> None:
    """Continue without output when the reader of stdout has closed it."""
    _Console.outlives_reader = True


def write(text: str) -> None:
    """Write text to stdout unchanged and flush it: the rows of csv and JSON lines."""
    try:
        out().file.write(text)
        out().file.flush()
    except OSError as error:
        _on_error(error)


def write_bytes(data: bytes) -> None:
    """Write bytes to stdout unchanged, independent of the locale: a user's own data."""
    try:
        out().file.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        _on_error(error)


def _on_error(error: OSError) -> None:
    """What an error of writing to stdout does: where its reader has closed it, no harm."""
    if not is_closed_pipe(error):
        raise error
    out().on_broken_pipe()


def error(what: TwolayerError | str) -> None:
    """Print one line on stderr: `error: `, where it is, what is wrong, and what to do.

    For a config it is a line for each problem, and for a table with several they stand below, indented.
    """
    if isinstance(what, ConfigError):
        lines = [str(problem) for problem in what.problems]
    else:
        lines = [str(what) if isinstance(what, TableError) else safe(what)]
    for line in lines:
        err().print(Text.assemble(("error", "bold red"), f": {line}"))
    if isinstance(what, TableError) and what.command:
        works(what.command)


def note(text: str) -> None:
    """Print one line on stderr."""
    err().print(Text(safe(text)))


def works(command: str) -> None:
    """Print on stderr the command that works: in one line, also where it is long, so that it can be copied."""
    err().print(Text(f"this works: {safe(command)}"), soft_wrap=True)


def say(text: str) -> None:
    """Print text on stdout, line by line."""
    out().print(Text("\n".join(map(safe, text.split("\n")))))


def rows(
    names: Sequence[str],
    values: Iterable[Sequence[Any]],
    form: Format,
    *,
    drop: Sequence[str] = (),
    header: bool = True,
) -> None:
    """A small table on stdout: aligned columns, or csv (without `header` only its rows), or JSON lines.

    Where the aligned columns are wider than the terminal, or than COLUMNS, those of `drop` are left out, the first one
    first, and a line below the table names them. Long text is then wrapped, and what is still too wide is left out from
    the right; no number and no name of a column is ever cut or wrapped. A pipe or a file without COLUMNS gets all.
    """
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        if header:
            writer.writerow(names)
        writer.writerows(map(_csv_cell, row) for row in values)
        write(buffer.getvalue())
    elif form == "jsonl":
        write("".join(json.dumps(dict(zip(names, map(_json, row), strict=True))) + "\n" for row in values))
    else:
        table([list(map(_cell, row)) for row in (names, *values)], [_cell(name) for name in drop])


def not_shown(names: Sequence[str]) -> Text:
    """The line below a table that names the columns that were left out."""
    what = "the terminal" if out().is_terminal else f"COLUMNS={out().width}"
    return Text(f"columns not shown: {', '.join(names)} ({what} is too narrow)", "dim")


def table(lines: Sequence[Sequence[str]], drop: Sequence[str] = (), spare: Sequence[str] = ()) -> None:
    """Print cells of safe text in aligned columns, fitted as in `rows`; the first line has the names.

    Where wrapping does not suffice, the columns of `spare` are left out before those on the right.
    """
    names, room = lines[0], width()
    columns = list(zip(*lines, strict=True))
    widths, kept = [max(map(cell_len, column)) for column in columns], list(range(len(columns)))
    if room is not None:
        kept = fit(widths, room, [names.index(name) for name in drop if name in names])
        wrapped = wrapped_widths(columns, widths, kept, room)
        order = [place for place, i in enumerate(kept) if names[i] in spare]
        narrow = fit([wrapped[i] for i in kept], room, [*order, *range(len(kept) - 1, 0, -1)])
        kept = [kept[i] for i in narrow]
        widths = wrapped_widths(columns, widths, kept, room)
    wide = [widths[i] for i in kept]
    header, *others = ([*aligned([line[i] for i in kept], wide, out())] for line in lines)
    for text in header:
        out().print(Text(text, "bold"))
    write("".join(f"{text}\n" for texts in others for text in texts))  # at once: a call of rich a line takes seconds
    if len(kept) < len(names):
        out().print(not_shown([name for i, name in enumerate(names) if i not in kept]))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else safe(value)  # as YAML and JSON write it


def _csv_cell(value: Any) -> str:
    return no_formula(_cell(value)) if isinstance(value, str) else _cell(value)


def _json(value: Any) -> Any:
    return json_number(value) if isinstance(value, float) else value


def json_document(value: Any) -> None:
    """A JSON document on stdout."""
    write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def prepare_streams() -> None:
    """Make sure that printing never fails: neither on a closed stream nor on a character outside the encoding."""
    for name, smallest in (("COLUMNS", _MIN_WIDTH), ("LINES", _MIN_HEIGHT)):  # which rich and the help read
        given = os.environ.get(name, str(smallest))
        if not (given.isdecimal() and len(given) < 5 and int(given) >= smallest):
            del os.environ[name]
    # In the C locale Python uses UTF-8, which the terminal may not. ASCII is readable on all terminals.
    plain = codecs.lookup(locale.getencoding()).name == "ascii" and "PYTHONIOENCODING" not in os.environ
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell (>&-)
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 it stays open
        stream: TextIO = getattr(sys, name)
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace", **({"encoding": "ascii"} if plain else {}))


def flushed(code: int) -> int:
    """Flush the streams now: a failure at the interpreter's exit would print its own message and change the code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            drop_output(stream)
    return code


def drop_output(stream: TextIO | None = None) -> None:
    """Discard what a stream (default: stdout) still buffers."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, (stream or sys.stdout).fileno())
    os.close(sink)
