"""A saved run on the screen: its summary, its curve and its table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import ConsoleDimensions
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from twolayer.cli.progress import LossRows, fitted
from twolayer.cli.terminal import not_shown, out, width
from twolayer.formatting import microseconds_unit
from twolayer.reporting import text_chart
from twolayer.reporting.downsampling import Scale, evenly, spans_decades
from twolayer.reporting.summary import summary_lines
from twolayer.runs.history import Reader
from twolayer.runs.saved_run import SavedRun

_MIN_CURVE_WIDTH = 44  # characters of a curve beside the table
_AROUND_CURVE = 4  # lines: the title, the frame and the numbers below it
_AROUND_TABLE = 4  # lines: the head, two rules, and the names of columns left out
_MIN_HEIGHT, _MAX_HEIGHT = 3, 24  # lines of a curve
_PIPE_HEIGHT = 40  # lines for curve and table at a pipe
_DRAWN = ("loss", "val_loss")


@dataclass(frozen=True)
class _Columns:
    """The columns of the table that fit the screen: their indices in a row, their widths, and those left out."""

    places: tuple[int, ...]
    widths: list[int]
    left_out: tuple[str, ...]

    def rows(self, history: Reader, places: Iterable[int]) -> LossRows:
        """The rows of the history at these indices."""
        whole = (history.row(place) for place in places)
        return LossRows(((row[0], *(row[i] for i in self.places[1:])) for row in whole), self.widths)

    def head(self, history: Reader) -> list[Text]:
        """The lines above the rows."""
        names = [history.unit, *history.columns]
        cells = (f"{names[place]:>{width}}" for place, width in zip(self.places, self.widths, strict=True))
        return [Text(" " + " ".join(cells), "bold"), self.rule()]

    def rule(self, label: str = "") -> Text:
        """The line that ends the head, and the table; the label stands in it, if there is space."""
        width = sum(self.widths) + len(self.widths)
        label = f" {label} " if label and len(label) + 4 <= width else ""
        return Text(label.center(width, "-" if out().options.ascii_only else "─"), "dim")

    def foot(self, shown: int, count: int) -> list[Text]:
        """The lines below the rows, which say how many of all rows are shown."""
        label = f"{shown} of {count:,} rows" if shown < count else ""
        return [self.rule(label), *([not_shown(self.left_out)] if self.left_out else [])]


class Frame:
    """Lines painted over the previous ones in one write, without erasing them first, so that nothing flickers."""

    def __init__(self) -> None:
        self.count, self.size = 0, out().size

    def paint(self, lines: list[Text], size: ConsoleDimensions) -> None:
        """Replace the previous lines by these, which were made for a terminal of this size."""
        console, surplus = out(), max(0, self.count - len(lines))
        with console:
            if self.size != size:  # the terminal has wrapped the old lines again, so their position is unknown
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
    """All lines, as many as fit the screen; at most `height` where that is given."""
    lines = list(_summary(run, each))
    if count := len(run.history):
        columns = fit_columns(run.history)
        beside = out().width - sum(columns.widths) - len(columns.widths) - 2
        is_beside = with_table and beside >= _MIN_CURVE_WIDTH
        # One line is empty, and one is for the prompt.
        room = out().height - 2 - len(lines) if out().is_terminal else _PIPE_HEIGHT
        size, count_shown = _heights(room, is_beside=is_beside, with_table=with_table)
        drawn = _curve(run, scale, beside if is_beside else out().width, size) if size else []
        rows = list[Text]()
        if count_shown:
            some = list(columns.rows(run.history, evenly(count, count_shown)).lines())
            rows = [*columns.head(run.history), *map(Text, some), *columns.foot(len(some), count)]
        lines += [
            Text(),
            *(_beside(drawn, rows) if is_beside else [*drawn, *([Text()] if drawn and rows else []), *rows]),
        ]
    yield from lines[: height - 1] if height else lines


def _heights(room: int, *, is_beside: bool, with_table: bool) -> tuple[int, int]:
    """The number of lines, of `room`, for the curve inside its frame, and for the rows of the table; 0 for none."""
    if is_beside:
        size = max(_MIN_HEIGHT, min(room - _AROUND_CURVE, _MAX_HEIGHT))
        return size, size
    if not with_table:
        return max(_MIN_HEIGHT, min(room - _AROUND_CURVE, _MAX_HEIGHT // 2)), 0
    free = room - _AROUND_CURVE - 1 - _AROUND_TABLE
    if free >= _MIN_HEIGHT + 2:
        size = min(max(_MIN_HEIGHT, free // 2), _MAX_HEIGHT)
        return size, free - size
    if room >= _MIN_HEIGHT + _AROUND_CURVE:
        return room - _AROUND_CURVE, 0
    return 0, max(2, room - _AROUND_TABLE)


def _summary(run: SavedRun, each: float | None) -> Iterator[Text]:
    found = summary_lines(run, each, microseconds_unit(out().options.ascii_only))
    indent = max(len(name) for name, _ in found) + 2
    for name, sentence in found:
        for number, line in enumerate(Text(sentence).wrap(out(), max(10, out().width - indent))):
            line.rstrip()
            yield Text.assemble((f"{'' if number else name:<{indent}}", "bold"), line)


def _curve(run: SavedRun, scale: Scale, width: int, height: int) -> list[Text]:
    """The title and the curve, or the reason why there is none."""
    curves = {name: run.history.columns[name] for name in _DRAWN if name in run.history.columns}
    ascii_only, colour = out().options.ascii_only, out().color_system is not None and not out().no_color
    log = scale == "log" or (scale == "auto" and spans_decades(v for values in curves.values() for v in values))
    drawn = text_chart.draw(curves, width, height, log=log, colour=colour, ascii_only=ascii_only)
    if not drawn:
        what = "above zero, so there is nothing to draw on a log scale" if log else "finite, so there is no curve"
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


def fit_columns(history: Reader) -> _Columns:
    """The columns of the history's table that fit the terminal, or COLUMNS."""
    names = [history.unit, *history.columns]
    places, widths = fitted(names, len(history), width())
    return _Columns(tuple(places), widths, tuple(name for i, name in enumerate(names) if i not in places))


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
