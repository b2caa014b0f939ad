"""`twolayer show`: real runs, real terminals, real trainings that go on meanwhile."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Self

import pytest
from rich.cells import cell_len

from tests.helpers.forking import HANGS, Forked
from tests.helpers.handmade import change_info, write_history
from tests.helpers.processes import BASE, TERMINAL_CODES, in_terminal, opened_in, screen, without_torch
from tests.helpers.trained import train
from twolayer.runs.folder import Run

LONG = ["train", "--set", "N=300", "--threads", "1", "--quiet", "--out", "live", "--epochs"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were completed (one, of a table, with all five measures), and one that diverged."""
    path = tmp_path_factory.mktemp("show")
    (path / "my.yaml").write_text(BASE)
    (path / "my.csv").write_text(
        "a,b,c\n" + "".join(f"{i % 7},{i * 5 % 11},{'yn'[i * 3 % 8 > 3]}\n" for i in range(80))
    )
    train(
        path,
        "--note [bold]fine[/]",
        "my.csv --target c --epochs 20 --set validation=0.2",
        "my.yaml --lr 1e9",
        "my.yaml",
    )
    return path


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """A completed run of five iterations."""
    shutil.copytree(folder / "runs" / "my-3", tmp_path / "runs" / "my-3")
    return tmp_path / "runs" / "my-3"


def rows(lines: list[str]) -> list[list[str]]:
    """The rows of the table, which stands below the curve or beside it."""
    found = (re.search(r"(?:^|[│|┘+] +|\d  +) ( *\d+(?: +\S+)+)$", line) for line in lines)
    return [match[1].split() for match in found if match and "." in match[1].split()[1]]


def history(run: Path) -> list[list[str]]:
    with (run / "history.csv").open() as file:
        return list(csv.reader(file))


# --- Once


