"""What the user sees: the result on stdout, progress and messages on stderr."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.segment import ControlType, Segment
from rich.style import Style
from rich.text import Text

from twolayer.cli import process
from twolayer.errors import ConfigError, TwolayerError
from twolayer.formatting import duration, safe
from twolayer.runs.history import Block, csv_header, csv_row, jsonl_row

Format = Literal["table", "csv", "jsonl"]

_LOSS_WIDTH = 14


class OutputClosed(Exception):  # noqa: N818 it is no error: the reader has enough
    """Whoever read stdout has closed it. (typer takes a BrokenPipeError for itself, and exits with 1.)"""


class _Console(Console):
    outlives_reader = False

    def on_broken_pipe(self) -> None:
        if not self.outlives_reader:
            raise OutputClosed
        process.drop_output()


class _Aside(_Console):
    """A console whose stream may be gone: messages and progress are not worth a training."""

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


def outlive_reader() -> None:
    """Go on in silence when whoever read stdout has closed it."""
    _Console.outlives_reader = True


def write(text: str) -> None:
    """Text on stdout as it is, at once: the rows of csv and JSON lines."""
    try:
        out().file.write(text)
        out().file.flush()
    except BrokenPipeError:
        out().on_broken_pipe()


def write_bytes(data: bytes) -> None:
    """Bytes on stdout as they are, whatever the locale: a user's own data."""
    try:
        out().file.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        out().on_broken_pipe()


def error(what: TwolayerError | str) -> None:
    """One line on stderr; for a config, one line for each problem, led by its place as compilers do."""
    if isinstance(what, ConfigError):
        for problem in what.problems:
            key = f"{safe(problem.key)}: " if problem.key else ""
            err().print(
                Text.assemble((safe(problem.origin.place), "bold red"), "  ", (key, "bold"), safe(problem.message))
            )
    else:
        err().print(Text.assemble(("error", "bold red"), f": {safe(what)}"))


def note(text: str) -> None:
    """One line on stderr."""
    err().print(Text(safe(text)))


def say(text: str) -> None:
    """Text on stdout, line by line as it is."""
    out().print(Text("\n".join(map(safe, text.split("\n")))))


