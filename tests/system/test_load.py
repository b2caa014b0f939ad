from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.forking import clean_environment
from twolayer.system.load import is_busy


@pytest.mark.parametrize(
    ("running", "cpus", "busy"), [(1, 2, False), (2, 2, True), (3, 2, True), (4, 8, False), (5, 8, True), (1, 1, False)]
)
def test_a_machine_is_busy_if_others_want_half_of_its_cpus(running: int, cpus: int, busy: bool, tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text(f"0.42 0.21 0.07 {running}/250 4321\n")
    assert is_busy(tmp_path / "loadavg", cpus) == busy


@pytest.mark.parametrize("text", ["", "0.42 0.21", "0.42 0.21 0.07 many/250 4321\n"])
def test_where_nothing_is_told_it_is_not_busy(text: str, tmp_path: Path) -> None:
    assert not is_busy(tmp_path / "missing", 2)
    (tmp_path / "loadavg").write_text(text)
    assert not is_busy(tmp_path / "loadavg", 2)


def test_the_command_lets_threads_wait_without_spinning_only_where_others_want_the_cores() -> None:
    program = (
        "import os, sys; sys.argv = ['twolayer', '--version']; from twolayer.__main__ import main; main(); "
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )

    def spins(**more: str) -> str:
        environment = {key: value for key, value in clean_environment().items() if key != "OMP_WAIT_POLICY"} | more
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()[-1]

    assert spins() in ("0", "1000")
    assert spins(GOMP_SPINCOUNT="7") == "7"
    assert spins(OMP_WAIT_POLICY="active") == "None"
