"""The drivers of `make torture`: what they count as lost, and that a round can be had again."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.forking import clean_environment
from tests.torture import driver
from tests.torture.driver import Round, Trial, crash, judged, main
from tests.torture.flips import DAMAGES, Damage

ROOT = Path(__file__).parents[2]
DRIVERS = ("kills", "ranks", "flips", "strangers", "disks", "inputs", "crowds")


def ended(code: int, stderr: str = "", stdout: str = "") -> driver.Done:
    return subprocess.CompletedProcess([], code, stdout, stderr)


@pytest.mark.parametrize(
    ("done", "outcome"),
    [
        (ended(0), "survived"),
        (ended(0, "a note\n"), "survived"),
        (ended(1, "error: x\n"), "refused"),
        (ended(2, "error: x\n"), "refused"),
        (ended(3, "error: the loss is nan\n"), "refused"),
        (ended(1), "lost"),
        (ended(1, 'Traceback (most recent call last)\n  File "x"\n'), "lost"),
        (ended(0, "thread '<unnamed>' panicked at x\n"), "lost"),
        (ended(0, "x.py:1: RuntimeWarning: overflow\n"), "lost"),
        (ended(-9, "it did not end"), "lost"),
        (ended(-11), "lost"),
        (ended(134, "Fatal Python error: Aborted\n"), "lost"),
    ],
)
def test_what_is_no_result_and_no_message_is_lost(done: driver.Done, outcome: str) -> None:
    assert judged("it", done).outcome == outcome
    assert bool(crash(done)) == (outcome == "lost")


def test_a_wrong_result_is_lost_and_an_error_before_it_is_not() -> None:
    assert judged("it", ended(0), "another number") == Trial("it", "lost", "another number")
    assert judged("it", ended(1, "error: x\n"), "another number").outcome == "refused"


def drawing(losing: int | None, drawn: list[float]) -> driver.Round:
    """Rounds of two trials; the one of that number loses one."""
    rounds: Iterator[int] = iter(range(1000))

    def one(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        assert list(folder.iterdir()) == []
        (folder / "file").touch()
        number = next(rounds)
        drawn.append(chosen.random())
        yield Trial("one", "survived")
        yield Trial("other", "lost", "it fell over") if number == losing else Trial("other", "refused")

    return one


def test_counts_stand_at_the_end_and_a_loss_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("it", lambda shared: drawing(None, []), ["--rounds", "3"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[-3:] == [["one", "3", "3", "0", "0"], ["other", "3", "0", "3", "0"], ["all", "6", "3", "3", "0"]]
    assert rows[-4] == ["tried", "survived", "refused", "lost"]
    assert main("it", lambda shared: drawing(1, []), ["--rounds", "3", "--first", "10"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("lost in round 11: other: it fell over\n")
    assert out.splitlines()[-1].split() == ["all", "6", "3", "2", "1"]


def test_a_round_can_be_had_again_by_its_number() -> None:
    all_of_them: list[float] = []
    one: list[float] = []
    other_seed: list[float] = []
    main("it", lambda shared: drawing(None, all_of_them), ["--rounds", "4", "--seed", "7"])
    main("it", lambda shared: drawing(None, one), ["--rounds", "1", "--seed", "7", "--first", "2"])
    main("it", lambda shared: drawing(None, other_seed), ["--rounds", "1", "--seed", "8", "--first", "2"])
    assert one == all_of_them[2:3]
    assert len({*all_of_them, *other_seed}) == 5


def test_no_minutes_are_no_rounds_and_nothing_tried_is_no_proof() -> None:
    def make_round(shared: Path) -> Round:
        return drawing(None, [])

    assert main("it", make_round, ["--minutes", "0"]) == 1


@pytest.mark.parametrize("damage", DAMAGES, ids=[damage.__name__ for damage in DAMAGES])
def test_damage_is_damage(damage: Damage) -> None:
    data, chosen = b"iteration,loss\n1,11.25\n2,10.5\n3,9.75\n" * 20, random.Random(0)
    assert sum(damage(bytearray(data), chosen) != data for _ in range(20)) >= 10


@pytest.mark.deep
@pytest.mark.parametrize("name", DRIVERS)
def test_two_rounds_of_a_driver_lose_nothing(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.torture.{name}", "--rounds", "2", "--seed", "5"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split()[-1] == "0"
