"""The table of losses and the progress bar of a training."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.segment import ControlType, Segment
from rich.style import Style
from rich.text import Text

from twolayer.cli.columns import fit
from twolayer.cli.terminal import Format, OutputClosed, err, not_shown, out, width, write
from twolayer.runs.history import Block, csv_header, csv_row, jsonl_row

_CTRL_C = 3  # columns beside the bar, in which a terminal writes ^C: on the next line it could not be erased
_WIDE, _NARROW = 14, 12  # columns of numbers to six digits
_DROP = ("lr", "val_accuracy", "accuracy", "val_loss")  # columns that a narrow screen leaves out, the first one first


class Bar:
    """A progress bar on stderr if that is a terminal: one line, to be erased before anything else is printed."""

    def __init__(self, total: int, *, hidden: bool = False) -> None:
        self.total = total
        self.is_shown = not hidden and sys.stderr.isatty() and not err().is_dumb_terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.erase()

    def erase(self) -> None:
        """Erase the line."""
        if self.is_shown:
            err().control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))

    def draw(self, done: int, text: str) -> None:
        """Show how much of the total is done, unless all of it is."""
        if not self.is_shown or done == self.total:
            return
        count = f" {done:>{len(str(self.total))}}/{self.total}  {text}"
        width = err().width - _CTRL_C
        room = max(0, min(40, width - len(count)))
        full, dash = room * done // self.total, "-" if err().options.ascii_only else "━"
        rest = " " if err().no_color or err().color_system is None else dash  # without colour all dashes look the same
        line = Text.assemble((dash * full, "green"), (rest * (room - full), "bright_black"), count)
        line.truncate(width)
        with err():  # in one write: a terminal never shows the line erased
            self.erase()
            err().print(line, end="", soft_wrap=False, no_wrap=True)


class LossView:
    """Shows a training while it runs: the rows on stdout, a progress bar on stderr if that is a terminal.

    A context manager: entering prints the head of the table, leaving erases the bar and closes the table, even after an
    error. A terminal gets the columns that fit on it, as does COLUMNS; elsewhere all are printed.
    """

    def __init__(
        self,
        columns: Sequence[str],
        epochs: int,
        log_every: int = 1,
        form: Format = "table",
        *,
        quiet: bool = False,
        bar: bool = True,
    ) -> None:
        self.columns, self.epochs, self.log_every, self.form, self.quiet = columns, epochs, log_every, form, quiet
        self.places, self.widths = fitted(columns, epochs, width())
        self.done = 0
        self.bar = Bar(epochs, hidden=quiet or not bar)

    def __enter__(self) -> Self:
        if self.quiet:
            return self
        if self.form == "table":
            if self.log_every > 1:
                out().print(f"only one row in {self.log_every} is printed; --log-every 1 prints all")
            names = (f"{self.columns[i]:>{width}}" for i, width in zip(self.places, self.widths, strict=True))
            out().print(Text(" " + " ".join(names), "bold"), soft_wrap=True)
            self._rule()
        elif self.form == "csv":
            write(csv_header(self.columns))
        return self

    def show(self, block: Block, updates: tuple[int, int] = (0, 1)) -> None:
        """Print the block's rows, and advance the bar; `updates` are those of the next epoch that are done, of all."""
        self.done = block.last
        within = f"epoch {self.done + 1}: update {updates[0]:,} of {updates[1]:,}" if updates[0] else ""
        if self.quiet or not block.losses:
            self.bar.draw(self.done, within)
            return
        self.bar.erase()
        if self.form == "table":
            rows = ((row[0], *(row[i] for i in self.places[1:])) for row in block.every(self.log_every))
            out().print(LossRows(rows, self.widths), end="", soft_wrap=True)
        elif self.form == "csv":
            write("".join(map(csv_row, block.every(self.log_every))))
        else:
            write("".join(jsonl_row(self.columns, row) for row in block.every(self.log_every)))
        self.bar.draw(self.done, within or f"loss {block.losses[-1]:.6g}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.erase()
        if self.form == "table" and not self.quiet and not isinstance(error, (OSError, OutputClosed)):
            self._rule()
            if left_out := [name for i, name in enumerate(self.columns) if i not in self.places]:
                out().print(not_shown(left_out))

    def _rule(self) -> None:
        dash = "-" if out().options.ascii_only else "─"
        out().print(Text(dash * (sum(self.widths) + len(self.widths)), "dim"), soft_wrap=True)


def fitted(names: Sequence[str], last: int, room: int | None) -> tuple[list[int], list[int]]:
    """The columns of a table of losses that fit into `room` characters, by index, and their widths.

    A space is printed before each. The first and the loss are never left out; `last` is the last row's number.
    """
    first, places = max(len(names[0]), len(str(last))), list(range(len(names)))
    widths = [first, *(_WIDE for _ in names[1:])]
    if room is None or sum(widths) + len(widths) <= room:
        return places, widths
    widths = [first, *(max(_NARROW, len(name)) for name in names[1:])]
    places = fit([width + 1 for width in widths], room, [names.index(name) for name in _DROP if name in names], gap=0)
    return places, [widths[i] for i in places]


class LossRows:
    """Rows of a table of losses, rendered at once: a `rich.table.Table` is twenty times slower."""

    def __init__(self, rows: Iterable[Sequence[float]], widths: Sequence[int]) -> None:
        self.rows, self.widths = rows, widths

    def lines(self) -> Iterator[str]:
        """The rows, a line each."""
        first, *others = self.widths
        line = (f" {{:>{first}}}" + "".join(f" {{:>#{width}.6g}}" for width in others)).format
        return (line(*row) for row in self.rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment("".join(line + "\n" for line in self.lines()), Style.null())
