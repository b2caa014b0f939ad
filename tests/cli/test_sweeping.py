"""`train --seeds` and `--sweep` as a user has them: real processes, folders and signals."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.forking import Forked
from tests.helpers.processes import BASE, Run, in_terminal, screen

PARTS = ("history.csv", "model.safetensors", "config.yaml")
CONFIG = BASE.replace("epochs: 5", "epochs: 40")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a config that takes milliseconds."""
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def lasting(folder: Path) -> list[dict[str, str]]:
    """The rows of a table without the times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows(folder)]


def same(one: Path, other: Path) -> bool:
    return all((one / part).read_bytes() == (other / part).read_bytes() for part in PARTS)


def test_each_point_is_the_single_command_bit_for_bit(twolayer: Run, tmp_path: Path) -> None:
    done = twolayer("train", "modules", "--seeds", "2", "--sweep", "engine=autograd,fused", "--epochs", "50")
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "runs/modules-sweep-1"
    assert [row["path"] for row in rows(sweep)] == [f"engine={e},seed={s}" for e in ("autograd", "fused") for s in "01"]
    for row in rows(sweep):
        single = tmp_path / f"single-{row['engine']}-{row['seed']}"
        twolayer(
            "train", "modules", "--seed", row["seed"], "--engine", row["engine"], "--epochs", "50", "--out", single
        )
        assert same(single, sweep / row["path"])
        info = json.loads((single / "run.json").read_text())
        assert float(row["final_loss"]) == info["final_loss"]
        assert (int(row["iterations"]), float(row["best_loss"])) == (50, info["best_loss"])


def test_processes_train_the_same_bits(twolayer: Run, tmp_path: Path) -> None:
    for jobs in ("1", "2"):
        done = twolayer("train", "modules", "--seeds", "3", "--epochs", "50", "--out", tmp_path / jobs, "--jobs", jobs)
        assert done.returncode == 0, done.stderr
    assert lasting(tmp_path / "1") == lasting(tmp_path / "2")
    assert [row["seed"] for row in rows(tmp_path / "2")] == ["0", "1", "2"]
    assert all(same(tmp_path / "1" / f"seed={seed}", tmp_path / "2" / f"seed={seed}") for seed in range(3))


def test_a_point_that_diverges_is_a_result_and_the_table_is_sorted(twolayer: Run, small: Path) -> None:
    done = twolayer("train", "small.yaml", "--sweep", "lr=1e-3,1e6,1e-2,1e-4")
    assert done.returncode == 0
    found = rows(small / "runs/small-sweep-1")
    assert [row["status"] for row in found] == ["completed", "diverged", "completed", "completed"]
    assert found[1]["final_loss"] == ""
    table = [line.split() for line in done.stdout.splitlines()]
    losses = sorted((float(row["final_loss"]), row["lr"]) for row in found if row["final_loss"])
    assert [line[0] for line in table[1:5]] == [*(lr for _, lr in losses), "1000000.0"]
    assert "best of 3 by loss: lr=0.01 " in done.stderr
    assert "4 points: 3 completed, 1 diverged" in done.stderr
    assert "nan" not in (small / "runs/small-sweep-1/sweep.csv").read_text()


def test_rows_alone_go_to_stdout_and_nothing_is_saved(twolayer: Run, small: Path) -> None:
    options = ("train", "small.yaml", "--seeds", "3", "--sweep", "lr=1e-3,1e6", "--no-save")
    found = list(csv.DictReader(twolayer(*options, "--format", "csv").stdout.splitlines()))
    lines = [json.loads(line) for line in twolayer(*options, "--format", "jsonl").stdout.splitlines()]
    assert [(row["lr"], row["seed"]) for row in found] == [(lr, s) for lr in ("0.001", "1000000.0") for s in "012"]
    assert [(row["lr"], row["seed"], row["status"]) for row in lines][2:4] == [
        (0.001, 2, "completed"),
        (1e6, 0, "diverged"),
    ]
    assert [row["final_loss"] for row in lines] == [
        float(row["final_loss"] or "nan") if row["final_loss"] else None for row in found
    ]
    assert [path.name for path in small.iterdir()] == ["small.yaml"]
    table = twolayer(*options[:4], "--no-save")
    assert len(table.stderr.splitlines()) == 3 + 2  # a line a point, the best, and how many there are
    assert "median" in table.stdout


def test_a_dry_run_prints_the_points_and_trains_none(twolayer: Run, small: Path) -> None:
    done = twolayer("train", "small.yaml", "--sweep", "lr=1e-3..1e-1*3", "--seeds", "2", "--dry-run", "--format", "csv")
    assert done.stdout.splitlines() == [
        "point,lr,seed",
        "1,0.001,0",
        "2,0.001,1",
        "3,0.01,0",
        "4,0.01,1",
        "5,0.1,0",
        "6,0.1,1",
    ]
    assert not (small / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--jobs 2", "--jobs is for many trainings"),
        ("--dry-run", "--dry-run prints"),
        ("--seeds 2 --folds 3", "--folds is for a single training"),
        ("--seeds 2 --jobs 0", "--jobs must be a number"),
        ("--seeds 2 --jobs many", "--jobs must be a number"),
        ("--seeds 2 --seed 1", "seed varies already"),
        ("--seeds 2 --set seed", "must be KEY=VALUE"),
        ("--seeds 2 --sweep lr=x", "not 'x'"),
        ("--seeds 2 --resume x", "--resume continues"),
        ("--seeds 2 --no-save --out x", "--out requires a run folder"),
    ],
)
def test_a_wrong_command_line_is_refused(options: str, message: str, twolayer: Run, small: Path) -> None:
    config = [] if "--resume" in options else ["small.yaml"]
    done = twolayer("train", *config, *options.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert [path.name for path in small.iterdir()] == ["small.yaml"]


def wait_for(process: Forked, condition: Callable[[], Any]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.005)


def long_sweep(folder: Path, *more: str | Path) -> list[str | Path]:
    """A sweep of some seconds, on one thread."""
    (folder / "long.yaml").write_text(BASE.replace("epochs: 5", "epochs: 1500") + "threads: 1\nengine: autograd\n")
    return ["train", "long.yaml", "--seeds", "3", *more]


@pytest.mark.sample(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_is_stopped_is_resumed_to_the_same_sweep(number: signal.Signals, twolayer: Run, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert twolayer(*long_sweep(tmp_path, "--out", whole, "--checkpoint-every", "100")).returncode == 0
    with Forked(long_sweep(tmp_path, "--out", stopped, "--checkpoint-every", "100"), tmp_path) as process:
        wait_for(process, lambda: any((stopped / "seed=1/checkpoints").glob("[1-9]*")))
        refused = twolayer("train", "--resume", stopped)
        assert "another process is training this sweep" in refused.stderr
        process.send_signal(number)
        _, said = process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted after 1 of 3 points" in said
        assert json.loads((stopped / "seed=1/run.json").read_text())["status"] == "interrupted"
    assert [row["seed"] for row in rows(stopped)] == ["0"]
    again = twolayer("train", "--resume", stopped)
    assert again.returncode == 0, again.stderr
    assert "1 of 3 points are done" in again.stderr
    assert "resumed" in json.loads((stopped / "seed=1/run.json").read_text())
    assert lasting(stopped) == lasting(whole)
    assert all(same(stopped / f"seed={seed}", whole / f"seed={seed}") for seed in range(3))


def test_points_are_recognised_by_their_configs_and_a_failure_is_told_twice(twolayer: Run, small: Path) -> None:
    twolayer("train", "small.yaml", "--seeds", "3", "--out", "s")
    (small / "s/seed=0").rename(small / "s/first")  # as it is called now
    shutil.rmtree(small / "s/seed=2")
    (small / "s/seed=2").mkdir()  # another's
    done = twolayer("train", "--resume", "s")
    assert done.returncode == 1
    assert done.stderr.count("error: seed=2: s/seed=2: already exists; choose another folder") == 2
    assert "try again with: twolayer train --resume s" in done.stderr
    assert [(row["path"], row["status"]) for row in rows(small / "s")][:2] == [
        ("first", "completed"),
        ("seed=1", "completed"),
    ]
    assert rows(small / "s")[2]["status"] == "failed"
    (small / "s/seed=2").rmdir()
    done = twolayer("train", "--resume", "s")
    assert done.returncode == 0
    assert "2 of 3 points are done" in done.stderr
    assert [row["status"] for row in rows(small / "s")] == ["completed"] * 3
    refused = twolayer("train", "--resume", "s", "--lr", "1")
    assert (refused.returncode, refused.stderr) == (2, "error: a sweep is resumed as it was started; remove --lr\n")


def test_two_sweeps_at_once_have_a_folder_each(small: Path) -> None:
    with Forked(["train", "small.yaml", "--seeds", "4"], small) as one:
        with Forked(["train", "small.yaml", "--seeds", "4"], small) as other:
            other.communicate()
        one.communicate()
    assert (one.returncode, other.returncode) == (0, 0)
    assert sorted(path.name for path in (small / "runs").iterdir()) == ["small-sweep-1", "small-sweep-2"]
    assert lasting(small / "runs/small-sweep-1") == lasting(small / "runs/small-sweep-2")


def test_a_terminal_has_a_line_for_the_whole_and_the_point(tmp_path: Path) -> None:
    code, written = in_terminal(list(map(str, long_sweep(tmp_path, "--no-save"))), tmp_path)
    assert code == 0
    assert "0/3  seed=0: " in written
    assert " of 1500, loss " in written
    drawn = re.split(r"[\r\n]|\x1b\[2K", re.sub(r"\x1b\[[0-9;]*m", "", written))
    assert max(len(line) for line in drawn if "/3  seed=" in line) <= 80 - len("^C") - 1  # so that ^C is erased, too
    shown = [line for line in screen(written) if line]
    assert shown[0].split() == ["seed", "loss", "best", "time"]  # and nothing is left of the bar


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 KB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", path], check=False).returncode:
        pytest.skip("this container may not mount")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root can make a small disk")
def test_a_full_disk_is_told_and_with_room_the_rest_is_trained(twolayer: Run, small: Path, disk: Path) -> None:
    done = twolayer("train", "small.yaml", "--seeds", "9", "--out", disk / "s")
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    subprocess.run(["mount", "-o", "remount,size=2m", disk], check=True)
    again = twolayer("train", "--resume", disk / "s")
    assert again.returncode == 0, again.stderr
    assert [row["status"] for row in rows(disk / "s")] == ["completed"] * 9
    twolayer("train", "small.yaml", "--seed", "8", "--out", "single")
    assert same(disk / "s/seed=8", small / "single")


@pytest.mark.parametrize("name", ["scratch", "modules"])
@pytest.mark.parametrize("seeds", [20, pytest.param(200, marks=pytest.mark.deep)])
def test_the_published_losses_are_found_in_the_band_of_seeds(name: str, seeds: int, twolayer: Run) -> None:
    done = twolayer("train", name, "--seeds", str(seeds), "--no-save", "--quiet")
    assert f"inside the 95 % band of {seeds} seeds at " in done.stderr
    if seeds == 200:
        assert f"inside the 95 % band of {seeds} seeds at all 20 iterations" in done.stderr


def killed(arguments: Sequence[str | Path], folder: Path, sweep: Path, moments: random.Random) -> None:
    """Run a command and kill it at a random moment."""
    bytes_before = size_of(sweep)
    least = bytes_before + moments.random() * 30_000
    with Forked(arguments, folder, new_session=True) as process:
        wait_for(process, lambda: size_of(sweep) >= least)
        process.kill()
        process.communicate()


def size_of(folder: Path) -> int:
    """The bytes in a folder's files, which may come and go."""
    found = 0
    for place, _, names in os.walk(folder):  # which ignores folders that are gone
        for name in names:
            with suppress(OSError):
                found += (Path(place) / name).lstat().st_size
    return found


