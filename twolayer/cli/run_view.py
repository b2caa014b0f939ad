"""A saved run on the screen: in brief, its curve and its table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import ConsoleDimensions
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from twolayer.cli.progress import LossRows
from twolayer.cli.terminal import out
from twolayer.formatting import microseconds_unit
from twolayer.reporting import text_chart
from twolayer.reporting.downsampling import Scale, evenly, spans_decades
from twolayer.reporting.summary import summary_lines
from twolayer.runs.history import Reader
from twolayer.runs.saved_run import SavedRun

_NARROW, _WIDE = 12, 15  # a column of numbers to six digits, with the space before it
_LEAST_CURVE = 44  # columns of a curve that has the table beside it
_AROUND_CURVE = 4  # lines: the title, the frame and the numbers below it
_AROUND_TABLE = 4  # lines: the head, two rules, and what there is no room for
_LOWEST, _HIGHEST = 3, 24  # of a curve
_AT_A_PIPE = 40
_CURVED = ("loss", "val_loss")
_LEAST_FIRST = ("lr", "val_accuracy", "accuracy", "val_loss")  # columns, in the order in which they make room


@dataclass(frozen=True)
class _Columns:
    """The columns of a table that there is room for: their places in a row, their widths, and what is left out."""

    places: tuple[int, ...]
    widths: list[int]
    left_out: tuple[str, ...]

    def rows(self, history: Reader, places: Iterable[int]) -> LossRows:
        """The rows in such places of the history."""
        whole = (history.row(place) for place in places)
        return LossRows(((row[0], *(row[i] for i in self.places[1:])) for row in whole), self.widths)

    def head(self, history: Reader) -> list[Text]:
        """What stands above the rows."""
        names = [history.unit, *history.columns]
        cells = (f"{names[place]:>{width}}" for place, width in zip(self.places, self.widths, strict=True))
        return [Text(" " + " ".join(cells), "bold"), self.rule()]

    def rule(self) -> Text:
        """The line that ends the head, and the table."""
        return Text(("-" if out().options.ascii_only else "─") * (sum(self.widths) + len(self.widths)), "dim")

    def foot(self) -> list[Text]:
        """What stands below the rows."""
        missing = ", ".join(self.left_out)
        return [self.rule(), *([Text(f"no room for {missing}", "dim")] if missing else [])]


class Frame:
    """Lines that are painted over those before, in one write, and never erased first: nothing flickers."""

    def __init__(self) -> None:
        self.count, self.size = 0, out().size

    def paint(self, lines: list[Text], size: ConsoleDimensions) -> None:
        """Put the lines, made for a terminal of such a size, in the place of the ones before."""
        console, surplus = out(), max(0, self.count - len(lines))
        with console:
            if self.size != size:  # what stood there has been broken anew, and nobody knows where it begins
                console.control(Control(ControlType.CLEAR, ControlType.HOME))
                surplus = 0
            elif self.count:
                console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.CURSOR_UP, self.count)))
            for line in [*lines, *[Text()] * surplus]:
                console.print(line, end="", no_wrap=True, crop=True)
                console.control(Control((ControlType.ERASE_IN_LINE, 0)))
                console.print()
            if surplus:
                console.control(Control((ControlType.CURSOR_UP, surplus)))
        self.count, self.size = len(lines), size


def view(
    run: SavedRun, scale: Scale, *, with_table: bool = True, each: float | None = None, height: int = 0
) -> Iterator[Text]:
    """The lines of the whole, as many as the screen has room for; never more than a `height` that is given."""
    lines = list(_brief(run, each))
    if count := len(run.history):
        columns = fit_columns(run.history, out().width)
        beside = out().width - sum(columns.widths) - len(columns.widths) - 2
        is_beside = with_table and beside >= _LEAST_CURVE
        # Below an empty line, and with one for the prompt; at a pipe there is no screen to be sparing of.
        room = out().height - 2 - len(lines) if out().is_terminal else _AT_A_PIPE
        size, most = _shared(room, is_beside=is_beside, with_table=with_table)
        drawn = _curve(run, scale, beside if is_beside else out().width, size) if size else []
        rows = list[Text]()
        if most:
            some = columns.rows(run.history, evenly(count, most)).lines()
            rows = [*columns.head(run.history), *map(Text, some), *columns.foot()]
        lines += [
            Text(),
            *(_beside(drawn, rows) if is_beside else [*drawn, *([Text()] if drawn and rows else []), *rows]),
        ]
    yield from lines[: height - 1] if height else lines


def _shared(room: int, *, is_beside: bool, with_table: bool) -> tuple[int, int]:
    """How many lines of a room are the curve's, within its frame, and how many the table's rows; 0 for neither."""
    if is_beside:
        size = max(_LOWEST, min(room - _AROUND_CURVE, _HIGHEST))
        return size, size
    if not with_table:
        return max(_LOWEST, min(room - _AROUND_CURVE, _HIGHEST // 2)), 0
    free = room - _AROUND_CURVE - 1 - _AROUND_TABLE
    if free >= _LOWEST + 2:
        size = min(max(_LOWEST, free // 2), _HIGHEST)
        return size, free - size
    if room >= _LOWEST + _AROUND_CURVE:
        return room - _AROUND_CURVE, 0
    return 0, max(2, room - _AROUND_TABLE)


def _brief(run: SavedRun, each: float | None) -> Iterator[Text]:
    found = summary_lines(run, each, microseconds_unit(out().options.ascii_only))
    indent = max(len(name) for name, _ in found) + 2
    for name, sentence in found:
        for number, line in enumerate(Text(sentence).wrap(out(), max(10, out().width - indent))):
            line.rstrip()
            yield Text.assemble((f"{'' if number else name:<{indent}}", "bold"), line)


def _curve(run: SavedRun, scale: Scale, width: int, height: int) -> list[Text]:
    """The title and the curve, or why there is none."""
    curves = {name: run.history.columns[name] for name in _CURVED if name in run.history.columns}
    ascii_only, colour = out().options.ascii_only, out().color_system is not None and not out().no_color
    log = scale == "log" or (scale == "auto" and spans_decades(v for values in curves.values() for v in values))
    drawn = text_chart.draw(curves, width, height, log=log, colour=colour, ascii_only=ascii_only)
    if not drawn:
        what = "above zero: there is nothing to draw on a log scale" if log else "a finite number: there is no curve"
        return [Text(f"no loss is {what}")]
    marks = text_chart.ASCII_MARKS if ascii_only else ("━", "━") if colour else text_chart.MARKS
    names = [
        Text.assemble((mark, tone if colour else ""), f" {name}")
        for mark, tone, name in zip(marks, text_chart.COLOURS, curves, strict=False)
    ]
    title = Text("  ").join(names) if len(names) > 1 else Text(next(iter(curves)))
    title.append(f" by {run.history.unit}{', log scale' if log else ''}")
    title.pad_left(drawn[0].index("+" if ascii_only else "┌"))
    return [title, *(Text.from_ansi(line) for line in drawn)]


def fit_columns(history: Reader, width: int) -> _Columns:
    """The columns of the history's table that such a width has room for."""
    names = [history.unit, *history.columns]
    first = max(len(history.unit), len(str(len(history))))
    widths = {name: max(_NARROW, len(name) + 1) for name in names[1:]}
    if first + 1 + len(widths) * _WIDE <= width:
        widths = dict.fromkeys(widths, _WIDE)
    for name in _LEAST_FIRST:
        if first + 1 + sum(widths.values()) > width:
            widths.pop(name, None)
    return _Columns(
        tuple(i for i, name in enumerate(names) if not i or name in widths),
        [first, *(item - 1 for item in widths.values())],
        tuple(name for name in names[1:] if name not in widths),
    )


def _beside(left: list[Text], right: list[Text]) -> list[Text]:
    """Two columns of lines as one."""
    width = max((line.cell_len for line in left), default=-2) + 2
    lines = []
    for number in range(max(len(left), len(right))):
        line = left[number].copy() if number < len(left) else Text()
        line.pad_right(width - line.cell_len)
        lines.append(line + right[number] if number < len(right) else line)
        lines[-1].rstrip()
    return lines
