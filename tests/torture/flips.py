"""Runs with damaged files, and every command on them: the right result, or an error that says what is damaged.

python -m tests.torture.flips [--seed N] [--rounds N] [--minutes M]
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tests.torture import runs
from tests.torture.driver import Round, Trial, contents, crash, main

Damage = Callable[[bytearray, random.Random], bytearray]


def bit(data: bytearray, chosen: random.Random) -> bytearray:
    """One bit is another."""
    data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    return data


def byte(data: bytearray, chosen: random.Random) -> bytearray:
    """One byte is any."""
    data[chosen.randrange(len(data))] = chosen.randrange(256)
    return data


def digit(data: bytearray, chosen: random.Random) -> bytearray:
    """One decimal digit is another, as a slip of a hand would have it."""
    places = [place for place, value in enumerate(data) if 48 <= value < 58]
    if places:
        place = chosen.choice(places)
        data[place] = 48 + (data[place] - 48 + chosen.randint(1, 9)) % 10
    return data


def block(data: bytearray, chosen: random.Random) -> bytearray:
    """A block of a disk is zeros."""
    start = chosen.randrange(0, len(data), 512)
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    return data


def cut(data: bytearray, chosen: random.Random) -> bytearray:
    """The end is missing."""
    return data[: chosen.randrange(len(data))]


def doubled(data: bytearray, chosen: random.Random) -> bytearray:
    """A part occurs twice."""
    start, end = sorted(chosen.randrange(len(data) + 1) for _ in "ab")
    return data[:end] + data[start:]


def dropped(data: bytearray, chosen: random.Random) -> bytearray:
    """A part is missing."""
    start, end = sorted(chosen.randrange(len(data) + 1) for _ in "ab")
    return data[:start] + data[end:]


def line(data: bytearray, chosen: random.Random) -> bytearray:
    """Two lines have changed places."""
    lines = data.splitlines(keepends=True)
    one, other = chosen.randrange(len(lines)), chosen.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return bytearray().join(lines)


DAMAGES: list[Damage] = [bit, byte, digit, block, cut, doubled, dropped, line]


def make_round(shared: Path) -> Round:
    """Damage a file of a run, or two, and run the commands that read runs."""
    names = runs.make_runs(shared)

    @cache
    def truth(name: str, *command: str) -> dict[str, str | bytes]:
        """What a command gives for the run as it is."""
        folder = Path(tempfile.mkdtemp(dir=shared.parent))
        shutil.copytree(shared, folder, dirs_exist_ok=True)
        return runs.result(runs.ran(list(command), folder), folder, name)

    def one(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        name = chosen.choice(list(names))
        shutil.copytree(shared, folder, dirs_exist_ok=True)
        path = folder / "runs" / name
        files = sorted(contents(path))
        damaged = [chosen.choice(files) for _ in range(chosen.choice((1, 1, 2)))]
        how = []
        for file in damaged:
            how.append(hurt(path, file, folder, list(names), chosen))
        before = contents(path)
        for command in runs.some_commands(name, names[name], chosen):
            done = runs.ran(command, folder)
            what = "checkpoint" if "/" in damaged[0] else damaged[0]
            told = f"{name}: {', '.join(how)}: {' '.join(command)}: "
            got = runs.result(done, folder, name)
            if detail := crash(done):
                yield Trial(what, "lost", told + detail)
            elif done.returncode:
                changed = contents(path) != before
                yield Trial(what, "lost", told + "it failed, and changed files") if changed else Trial(what, "refused")
            elif got == truth(name, *command):
                yield Trial(what, "survived")
            elif is_said(damaged, done.stderr, got):
                yield Trial(what, "refused")
            else:
                other = [part for part in got if got[part] != truth(name, *command).get(part)]
                yield Trial(
                    what, "lost", f"{told}another {' and '.join(other)} without a word: {done.stderr}\n{got}"[:3000]
                )

    return one


def hurt(path: Path, file: str, folder: Path, names: list[str], chosen: random.Random) -> str:
    """Damage a file of the run at a path; what was done."""
    target = path / file
    if not target.exists():
        return f"{file} removed before"
    if chosen.random() < 0.05:
        target.unlink()
        return f"{file} removed"
    if chosen.random() < 0.05:
        other = folder / "runs" / chosen.choice(names)
        if (other / file).exists():
            target.write_bytes((other / file).read_bytes())
        return f"{file} of {other.name}"
    data = bytearray(target.read_bytes())
    if not data:
        return f"{file} is empty"
    damage = chosen.choice(DAMAGES)
    target.write_bytes(damage(data, chosen))
    return f"{file} {damage.__name__}"


def is_said(damaged: list[str], stderr: str, got: dict[str, str | bytes]) -> bool:
    """Whether a command that shows what is left of a run names a damaged or missing file, or calls rows unsealed."""
    shown = "".join(part if isinstance(part, str) else part.decode(errors="replace") for part in got.values())
    said = ["no checkpoint of the last"] if any("/" in file for file in damaged) else []
    said += [text for file in damaged for text in (f"{file}: ", f"has no {file}")]
    return "unsealed" in shown or any(text in stderr + shown for text in said)


if __name__ == "__main__":
    raise SystemExit(main("flips", make_round))
