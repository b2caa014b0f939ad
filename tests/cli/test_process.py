"""Terminals, pipes, full disks and signals."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.forking import HANGS, Forked, clean_environment
from tests.helpers.processes import COMMAND, TERMINAL_CODES, Run, in_terminal, screen


def test_on_a_terminal_a_bar_stands_while_it_runs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code, written = in_terminal(["train", "--set", "N=1000", "--epochs", "300"], tmp_path)
    assert code == 0
    assert "━" in written
    assert re.search(r"\d+/300  loss \S+", written)
    lines = screen(written)
    assert not any("━" in line or "/300" in line for line in lines)
    assert [line.split()[0] for line in lines if re.match(r" +\d+ ", line)] == [str(t) for t in range(1, 301)]
    assert "\x1b[?25l" not in written  # the cursor is never hidden, so nothing can leave it so


def test_on_a_terminal_the_bar_stands_on_stderr_alone(tmp_path: Path) -> None:
    arguments = ["train", "--set", "N=1000", "--epochs", "100", "--format", "csv"]
    leader, follower = pty.openpty()
    with Forked(arguments, tmp_path, clean_environment(TERM="xterm"), stderr=follower) as process:
        os.close(follower)
        rows = process.stdout.read()
        assert "100/100" not in os.read(leader, 65536).decode(errors="replace")  # it may end within a character
        os.close(leader)
    assert rows.count("\n") == 101
    assert not TERMINAL_CODES.search(rows)


@pytest.mark.sample(2)
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"LC_ALL": "C"}, {"COLUMNS": "40"}])
def test_on_a_plain_terminal_all_is_legible(environment: dict[str, str], tmp_path: Path) -> None:
    arguments = ["train", "--set", "N=500", "--epochs", "30"]
    code, written = in_terminal(arguments, tmp_path, environment)
    assert code == 0
    assert any(re.fullmatch(r" +30 +\d+\.\d+", line) for line in screen(written))
    if "NO_COLOR" in environment:
        assert not re.search(r"\x1b\[(3[0-9]|9[0-9])", written)
    if "TERM" in environment:
        assert "\x1b" not in written
        assert "/30" not in written
    if "LC_ALL" in environment:
        assert written.isascii()
        assert "-" * 25 in written
    if "COLUMNS" in environment:
        assert all(len(line) <= 40 for line in screen(written) if "Linear" not in line and "device" not in line)


def test_at_a_pipe_there_are_no_codes_and_no_bar_unless_colour_is_forced(twolayer: Run) -> None:
    plain = twolayer("train", "scratch")
    assert not TERMINAL_CODES.search(plain.stdout + plain.stderr)
    assert "\x1b" in twolayer("train", "scratch", FORCE_COLOR="1").stdout
    assert "\x1b" not in twolayer("train", "scratch", "--format", "csv", FORCE_COLOR="1").stdout


@pytest.mark.parametrize("arguments", ["train --format csv", "train --format jsonl"])
def test_a_reader_that_has_enough_is_no_error(arguments: str, tmp_path: Path) -> None:
    with Forked(arguments.split(), tmp_path) as process:
        assert process.stdout.readline().strip()
        process.stdout.close()
        assert "rror" not in process.stderr.read()
        assert process.wait() == 0


@pytest.mark.sample(1)
@pytest.mark.parametrize("arguments", ["train", "check", "schema"])
def test_a_reader_that_has_enough_ends_it_quietly(arguments: str, tmp_path: Path) -> None:
    script = f"'{COMMAND}' {arguments} --set H=3 | head -1; echo ${{PIPESTATUS[0]}}".replace(
        "schema --set H=3", "schema"
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert (len(lines), lines[1]) == (2, "0")
    assert "Error" not in done.stderr
    assert "error" not in done.stderr


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("arguments", "forked"),
    [
        ("train", False),
        *(("train --format csv", True), ("train --quiet", True)),
        *(("check", False), ("schema", False), ("--help", False)),
    ],
)
def test_a_full_disk_is_one_line_and_exit_1(arguments: str, forked: bool, tmp_path: Path) -> None:
    command, error = arguments.split(), subprocess.PIPE
    with Path("/dev/full").open("w") as full:
        if forked:
            process: Any = Forked(command, tmp_path, stdout=full)
        else:  # up to the end of Python itself, which writes what is left
            environment = clean_environment()
            process = subprocess.Popen(
                [COMMAND, *command], cwd=tmp_path, env=environment, stdout=full, stderr=error, text=True
            )
        with process:
            errors = process.stderr.read()
    assert process.wait() == 1
    message = "error: the output cannot be written: No space left on device"
    assert [line for line in errors.splitlines() if line.startswith("error")] == [message]
    assert "Traceback" not in errors


@pytest.mark.sample(2)
@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full"])
def test_closed_streams_do_no_harm(redirection: str, tmp_path: Path) -> None:
    for arguments, code in (("train scratch", 0), ("check --lr x", 2)):
        script = f"'{COMMAND}' {arguments} {redirection}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr


# --- Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_closes_the_table_and_takes_the_bar_away(number: int, code: int, tmp_path: Path) -> None:
    arguments = ["train", "--set", "N=2000", "--epochs", "100000"]
    found, written = in_terminal(arguments, tmp_path, kill_at="/100000", number=number)
    assert found == code
    assert "Traceback" not in written
    lines = [line for line in screen(written) if line]
    rule = "─" * 25
    assert rule in lines[-4:]
    assert "━" not in "".join(lines)
    assert re.fullmatch(r"interrupted after \d+ of 100000 iterations", lines[-2])
    assert lines[-1] == "resume with: twolayer train --resume default-1"


@pytest.mark.sample(4)
@pytest.mark.parametrize("delay", [0.05, 0.15, 0.3, 0.5, 0.7, 0.9, 1.1])
def test_ctrl_c_at_any_moment_of_the_start_exits_130_without_a_traceback(delay: float, tmp_path: Path) -> None:
    command = [str(COMMAND), "train", "--set", "N=2000", "--epochs", "100000"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=HANGS)
    if process.returncode != 130 and not re.search(r'__main__\.py", line \d+, in main\n', error):  # not that of `site`
        pytest.skip("Python itself was still starting: main() had not begun")
    assert process.returncode == 130
    assert "Traceback" not in error
    # In one line, whether or not the training had begun.
    assert len(re.findall(r"^(stopped before the training began|interrupted after)", error, flags=re.M)) == 1


@pytest.mark.parametrize("gap", [0.001, 0.01, 0.05])
def test_a_second_ctrl_c_leaves_at_once_and_without_a_traceback(gap: float, tmp_path: Path) -> None:
    with Forked(["train", "--set", "N=2000", "--epochs", "100000"], tmp_path) as process:
        while not process.stdout.readline().startswith("         3"):
            pass
        process.send_signal(signal.SIGINT)
        time.sleep(gap)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=HANGS)
    assert process.returncode == 130
    assert "Traceback" not in error


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2> >(exec true)"])
def test_nothing_is_lost_where_only_the_messages_cannot_be_written(redirection: str, tmp_path: Path) -> None:
    script = f"'{COMMAND}' train --format csv --epochs 20 {redirection} > out.csv"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=clean_environment(), check=False)
    assert done.returncode == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 21


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    script = (
        f"trap '' INT; '{COMMAND}' train scratch --epochs 30000 --quiet & "
        "until [ -s runs/scratch-1/history.csv ]; do sleep 0.02; done; kill -INT $!; wait $!; echo $?"
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\n0\n")