@pytest.mark.deep
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_sweep_that_is_killed_at_random_moments_is_the_same_in_the_end(
    jobs: str, twolayer: Run, tmp_path: Path
) -> None:
    moments = random.Random(int(jobs))
    (tmp_path / "x.yaml").write_text(BASE.replace("epochs: 5", "epochs: 150") + "threads: 1\nengine: autograd\n")
    command: list[str | Path] = [
        "train",
        "x.yaml",
        "--seeds",
        "5",
        "--sweep",
        "lr=1e-4,1e-3,1e-2,1e6",
        "--checkpoint-every",
        "40",
    ]
    assert twolayer(*command, "--out", "whole").returncode == 0
    sweep = tmp_path / "sweep"
    kills = 0
    while not (sweep / "sweep.json").exists() or len(rows(sweep)) < 20:
        start: list[str | Path] = ["--resume", sweep] if sweep.exists() else [*command[1:], "--out", sweep]
        killed(["train", *start, "--jobs", jobs], tmp_path, sweep, moments)
        kills += 1
        assert kills < 100
    assert kills > 2
    time.sleep(0.5)  # its processes end when it does
    assert twolayer("train", "--resume", sweep, "--jobs", jobs).returncode == 0
    assert lasting(sweep) == lasting(tmp_path / "whole")
    for row in rows(sweep):
        assert same(sweep / row["path"], tmp_path / "whole" / row["path"])
    assert not list(sweep.rglob("*.part"))


