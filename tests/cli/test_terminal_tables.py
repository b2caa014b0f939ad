"""Small tables on the screen: what does not fit is left out or wrapped, and never a number cut."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from twolayer.cli import terminal

NAMES = ("run", "status", "loss", "val_loss", "note")
ROWS = [("default-1", "completed", 0.123456, 0.234567, "a note of some words"), ("b", "killed", 1e-300, None, "")]
TEXT = st.text("ab\x1b日 ", max_size=40)


def printed(
    width: int, rows: Sequence[tuple[object, ...]], drop: tuple[str, ...] = (), *, is_terminal: bool = True
) -> list[str]:
    """The lines of a table on a screen of a width."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=is_terminal, color_system=None, soft_wrap=not is_terminal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "out", lambda: console)
        terminal.rows(NAMES, rows, "table", drop=drop)
    return file.getvalue().splitlines()


def test_where_there_is_room_nothing_is_left_out() -> None:
    assert printed(80, ROWS, ("note",)) == [
        "run        status     loss      val_loss  note",
        "default-1  completed  0.123456  0.234567  a note of some words",
        "b          killed     1e-300",
    ]


def test_columns_make_room_in_the_order_given_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "given")  # by it, `Console` has its width here
    for is_terminal, what in ((True, "the terminal"), (False, "COLUMNS={}")):
        lines = printed(40, ROWS, ("note", "val_loss", "status"), is_terminal=is_terminal)
        assert lines[:3] == [
            "run        status     loss      val_loss",
            "default-1  completed  0.123456  0.234567",
            "b          killed     1e-300",
        ]
        assert " ".join(map(str.strip, lines[3:])) == f"columns not shown: note ({what.format(40)} is too narrow)"
        lines = printed(39, ROWS, ("note", "val_loss", "status"), is_terminal=is_terminal)
        assert lines[:3] == [
            "run        status     loss",
            "default-1  completed  0.123456",
            "b          killed     1e-300",
        ]
        names = "val_loss, note"
        assert " ".join(map(str.strip, lines[3:])) == f"columns not shown: {names} ({what.format(39)} is too narrow)"


def test_on_a_terminal_long_text_is_wrapped_between_words() -> None:
    assert printed(50, ROWS) == [
        "run        status     loss      val_loss  note",
        "default-1  completed  0.123456  0.234567  a note",
        "                                          of some",
        "                                          words",
        "b          killed     1e-300",
    ]


def test_a_pipe_and_a_file_get_all_columns_and_a_line_stays_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert printed(20, ROWS, ("note", "val_loss"), is_terminal=False) == printed(200, ROWS)


@given(
    st.integers(30, 120),
    st.lists(
        st.tuples(st.text("ab\x1b日", max_size=12), st.floats(), st.floats(), st.floats(), st.text("ab ")), max_size=3
    ),
    st.permutations(NAMES[1:]),
)
def test_no_line_is_wider_than_the_screen_and_no_number_is_cut(
    width: int, rows: Sequence[tuple[object, ...]], drop: list[str]
) -> None:
    for given_drop in ((), tuple(drop)):
        lines = printed(width, rows, given_drop)
        assert max(map(cell_len, lines)) <= width or len(lines[0].split()) == 1
        named = " ".join(" ".join(lines).split()).partition("columns not shown: ")[2]
        left_out = named.removesuffix(" (the terminal is too narrow)").split(", ")
        assert lines[0].split() == [name for name in NAMES if name not in left_out]
        for row in rows:
            for name, value in zip(NAMES, row, strict=True):
                assert not isinstance(value, float) or name in left_out or any(str(value) in line for line in lines)


def test_a_table_of_thousands_of_rows_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich takes a millisecond to print a line."""
    calls = []
    monkeypatch.setattr(Console, "print", lambda *texts, own=Console.print, **more: calls.append(own(*texts, **more)))
    few, many = [("a", "b", 1.5, None, "")] * 3, [("a", "b", 1.5, None, "")] * 3000
    counts = []
    for rows in (few, many):
        calls.clear()
        assert len(printed(80, rows)) == 1 + len(rows)
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0
