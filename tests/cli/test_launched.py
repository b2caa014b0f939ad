"""Training under torchrun and on two hosts: real processes, which take long."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.forking import HANGS, clean_environment
from tests.helpers.ranks import free_port
from tests.helpers.two_hosts import ADDRESSES, pids, two_hosts

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


def mpirun(folder: Path, count: int, *words: str) -> subprocess.Popen[str]:
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(count), "-x", "MASTER_ADDR=localhost"]
    command += ["-x", f"MASTER_PORT={free_port()}", sys.executable, "-m", "twolayer", "train", *words]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.deep
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun (Open MPI) is not installed")
@pytest.mark.parametrize("rank", ["0", "1"])
def test_mpirun_trains_once_ends_all_after_a_kill_and_resumes_with_the_bits_of_one_process(
    tmp_path: Path, rank: str
) -> None:
    words = ["--epochs", "3000", "-q", "--checkpoint-every", "20"]
    with mpirun(tmp_path, 3, *SETS, *words, "--out", "run") as process:
        history, end = tmp_path / "run" / "history.csv", time.monotonic() + HANGS
        while not (history.exists() and history.stat().st_size > 2000):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.02)
        started = [worker(process.pid, each, "OMPI_COMM_WORLD_RANK") for each in "012"]
        os.kill(started[int(rank)], signal.SIGKILL)
        _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 128 + signal.SIGKILL, stderr
    while any(map(_runs, started)):  # mpirun does not wait for those that it ends
        assert time.monotonic() < end
        time.sleep(0.02)
    with mpirun(tmp_path, 2, "--resume", "run", "-q") as process:
        _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 0, stderr
    alone(tmp_path, "--epochs", "3000", "--out", "whole")
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


@pytest.mark.deep
def test_torchrun_restarts_ten_times_in_a_row_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    words = ["--epochs", "8000", "-q", "--checkpoint-every", "20", "--resume-or-start", "run"]
    run = tmp_path / "run"
    with torchrun(tmp_path, *words, options=["--max-restarts", "10"]) as process:
        for restarts in range(10):
            before = len((run / "history.csv").read_bytes()) if restarts else 0
            goes_on(run, restarts, before + 500, process)
            os.kill(worker(process.pid, str(restarts % 2)), signal.SIGKILL)
        _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 0, stderr
    assert len(resumed(run)) == 10
    alone(tmp_path, "--epochs", "8000", "--out", "whole")
    assert same(run, tmp_path / "whole")


def resumed(run: Path) -> list[dict[str, Any]]:
    """What run.json keeps of each time that the run went on."""
    found: list[dict[str, Any]] = json.loads((run / "run.json").read_text()).get("resumed", [])
    return found


def goes_on(run: Path, restarts: int, size: int, process: subprocess.Popen[str]) -> None:
    """Wait until the run has gone on so often, and has so many bytes of losses."""
    history, end = run / "history.csv", time.monotonic() + HANGS
    while not (history.exists() and len(resumed(run)) == restarts and history.stat().st_size >= size):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.deep
@pytest.mark.parametrize("lost", [1], ids=["the host that does not keep the rendezvous"])
def test_torchrun_goes_on_without_a_lost_host_and_ends_with_the_same_bits(lost: int, tmp_path: Path) -> None:
    words = ["--epochs", "4000", "-q", "--checkpoint-every", "20", "--resume-or-start", "run"]
    run = tmp_path / "run"  # on a disk of both hosts
    with two_hosts() as hosts, ExitStack() as stack:
        agents = []
        for before, address in zip(hosts, ADDRESSES, strict=True):
            is_host = f"is_host={address == ADDRESSES[0]}"  # the names of these hosts lead to 127.0.1.1
            options = ["--nnodes", "1:2", "--max-restarts", "3", "--rdzv-id", "elastic", "--local-addr", address]
            place = [
                "--nproc-per-node",
                "1",
                "--rdzv-backend",
                "c10d",
                "--rdzv-endpoint",
                f"{ADDRESSES[0]}:29512",
                "--rdzv-conf",
                is_host,
            ]
            command = [*before, sys.executable, "-m", "torch.distributed.run", *options, *place]
            command += ["-m", "twolayer", "train", *SETS, *words]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            agents.append(
                stack.enter_context(
                    subprocess.Popen(command, cwd=tmp_path, env=environment(), text=True, **pipes)  # type: ignore[call-overload]
                )
            )
        goes_on(run, 0, 2000, agents[0])
        assert json.loads((run / "run.json").read_text())["ranks"] == 2
        for pid in pids(hosts[lost]):
            os.kill(pid, signal.SIGKILL)
        agents[lost].communicate()
        _, stderr = agents[1 - lost].communicate(timeout=HANGS)
        assert agents[1 - lost].returncode == 0, stderr
    assert resumed(run)
    alone(tmp_path, "--epochs", "4000", "--out", "whole")
    assert same(run, tmp_path / "whole")


def _runs(pid: int) -> bool:
    """Whether a process has not ended yet; an ended one may stay in the table of processes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def worker(agent: int, rank: str, variable: str = "RANK") -> int:
    """The pid of the process of this rank that torchrun, or another launcher, has started."""
    for children in Path(f"/proc/{agent}/task").glob("*/children"):
        for pid in children.read_text().split():
            if f"{variable}={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
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
