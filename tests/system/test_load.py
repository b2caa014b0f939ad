from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.forking import clean_environment
from twolayer.system import load
from twolayer.system.load import free_cpus, is_busy


@pytest.mark.parametrize(
    ("running", "cpus", "free"),
    [(0, 2, 2), (1, 2, 2), (2, 2, 1), (3, 2, 0), (9, 2, 0), (4, 8, 5), (5, 8, 4), (1, 1, 1)],
)
def test_a_cpu_is_free_that_no_other_thread_wants(running: int, cpus: int, free: int, tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text(f"0.42 0.21 0.07 {running}/250 4321\n")
    assert free_cpus(tmp_path / "loadavg", cpus) == free


@pytest.mark.parametrize("text", ["", "0.42 0.21", "0.42 0.21 0.07 many/250 4321\n"])
def test_where_nothing_is_told_all_are_free(text: str, tmp_path: Path) -> None:
    assert free_cpus(tmp_path / "missing", 2) == 2
    (tmp_path / "loadavg").write_text(text)
    assert free_cpus(tmp_path / "loadavg", 2) == 2


@pytest.mark.parametrize(("free", "busy"), [(0, True), (4, True), (5, False), (8, False)])
def test_a_machine_is_busy_if_others_want_half_of_its_cpus(
    free: int, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(load, "free_cpus", lambda: free)
    assert is_busy() == busy


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