def test_a_run_is_shown_in_brief_with_its_curve_and_its_table(folder: Path) -> None:
    done = without_torch("show", "default-1", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    info = json.loads((folder / "runs/default-1/run.json").read_text())
    lines = done.stdout.splitlines()
    brief = dict(line.split(maxsplit=1) for line in lines[: lines.index("")])
    assert re.fullmatch(r"default-1, completed \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, 500 iterations", brief["run"])
    assert brief["config"] == "default, 64 x 1000 -> 100 -> 10, lr 0.0001, seed 0"
    assert brief["engine"] == f"fused (dual), {info['threads']} thread, cpu"
    assert brief["note"] == "[bold]fine[/]"
    first, best, final = (f"{info[key]:.6g}" for key in ("first_loss", "best_loss", "final_loss"))
    assert brief["loss"] == f"first {first}, best and last {best}, final {final}"
    assert brief["time"].endswith("s per iteration")
    assert "loss by iteration, log scale" in done.stdout
    assert len(re.findall("[\u2801-\u28ff]", done.stdout)) > 40
    table = [(int(row), float(loss)) for row, loss in rows(lines)]
    assert 5 <= len(table) <= 25
    assert (table[0][0], table[-1][0]) == (1, 500)
    written = history(folder / "runs/default-1")
    assert all(loss == float(f"{float(written[t][1]):.6g}") for t, loss in table)
    assert max(map(cell_len, lines)) <= 80
    assert not TERMINAL_CODES.search(done.stdout)


def test_best_is_the_least_loss_and_the_greatest_accuracy_and_says_where(folder: Path) -> None:
    done = without_torch("show", "my-1", cwd=folder, COLUMNS="150")
    head, *written = history(folder / "runs/my-1")
    assert head == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr"]
    for place, (name, best) in enumerate(
        (("loss", min), ("accuracy", max), ("val_loss", min), ("val_accuracy", max)), 1
    ):
        values = [float(row[place]) for row in written]
        said = next(line for line in done.stdout.splitlines() if line.split()[0] == name)
        at = values.index(best(values)) + 1
        where = f"best (at {at}) {best(values):.6g}, last" if at < len(values) else f"best and last {best(values):.6g}"
        assert where in said
        assert f"first {values[0]:.6g}" in said
    assert "loss  ∘ val_loss by epoch" in done.stdout
    assert "•" in done.stdout


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_csv_and_json_lines_are_the_very_history_and_nothing_else(form: str, folder: Path) -> None:
    for name in ("default-1", "my-1", "my-2"):
        done = without_torch("show", name, "--format", form, cwd=folder)
        text = (folder / "runs" / name / "history.csv").read_text()
        if form == "csv":
            assert (done.returncode, done.stdout, done.stderr) == (0, text, "")
            continue
        found = [json.loads(line, parse_constant=pytest.fail) for line in done.stdout.splitlines()]
        for row, written in zip(found, csv.DictReader(io.StringIO(text)), strict=True):
            values = {key: float(value) for key, value in written.items()}
            assert row == {
                key: None if value in (float("inf"),) or value != value else value for key, value in values.items()
            }


def test_all_prints_every_row(folder: Path) -> None:
    done = without_torch("show", "default-1", "--all", cwd=folder)
    assert [int(row[0]) for row in rows(done.stdout.splitlines())] == list(range(1, 501))


def test_the_row_that_diverged_is_there(folder: Path) -> None:
    done = without_torch("show", "my-2", cwd=folder)
    assert done.returncode == 0
    *_, (at, loss) = (row[:2] for row in history(folder / "runs/my-2"))
    assert f"the loss at {at} is not finite" in " ".join(done.stdout.split())
    assert re.search(rf" {at} +{loss}$", done.stdout, re.MULTILINE)
    assert ", diverged 20" in done.stdout.splitlines()[0]


def test_the_scale_is_what_is_asked_for(folder: Path) -> None:
    assert "log scale" not in without_torch("show", "default-1", "--scale", "linear", cwd=folder).stdout
    assert "log scale" not in without_torch("show", "my-1", cwd=folder).stdout
    assert "log scale" in without_torch("show", "my-1", "--scale", "log", cwd=folder).stdout
    assert without_torch("show", "my-1", "--scale", "cube", cwd=folder).returncode == 2


def test_no_run_is_a_usage_error_that_says_so(folder: Path) -> None:
    done = without_torch("show", "nothing", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nothing: no such run folder; `twolayer runs` lists all runs\n"


# --- Runs in any state


def test_a_killed_run_is_shown_and_told_as_killed(run: Path) -> None:
    change_info(run, status="running")
    done = without_torch("show", "my-3", cwd=run.parents[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(
        r"run +my-3, killed some time after \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, 5 iterations$", done.stdout.splitlines()[0]
    )


def test_a_running_run_is_told_as_running(run: Path) -> None:
    change_info(run, status="running", epochs=10)
    with Run(run):
        done = without_torch("show", "my-3", cwd=run.parents[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("run     my-3, running since ")


@pytest.mark.parametrize(
    ("file", "text", "problem", "shown"),
    [
        (
            "run.json",
            "{",
            "run.json: is damaged: it is not JSON",
            ["broken, 5 iterations", "8 x 3 -> 4 -> 2", "iteration"],
        ),
        ("run.json", None, "run.json: is missing", ["broken, 5 iterations", "8 x 3 -> 4 -> 2"]),
        (
            "config.yaml",
            "N: x",
            "config.yaml: is not valid: must be",
            ["completed", "8 x 3 -> 4 -> 2", "final"],
        ),
        (
            "history.csv",
            "iteration,loss\n1,2.5\nx\n",
            "history.csv: is damaged after row 1",
            ["completed", "final", "2.5"],
        ),
        ("history.csv", None, "history.csv: is missing", ["completed", "8 x 3 -> 4 -> 2", "0 of 5 iterations"]),
        ("model.safetensors", None, "model.safetensors: is missing", ["completed", "final", "by iteration"]),
    ],
)
def test_a_broken_run_is_shown_as_far_as_it_goes_and_what_is_wrong_is_said(
    file: str, text: str | None, problem: str, shown: list[str], run: Path
) -> None:
    (run / file).unlink()
    if text is not None:
        (run / file).write_text(text)
    done = without_torch("show", "my-3", cwd=run.parents[1])
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if problem in line] == done.stderr.splitlines() != []
    assert [part for part in shown if part not in done.stdout] == []


def test_where_the_config_is_gone_run_json_may_say_anything_of_it(run: Path) -> None:
    (run / "config.yaml").unlink()
    info = json.loads((run / "run.json").read_text()) | {"seed": 7, "lr": None, "format": 1}
    del info["sha256"]
    deep = "[" * 900 + "]" * 900
    (run / "run.json").write_text(json.dumps(info).replace('"lr": null', f'"lr": {deep}'))
    done = without_torch("show", "my-3", cwd=run.parents[1])
    assert (done.returncode, done.stderr) == (0, "runs/my-3/config.yaml: is missing\n")
    assert "8 x 3 -> 4 -> 2, seed 7\n" in done.stdout


def test_where_nothing_can_be_shown_the_exit_code_is_1(run: Path) -> None:
    (run / "history.csv").unlink()
    done = without_torch("show", "my-3", "--format", "csv", cwd=run.parents[1])
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "runs/my-3/history.csv: is missing\n")
    (run / "config.yaml").unlink()
    (run / "run.json").write_text("{")
    (run / "history.csv").write_text("<html>\n")
    done = without_torch("show", "my-3", cwd=run.parents[1])
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 3)


def test_a_run_without_rows_and_one_without_a_finite_loss_have_no_curve(run: Path) -> None:
    write_history(run, "iteration,loss\n")
    done = without_torch("show", "my-3", cwd=run.parents[1])
    assert (done.returncode, done.stderr, "┌" in done.stdout) == (0, "", False)
    write_history(run, "iteration,loss\n1,nan\n")
    done = without_torch("show", "my-3", cwd=run.parents[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert "no loss is finite, so there is no curve" in done.stdout
    assert re.search(r"^ +1 +nan$", done.stdout, re.MULTILINE)
    (run / "history.csv").write_text("iteration,loss\n1,0.0\n")
    assert "nothing to draw on a log" in without_torch("show", "my-3", "--scale", "log", cwd=run.parents[1]).stdout


def test_hostile_text_reaches_the_terminal_as_text(run: Path) -> None:
    bad = "\x1b]0;x\x07[red]\u202e</script>\n\x9b31m"
    change_info(run, config=bad, note=bad, device=bad, error=bad, status="failed", ended=bad)
    done = without_torch("show", "my-3", cwd=run.parents[1], COLUMNS="200")
    assert done.returncode == 0
    assert not TERMINAL_CODES.search(done.stdout + done.stderr)
    assert "\u202e" not in done.stdout
    assert done.stdout.count(r"\x1b]0;x\x07[red]\u202e</script>\n\x9b31m") == 4


# --- Terminals


@contextmanager
def terminal(columns: int, lines: int) -> Iterator[tuple[int, int]]:
    """A pseudo-terminal of a size: its two ends."""
    leader, follower = pty.openpty()
    resize(leader, columns, lines)
    try:
        yield leader, follower
    finally:
        os.close(leader)


def resize(leader: int, columns: int, lines: int) -> None:
    ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def everything(leader: int, written: bytes = b"") -> str:
    """What was written, and all that comes until the other end is closed."""
    while select.select([leader], [], [], 30)[0]:
        try:
            written += os.read(leader, 65536)
        except OSError:
            return written.decode()
    raise AssertionError("nothing came for half a minute")


def show_in(folder: Path, columns: int, lines: int, *arguments: str, **environment: str) -> str:
    with terminal(columns, lines) as (leader, follower):
        process = opened_in(follower, ["show", *arguments], folder, {"TERM": "xterm-256color", **environment})
        os.close(follower)
        written = everything(leader)
    assert process.wait() == 0
    return written


@pytest.mark.parametrize(("columns", "lines"), [(40, 20), (80, 24), (120, 40), (200, 60)])
@pytest.mark.parametrize("name", ["default-1", "my-1"])
def test_it_fits_the_terminal(columns: int, lines: int, name: str, folder: Path) -> None:
    written = show_in(folder, columns, lines, name)
    shown = screen(written)
    assert max(map(cell_len, shown)) <= columns
    if (name, columns) != ("my-1", 40):  # its brief alone fills that screen
        assert len(shown) <= lines  # and the prompt after it
    table, has_curve = rows(shown), any("┌" in line for line in shown)
    assert table or has_curve
    if table:
        assert (table[0][0], table[-1][0]) == ("1", "500" if name == "default-1" else "20")
    if columns >= 120 or (name, columns) == ("default-1", 80):
        assert len(table) >= 10
        assert has_curve
    assert ("columns not shown" in written) == ((name, columns) == ("my-1", 40))


def test_colour_tells_two_curves_apart_and_marks_do_without_it(folder: Path) -> None:
    assert re.search("\x1b\\[33m[\u2801-\u28ff]", show_in(folder, 80, 40, "my-1"))
    plain = show_in(folder, 80, 40, "my-1", NO_COLOR="1")
    assert not re.search(r"\x1b\[(3[0-9]|9[0-9])", plain)
    assert "∘" in plain
    ascii_ = show_in(folder, 80, 40, "my-1", LC_ALL="C")
    assert ascii_.isascii()
    assert "* loss  o val_loss by epoch" in "\n".join(screen(ascii_))


# --- Following


@contextmanager
def training(folder: Path, epochs: str = "1000000") -> Iterator[Forked]:
    """A training that goes on, with at least some rows in its history."""
    with Forked([*LONG, epochs], folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + HANGS
            while not (folder / "live/history.csv").exists() or (folder / "live/history.csv").stat().st_size < 100:
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


class Screen:
    """A terminal that heeds what `show --follow` writes: a grid of characters, and no more than that."""

    def __init__(self, columns: int, lines: int) -> None:
        self.grid = [[" "] * columns for _ in range(lines)]
        self.row = self.column = 0

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.row += 1
                if self.row == len(self.grid):
                    raise AssertionError("it scrolls")
            elif part[0] != "\x1b":
                self.grid[self.row][self.column] = part
                self.column += 1
            elif part[-1] == "A":
                self.row -= int(part[2:-1])
                assert self.row >= 0
            elif part[-1] == "K":
                start = 0 if part[2:-1] == "2" else self.column
                self.grid[self.row][start:] = [" "] * (len(self.grid[0]) - start)
            elif part == "\x1b[H":
                self.row = self.column = 0
            elif part == "\x1b[2J":
                self.grid = [[" "] * len(self.grid[0]) for _ in self.grid]
            else:
                assert part[-1] == "m", f"unknown: {part!r}"

    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.grid]


class Followed:
    """`show --follow` in a terminal."""

    def __init__(self, folder: Path, columns: int = 100, lines: int = 30) -> None:
        self.leader, follower = pty.openpty()
        resize(self.leader, columns, lines)
        self.screen, self.written, self._bytes = Screen(columns, lines), "", b""
        environment = {"TERM": "xterm-256color"}
        self.process = opened_in(follower, ["show", "live", "--follow"], folder, environment, new_session=True)
        os.close(follower)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.process.kill()
        self.process.wait()

    def wait_for(self, pattern: str, count: int = 1) -> None:
        """Read on until the pattern has come so many times."""
        end = time.monotonic() + HANGS
        while len(re.findall(pattern, self.written)) < count:
            assert time.monotonic() < end, self.written[-3000:]
            if select.select([self.leader], [], [], 1)[0]:
                self._bytes += os.read(self.leader, 65536)  # it may end within a character
                self.written = self._bytes.decode(errors="ignore")

    def rest(self) -> int:
        """Read to the end; the exit code."""
        self.written = everything(self.leader, self._bytes)
        os.close(self.leader)
        self.screen.write(self.written)
        return self.process.wait(30)


def test_a_run_that_goes_on_is_redrawn_in_place_until_it_is_killed(tmp_path: Path) -> None:
    with training(tmp_path) as process, Followed(tmp_path) as followed:
        followed.wait_for("running since", 4)
        counts = [int(count) for count in re.findall(r"(\d+) of 1000000 iterations", followed.written)]
        assert counts == sorted(set(counts))  # it moves on
        assert re.search(r"per iteration, .+ left", followed.written)
        process.kill()
        assert followed.rest() == 0
    lines = followed.screen.lines()
    assert lines[0].startswith("run     live, killed some time after ")
    assert sum("┌" in line for line in lines) == 1  # nothing is left of the frames before
    rows_written = (tmp_path / "live/history.csv").read_text().count("\n") - 1
    assert rows(lines)[-1][0] == str(rows_written)
    assert "\x1b[?" not in followed.written  # neither the cursor nor the screen was changed


def test_ctrl_c_leaves_the_last_view_and_a_clean_terminal(tmp_path: Path) -> None:
    with training(tmp_path) as process, Followed(tmp_path, 40, 20) as followed:
        followed.wait_for("running since", 2)
        os.killpg(followed.process.pid, signal.SIGINT)
        assert followed.rest() == 130
        assert process.poll() is None  # the training goes on
    lines = followed.screen.lines()
    assert "Traceback" not in followed.written
    assert lines[0].startswith("run     live, running since")
    assert (followed.screen.column, lines[followed.screen.row]) == (0, "")
    assert followed.screen.row < 20


def test_it_ends_with_the_run_and_leaves_the_final_view(tmp_path: Path) -> None:
    with training(tmp_path, "6000") as process, Followed(tmp_path, 80, 24) as followed:
        assert followed.rest() == 0
        assert process.wait() == 0
    lines = followed.screen.lines()
    assert re.match(r"run     live, completed \S+ \S+, 6000 iterations", lines[0])
    assert "final" in " ".join(lines)
    assert rows(lines)[-1][0] == "6000"


def test_a_terminal_that_changes_its_size_is_drawn_anew(tmp_path: Path) -> None:
    with training(tmp_path) as process, Followed(tmp_path, 100, 30) as followed:
        followed.wait_for("running since", 2)
        before = len(followed.written)
        resize(followed.leader, 60, 20)
        followed.wait_for(r"\x1b\[2J")
        process.kill()
        assert followed.rest() == 0
    cleared = followed.written.index("\x1b[2J", before)
    small = Screen(60, 20)
    small.write(followed.written[cleared:])
    assert any("killed" in line for line in small.lines())


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_at_a_pipe_rows_come_as_they_are_computed_until_the_run_ends(form: str, tmp_path: Path) -> None:
    with (
        training(tmp_path) as process,
        Forked(["show", "live", "--follow", "--format", form], tmp_path, bare=True) as following,
    ):
        early = [following.stdout.readline() for _ in range(200)]
        process.kill()
        rest, error = following.stdout.read(), following.stderr.read()
    text = (tmp_path / "live/history.csv").read_text()
    whole = text[: text.rindex("\n") + 1]
    shown = "".join(early) + rest
    if form == "csv":
        assert shown == whole
    elif form == "jsonl":
        assert [json.loads(line)["iteration"] for line in shown.splitlines()] == list(range(1, whole.count("\n")))
    else:
        assert [int(row[0]) for row in rows(shown.splitlines())] == list(range(1, whole.count("\n")))
    assert following.returncode == 0
    assert re.fullmatch(r"live, killed some time after .+, \d+ of 1000000 iterations, unsealed\n", error)


def test_ctrl_c_at_a_pipe_ends_it_with_130(tmp_path: Path) -> None:
    with (
        training(tmp_path),
        Forked(["show", "live", "--follow", "--format", "csv"], tmp_path, bare=True) as following,
    ):
        following.stdout.readline()
        following.send_signal(signal.SIGINT)
        _, error = following.communicate(timeout=HANGS)
    assert (following.returncode, error) == (130, "")


TAKEN_BACK = "runs/my-3: rows after 2 were removed; the new ones follow"


def test_rows_that_a_continuation_takes_back_come_again(run: Path) -> None:
    whole = (run / "history.csv").read_text()
    change_info(run, status="running", iterations=None)
    with (
        Run(run),
        Forked(["show", "my-3", "--follow", "--format", "csv"], run.parents[1], bare=True) as following,
    ):
        assert "".join(following.stdout.readline() for _ in range(6)) == whole
        lines = whole.splitlines(keepends=True)
        (run / "history.csv").write_text("".join(lines[:3]))
        assert following.stderr.readline() == f"{TAKEN_BACK}\n"
        (run / "history.csv").write_text("".join(lines[:3]) + "3,7.5\n4,6.5\n")
        assert [following.stdout.readline() for _ in range(2)] == ["3,7.5\n", "4,6.5\n"]
        change_info(run, status="completed", iterations=4)
        rest, error = following.communicate(timeout=HANGS)
    assert (following.returncode, rest) == (0, "")
    assert error.startswith("my-3, completed ")


def test_all_and_follow_do_not_go_together(folder: Path) -> None:
    done = without_torch("show", "default-1", "--all", "--follow", cwd=folder)
    assert done.returncode == 2
    assert "--follow cannot be used with --all" in done.stderr


def test_a_run_that_is_over_is_shown_once(folder: Path) -> None:
    once = show_in(folder, 80, 24, "default-1")
    assert show_in(folder, 80, 24, "default-1", "--follow") == once


def test_at_a_pipe_a_run_that_is_over_comes_as_one_that_is_going_on_does(folder: Path) -> None:
    done = without_torch("show", "default-1", "--follow", cwd=folder)
    assert [int(row[0]) for row in rows(done.stdout.splitlines())] == list(range(1, 501))
    assert done.stderr.startswith("default-1, completed ")


def test_a_reader_that_has_enough_ends_it(tmp_path: Path) -> None:
    with training(tmp_path), Forked(["show", "live", "--follow", "--format", "csv"], tmp_path, bare=True) as following:
        assert following.stdout.readline() == "iteration,loss\n"
        following.stdout.close()
        assert (following.wait(), following.stderr.read()) == (0, "")


def test_in_a_terminal_that_cannot_move_its_cursor_rows_come_as_at_a_pipe(tmp_path: Path) -> None:
    with training(tmp_path):
        code, written = in_terminal(["show", "live", "--follow"], tmp_path, {"TERM": "dumb"}, kill_at=" 100 ")
    assert code == 130
    assert "\x1b" not in written
    assert [int(row[0]) for row in rows(screen(written))][:100] == list(range(1, 101))
