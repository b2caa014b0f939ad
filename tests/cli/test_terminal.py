from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.processes import Run, in_terminal, without_torch
from twolayer.cli import progress, terminal
from twolayer.errors import ConfigError, Origin, Problem, TwolayerError
from twolayer.runs.history import Block


def test_an_error_is_a_line_and_a_config_error_a_line_for_each_problem(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.error(TwolayerError("it\ncannot [be]"))
    terminal.error(ConfigError([Problem(Origin("a.yaml", 2, 5), "lr", "wrong"), Problem(Origin("b"), "", "gone")]))
    assert capsys.readouterr().err == "error: it\\ncannot [be]\nerror: a.yaml:2:5: lr: wrong\nerror: b: gone\n"


def test_the_table_streams_block_by_block_in_columns_of_a_fixed_width(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.LossView(("iteration", "loss"), 1000, 2) as view:
        head = "only one row in 2 is printed; --log-every 1 prints all\n iteration           loss\n"
        assert capsys.readouterr().out == head + "─" * 25 + "\n"
        view.show(Block(1, (3.0, 2.5, 1e-10), 0.1))
        assert capsys.readouterr().out == "         2        2.50000\n"
        view.show(Block(4, (float("inf"), 1.0, 123456789.0), 0.1))
        assert capsys.readouterr().out == "         4            inf\n         6    1.23457e+08\n"
    assert capsys.readouterr().out == "─" * 25 + "\n"


def test_within_a_long_epoch_the_bar_shows_its_updates(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.LossView(("epoch", "loss"), 10) as view:
        view.bar.is_shown = True
        view.show(Block(3, (), 0.1), (1200, 9000))
        assert "2/10  epoch 3: update 1,200 of 9,000" in capsys.readouterr().err
        view.show(Block(3, (1.5,), 0.1))
        drawn = capsys.readouterr()
        assert "3/10  loss 1.5" in drawn.err
        assert "1.50000" in drawn.out


def test_the_table_is_closed_whatever_ended_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), progress.LossView(("iteration", "loss"), 10):
        raise KeyboardInterrupt
    assert capsys.readouterr().out.count("─" * 25) == 2


def test_small_tables_are_printed_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("table", "csv", "jsonl"):
        terminal.rows(("key", "value"), [("a", [1, "x"]), ("b\x1b", None)], form)
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


@pytest.mark.sample(3)
@pytest.mark.parametrize("columns", ["0", "5", "19", "x", "", "-3", "9" * 5000])
def test_a_width_that_is_none_counts_as_not_given(tmp_path: Path, twolayer: Run, columns: str) -> None:
    assert without_torch("train", "nonsense.yaml", cwd=tmp_path, COLUMNS=columns).stderr.startswith(
        "error: nonsense.yaml: no such"
    )
    assert without_torch("show", "nothing", cwd=tmp_path, COLUMNS=columns).stderr.startswith("error: nothing")
    shown = without_torch("check", "scratch", cwd=tmp_path, COLUMNS=columns, LINES="0").stdout
    assert shown == without_torch("check", "scratch", cwd=tmp_path).stdout
    if not (tmp_path / "r").exists():
        assert twolayer("train", "scratch", "--epochs=5", "--out=r", "-q", COLUMNS=columns).returncode == 0
    assert without_torch("show", "r", cwd=tmp_path, COLUMNS=columns).returncode == 0


@pytest.mark.parametrize("width", [1, 7, 19])
def test_a_terminal_too_narrow_to_print_in_gets_lines_of_the_usual_width(tmp_path: Path, width: int) -> None:
    code, written = in_terminal(["check", "scratch"], tmp_path, {"COLUMNS": str(width)})
    assert code == 0
    assert "scratch.yaml:9" in written