def test_a_sweep_whose_table_moved_goes_on(twolayer: Run, tmp_path: Path) -> None:
    place, table = tmp_path / "p", "a,b,y\n" + "".join(f"{i * 7 % 13},{i * i % 17},{i * 5 % 11}\n" for i in range(60))
    place.mkdir()
    (place / "t.csv").write_text(table)
    words = ["p/t.csv", "--target=y", "--sweep", "lr=1e-2,1e-3", "--epochs=3", "--set=H=4", "--out=p/s", "-q"]
    assert twolayer("train", *words).returncode == 0
    known = (place / "s/lr=0.001/history.csv").read_bytes()

    def resumed(*more: str) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(tmp_path / "q/s/lr=0.001", ignore_errors=True)
        return twolayer("train", "--resume", "q/s", "-q", *more)

    place.rename(tmp_path / "q")
    done = resumed()
    assert (done.returncode, known) == (0, (tmp_path / "q/s/lr=0.001/history.csv").read_bytes()), done.stderr
    assert f"{place / 't.csv'}: no such file; {tmp_path / 'q/t.csv'} is read in its place\n" in done.stderr
    assert lasting(tmp_path / "q/s")[1]["status"] == "completed"
    (tmp_path / "q/t.csv").rename(tmp_path / "u.csv")
    done = resumed()
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"error: q/s: its table is not at {place / 't.csv'}; if it was moved, add --set data.path=PATH\n"
    )
    done = resumed("--set", "data.path=u.csv")
    assert (done.returncode, known) == (0, (tmp_path / "q/s/lr=0.001/history.csv").read_bytes()), done.stderr
    assert "remove --set lr" in resumed("--set", "lr=1").stderr
    (tmp_path / "u.csv").write_text(table.replace("12,", "11,", 1))
    done = resumed("--set", "data.path=u.csv")
    assert (done.returncode, "u.csv: is not the table that q/s was started with" in done.stderr) == (1, True)
    assert not (tmp_path / "q/s/lr=0.001").exists()
