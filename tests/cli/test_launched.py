"""Training under torchrun and on two hosts: real processes, which take long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.forking import HANGS, clean_environment
from tests.helpers.two_hosts import ADDRESSES, two_hosts

SETS = [word for key in ["N=9", "D_in=7", "H=8", "D_out=2", "lr=1e-4"] for word in ("--set", key)]
ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    return clean_environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", **more)


def torchrun(folder: Path, *words: str, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", *options, "-m", "twolayer", "train", *SETS, *words]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def alone(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "twolayer", "train", *SETS, "--set", "parts=12", "-q", *words]
    subprocess.run(command, cwd=folder, env=environment(), capture_output=True, check=True, timeout=HANGS)


def same(one: Path, other: Path) -> bool:
    return all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in ("history.csv", "model.safetensors")
    )


@pytest.mark.deep
def test_torchrun_trains_once_with_the_bits_of_one_process_and_again_does_nothing(tmp_path: Path) -> None:
    words = ["--epochs", "30", "--format", "csv", "--resume-or-start", "run"]
    for rows in (31, 0):
        with torchrun(tmp_path, *words) as process:
            stdout, stderr = process.communicate(timeout=HANGS)
        assert (process.returncode, len(stdout.splitlines())) == (0, rows), stderr
    assert "run run is completed" in stderr
    alone(tmp_path, "--epochs", "30", "--out", "whole")
    assert same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.deep
@pytest.mark.parametrize("rank", ["0", "1"])
def test_torchrun_restarts_after_a_kill_and_ends_with_the_same_bits(tmp_path: Path, rank: str) -> None:
    words = ["--epochs", "3000", "-q", "--checkpoint-every", "20", "--resume-or-start", "run"]
    with torchrun(tmp_path, *words, options=["--max-restarts", "2"]) as process:
        history, end = tmp_path / "run" / "history.csv", time.monotonic() + HANGS
        while not (history.exists() and history.stat().st_size > 2000):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(worker(process.pid, rank), signal.SIGKILL)
        _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 0, stderr
    alone(tmp_path, "--epochs", "3000", "--out", "whole")
    assert same(tmp_path / "run", tmp_path / "whole")


def worker(agent: int, rank: str) -> int:
    """The pid of torchrun's worker of this rank."""
    for children in Path(f"/proc/{agent}/task").glob("*/children"):
        for pid in children.read_text().split():
            if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return int(pid)
    raise AssertionError("no such worker")


@pytest.mark.deep
def test_two_hosts_end_with_the_bits_of_one_process(tmp_path: Path) -> None:
    with two_hosts() as hosts:
        processes = []
        for rank, before in enumerate(hosts):
            folder = tmp_path / f"host-{rank}"
            folder.mkdir()
            places = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
            command = [
                *before,
                sys.executable,
                "-m",
                "twolayer",
                "train",
                *SETS,
                "--epochs",
                "30",
                "-q",
                "--out",
                "run",
            ]
            variables = environment(MASTER_ADDR=ADDRESSES[0], MASTER_PORT="29511", **places)
            processes.append(
                subprocess.Popen(
                    command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
        ends = [process.communicate(timeout=HANGS) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], ends
    assert not list((tmp_path / "host-1").iterdir())  # the first alone writes
    alone(tmp_path, "--epochs", "30", "--out", "whole")
    assert same(tmp_path / "host-0" / "run", tmp_path / "whole")
