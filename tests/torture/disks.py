"""Disks that are full, or fill up: what is written is whole or as it was, and what was lost can be computed again.

python -m tests.torture.disks [--seed N] [--rounds N] [--minutes M]

The disks are in memory (tmpfs), which only root can mount; without that only the limits of a process are tried, by
which every file ends after so many bytes.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.helpers.forking import Forked
from tests.helpers.killing import KILLED, PARTS
from tests.torture import runs
from tests.torture.driver import Round, Trial, contents, judged, main, run

TRAININGS = {name: KILLED[name] for name in ("manual", "primal", "dual", "table")}
TRAININGS |= {"events": [*KILLED["manual"], "--tensorboard"]}
WRITING = ["plot", "report", "predict", "export", "eject"]


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes. Raises CalledProcessError where this process may not make one."""
    place = folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def can_mount(folder: Path) -> bool:
    """Whether this process may make disks."""
    if os.geteuid() or not shutil.which("mount"):
        return False
    with suppress(subprocess.CalledProcessError), disk(folder, 2**16):
        return True
    return False


def fill(place: Path) -> None:
    """Write a file that takes all that is left."""
    with suppress(OSError), (place / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def make_round(shared: Path) -> Round:
    """Let disks fill up during trainings, and under commands that write files."""
    (shared / "probe").mkdir()
    has_disks = can_mount(shared / "probe")
    runs.make_runs(shared)
    seconds: dict[str, float] = {}

    def whole(name: str) -> Path:
        """The run on a disk with room."""
        path = shared / "whole" / name
        if name not in seconds:
            start = time.monotonic()
            done = run(["train", *TRAININGS[name], "-q", "--out", path], shared)
            assert done.returncode == 0, done.stderr
            seconds[name] = time.monotonic() - start
        return path

    def filled(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        """A training on a disk that another program fills at some moment."""
        name = chosen.choice(list(TRAININGS))
        ended = whole(name)
        size = sum(map(len, contents(ended).values()))
        with disk(folder, chosen.choice((size // 2, size * 2, size * 8)) + 2**16) as place:
            command = ["train", *TRAININGS[name], "-q", "--out", "disk/run"]
            with Forked(command, folder, stdout=subprocess.DEVNULL) as process:
                time.sleep(chosen.uniform(0, seconds[name]))
                fill(place)
                _, stderr = process.communicate()
            done = subprocess.CompletedProcess[str](command, process.wait(), "", stderr)
            (place / "ballast").unlink(missing_ok=True)
            with_room = [] if done.returncode == 0 else [f"remount,size={size * 10 + 2**20}"]
            for option in with_room:
                subprocess.run(["mount", "-o", option, place], check=True)
            yield again(f"train, a disk fills up ({name})", done, folder / "disk" / "run", command, ended)

    def limited(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        """A training whose files end after some bytes."""
        name = chosen.choice(list(TRAININGS))
        ended = whole(name)
        most = max(map(len, contents(ended).values()))
        command = ["train", *TRAININGS[name], "-q", "--out", "run"]
        done = run(command, folder, file_size=chosen.randint(1, most))
        yield again(f"train, files end early ({name})", done, folder / "run", command, ended)

    def written(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        """A command that replaces a file, where there is no room for the new one."""
        shutil.copytree(shared, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("whole", "probe"))
        kind = chosen.choice(WRITING)
        (command, *_) = chosen.sample([c for c in runs.commands("numbers") if c[0] == kind and "-o" in c], 1)
        name = command[command.index("-o") + 1]
        good = run(command, folder)
        assert good.returncode == 0, good.stderr
        size = (folder / name).stat().st_size
        if has_disks and chosen.random() < 0.5:
            with disk(folder, 2**20 + size) as place:
                yield replaced(place, kind, [*command[:-1], *command[-1:]], name, folder, chosen, size)
        else:
            (folder / "disk").mkdir()
            yield replaced(folder / "disk", kind, command, name, folder, chosen, size, chosen.randint(1, size))

    def one(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        yield from chosen.choice([filled, limited, written] if has_disks else [limited, written])(chosen, folder)

    return one


def again(what: str, done: subprocess.CompletedProcess[str], path: Path, first: list[str], whole: Path) -> Trial:
    """A training that may have failed for want of room, and its continuation with room, compared with a whole one."""
    trial = judged(what, done)
    if trial.outcome == "refused":
        folder = path.parent
        command = ["train", "--resume", str(path), "-q"] if path.exists() else [*first[:-1], str(path)]
        rest = run(command, folder)
        if rest.returncode not in (0, 2):  # 2: it was complete already
            return Trial(what, "lost", f"it cannot go on: {rest.stderr}; before: {done.stderr}")
    if trial.outcome != "lost":
        other = [part for part in PARTS if not (path / part).exists() or not same(path / part, whole / part)]
        if other:
            return Trial(what, "lost", f"other bytes in {' and '.join(other)}; before: {done.stderr}")
    return trial


def same(one: Path, other: Path) -> bool:
    """Whether two files are the same."""
    return one.read_bytes() == other.read_bytes()


def replaced(
    place: Path,
    kind: str,
    command: list[str],
    name: str,
    folder: Path,
    chosen: random.Random,
    size: int,
    limit: int = 0,
) -> Trial:
    """Replace a file: it must be the new one or the old one, with nothing beside it."""
    target = place / name
    target.write_bytes(b"old")
    if not limit:
        fill(place)
        with suppress(OSError):  # some room, but not enough, or just enough
            os.truncate(place / "ballast", max(0, (place / "ballast").stat().st_size - chosen.randint(0, size)))
    where = [f"disk/{name}" if part == name else part for part in command]
    done = run([*where, *(["--force"] if kind in ("export", "eject") else [])], folder, file_size=limit)
    (place / "ballast").unlink(missing_ok=True)
    new, left = target.read_bytes(), sorted(path.name for path in place.iterdir() if path != target)
    wrong = "" if len(new) > 3 else "it says that it wrote a file, and did not"
    trial = judged(f"{kind}, {'files end early' if limit else 'the disk is full'}", done, wrong)
    if trial.outcome == "refused" and new != b"old":
        return Trial(trial.what, "lost", f"it failed, and the old file is gone: {done.stderr}")
    if trial.outcome != "lost" and left:
        return Trial(trial.what, "lost", f"it left {left}: {done.stderr}")
    return trial


if __name__ == "__main__":
    raise SystemExit(main("disks", make_round))
