from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twolayer import console
from twolayer.errors import ConfigError, Origin, Problem, TwolayerError
from twolayer.history import Block


@given(st.text())
def test_safe_text_is_printable_and_printable_text_is_left_alone(text: str) -> None:
    assert console.safe(text).isprintable()
    if text.isprintable():
        assert console.safe(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m", r"a\x1b[31m"),
        ("a\nb", r"a\nb"),
        ("\x9b", r"\x9b"),
        ("\u202e", r"\u202e"),
        ("\udcff", r"\udcff"),
        ("é[red]", "é[red]"),
    ],
)
def test_what_a_terminal_could_act_on_is_written_as_an_escape(text: str, shown: str) -> None:
    assert console.safe(text) == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5e-5, "25 µs"),
        (0.0123, "12.3 ms"),
        (1.5, "1.5 s"),
        (61.0, "61 s"),
        (200.0, "3 min 20 s"),
        (7320.0, "2 h 2 min"),
    ],
)
def test_durations_are_written_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_an_error_is_a_line_and_a_config_error_a_line_for_each_problem(capsys: pytest.CaptureFixture[str]) -> None:
    console.error(TwolayerError("it\ncannot [be]"))
    console.error(ConfigError([Problem(Origin("a.yaml", 2, 5), "lr", "wrong"), Problem(Origin("b"), "", "gone")]))
    assert capsys.readouterr().err == "error: it\\ncannot [be]\na.yaml:2:5  lr: wrong\nb  gone\n"


def test_the_table_streams_block_by_block_in_columns_of_a_fixed_width(capsys: pytest.CaptureFixture[str]) -> None:
    with console.LossView(("iteration", "loss"), 1000, 2) as view:
        assert capsys.readouterr().out == " iteration           loss\n" + "─" * 25 + "\n"
        view.show(Block(1, (3.0, 2.5, 1e-10), 0.1))
        assert capsys.readouterr().out == "         2        2.50000\n"
        view.show(Block(4, (float("inf"), 1.0, 123456789.0), 0.1))
        assert capsys.readouterr().out == "         4            inf\n         6    1.23457e+08\n"
    assert capsys.readouterr().out == "─" * 25 + "\n"


def test_the_table_is_closed_whatever_ended_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), console.LossView(("iteration", "loss"), 10):
        raise KeyboardInterrupt
    assert capsys.readouterr().out.count("─" * 25) == 2


def test_small_tables_are_printed_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("table", "csv", "jsonl"):
        console.rows(("key", "value"), [("a", [1, "x"]), ("b\x1b", None)], form)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "key    value",
        "a      [1, 'x']",
        r"b\x1b",
        "key,value",
        "a,\"[1, 'x']\"",
        r"b\x1b,",
        '{"key": "a", "value": [1, "x"]}',
        '{"key": "b\\u001b", "value": null}',
    ]