def rows(names: Sequence[str], values: Iterable[Sequence[Any]], form: Format) -> None:
    """A small table on stdout: aligned columns, or csv, or JSON lines."""
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(map(_cell, row) for row in values)
        write(buffer.getvalue())
    elif form == "jsonl":
        write("".join(json.dumps(dict(zip(names, map(_json, row), strict=True))) + "\n" for row in values))
    else:
        lines = [list(map(_cell, row)) for row in (names, *values)]
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        for number, line in enumerate(lines):
            text = "  ".join(set_cell_size(item, width) for item, width in zip(line, widths, strict=True)).rstrip()
            out().print(Text(text, "" if number else "bold"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else safe(value)  # as YAML and JSON write it


def _json(value: Any) -> Any:
    """The value, as far as JSON has it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_document(value: Any) -> None:
    """A JSON document on stdout."""
    write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


class Bar:
    """A progress bar on stderr while a terminal watches: one line, to be erased before anything else is printed."""

    def __init__(self, total: int, *, hidden: bool = False) -> None:
        self.total = total
        self.is_shown = not hidden and sys.stderr.isatty() and not err().is_dumb_terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.erase()

    def erase(self) -> None:
        """Leave nothing behind."""
        if self.is_shown:
            err().control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))

    def draw(self, done: int, text: str) -> None:
        """Show how much of the total is done, unless all is."""
        if not self.is_shown or done == self.total:
            return
        self.erase()
        count = f" {done:>{len(str(self.total))}}/{self.total}  {text}"
        room = max(0, min(40, err().width - len(count) - 1))
        full, dash = room * done // self.total, "-" if err().options.ascii_only else "━"
        rest = " " if err().no_color or err().color_system is None else dash  # without colour all dashes are alike
        line = Text.assemble((dash * full, "green"), (rest * (room - full), "bright_black"), count)
        line.truncate(err().width - 1)
        err().print(line, end="", soft_wrap=False, no_wrap=True)


class LossView:
    """Shows a training while it runs: the rows on stdout, a progress bar on stderr while a terminal watches.

    A context manager: entering prints the table's head, leaving takes the bar away and closes the table,
    whatever ended the training.
    """

    def __init__(
        self, columns: Sequence[str], epochs: int, log_every: int = 1, form: Format = "table", *, quiet: bool = False
    ) -> None:
        self.columns, self.epochs, self.log_every, self.form, self.quiet = columns, epochs, log_every, form, quiet
        self.widths = [max(len(columns[0]), len(str(epochs))), *(_LOSS_WIDTH for _ in columns[1:])]
        self.done = 0
        self.bar = Bar(epochs, hidden=quiet)

    def __enter__(self) -> Self:
        if self.quiet:
            return self
        if self.form == "table":
            names = (f"{name:>{width}}" for name, width in zip(self.columns, self.widths, strict=True))
            out().print(Text(" " + " ".join(names), "bold"))
            self._rule()
        elif self.form == "csv":
            write(csv_header(self.columns))
        return self

    def show(self, block: Block) -> None:
        """Print the block's rows, and move the bar on."""
        self.done = block.last
        if self.quiet or not block.losses:
            return
        self.bar.erase()
        if self.form == "table":
            out().print(Rows(block.every(self.log_every), self.widths), end="")
        elif self.form == "csv":
            write("".join(map(csv_row, block.every(self.log_every))))
        else:
            write("".join(jsonl_row(self.columns, row) for row in block.every(self.log_every)))
        self.bar.draw(self.done, f"loss {block.losses[-1]:.6g}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.erase()
        if self.form == "table" and not self.quiet and not isinstance(error, (OSError, OutputClosed)):
            self._rule()

    def _rule(self) -> None:
        dash = "-" if out().options.ascii_only else "─"
        out().print(Text(dash * (sum(self.widths) + len(self.widths)), "dim"))


class Rows:
    """Rows of a table of losses, rendered at once: a `rich.table.Table` takes twenty times as long."""

    def __init__(self, rows: Iterable[tuple[int, *tuple[float, ...]]], widths: Sequence[int]) -> None:
        self.rows, self.widths = rows, widths

    def lines(self) -> Iterator[str]:
        """The rows, a line each."""
        first, *others = self.widths
        line = (f" {{:>{first}}}" + "".join(f" {{:>#{width}.6g}}" for width in others)).format
        return (line(*row) for row in self.rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment("".join(line + "\n" for line in self.lines()), Style.null())


def measured(figures: Sequence[Mapping[str, Any]], form: Format) -> None:
    """What `bench` has measured, an engine a row; the one that `auto` takes stands out."""
    if form != "table":
        rows(list(figures[0]), [list(row.values()) for row in figures], form)
        return
    unit = "us" if out().options.ascii_only else "µs"
    lines = [["engine", "threads", "median", "least", "most", "set-up", "GFLOP/s", "share", "agrees"]]
    for number, row in enumerate(figures):
        lines.append(
            [
                row["name"],
                str(row["threads"]),
                *(f"{row[key]:.4g}" for key in ("microseconds", "least", "most")),
                duration(row["set_up"] / 1e6, unit),
                f"{row['gflops']:.3g}",
                f"{row['share']:.0%}",
                ("yes" if row["agrees"] else "NO") if number else "itself",
            ]
        )
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for number, (name, *cells, agrees) in enumerate(lines):
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=False))
        is_bold = not number or figures[number - 1]["auto"]
        out().print(Text(f"{name:<{widths[0]}}  {numbers}  {agrees}", "bold" if is_bold else ""))


def about(config: str, device: str, engine: str, threads: int | str, seed: int, *, stderr: bool = False) -> None:
    """The line on what is trained and what computes it."""
    where = err() if stderr else out()
    where.print(Text(safe(f"config {config}, device {device}, engine {engine}, threads {threads}, seed {seed}")))


def summary(
    where: str, scores: Mapping[str, float], seconds: float, rows: int, unit: str = "iteration", *, stderr: bool = False
) -> None:
    """The lines below the table: the scores of the weights that are kept, and the time."""
    console = err() if stderr else out()
    micro = "us" if console.options.ascii_only else "µs"
    each = f", {duration(seconds / rows, micro)} an {unit}" if rows else ""
    loss, *others = (f"{value:#.6g}" for value in scores.values())
    more = "".join(f", {name} {value}" for name, value in zip(list(scores)[1:], others, strict=True))
    console.print(Text(f"loss after {where}  {loss}{more}\ntraining time  {duration(seconds, micro)}{each}"))
