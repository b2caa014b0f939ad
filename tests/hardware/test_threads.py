from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.forking import clean_environment
from twolayer.config.loading import load_config
from twolayer.errors import DeviceError
from twolayer.hardware import threads
from twolayer.hardware.threads import choose_threads, cores, set_up


def test_small_iterations_take_one_thread_and_large_ones_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(threads, "_quota", lambda: float("inf"))
    dual: dict[str, Any] = {"engine": "fused", "form": "dual"}
    small, wide = load_config("scratch"), load_config("default", H=10_000, **dual)
    large = load_config("default", N=4096, D_in=1024, H=1024, D_out=64)
    assert [choose_threads(config) for config in (small, load_config("default", **dual), wide, large)] == [1, 1, 3, 6]
    assert [choose_threads(config.model_copy(update={"threads": 3})) for config in (small, large)] == [3, 3]
    batches = [load_config("default", N=6400, D_in=D_in, H=300, D_out=10, batch_size=64) for D_in in (200, 1600)]
    assert [choose_threads(config) for config in batches] == [1, 3]
    skinny: dict[str, Any] = {"N": 500_000, "D_in": 20, "H": 64, "D_out": 1}
    in_parts = load_config("default", engine="fused", form="primal", **skinny)
    at_once = load_config("default", engine="autograd", **skinny)
    assert [choose_threads(config) for config in (in_parts, at_once)] == [1, 6]


def test_threads_are_put_back_also_after_an_error() -> None:
    before = torch.get_num_threads()
    config = load_config("default", threads=before + 1)
    with pytest.raises(ZeroDivisionError), set_up(config):
        print(1 / (torch.get_num_threads() - before - 1))
    assert torch.get_num_threads() == before


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_beside_other_programs_more_threads_let_those_of_a_training_sleep_and_no_bit_changes(tmp_path: Path) -> None:
    program = (
        "import os, torch, twolayer\nfrom twolayer.hardware import threads\n"
        "config = twolayer.load_config('default', N=1000, threads=2, form='primal', engine='fused', epochs=3)\n"
        "def trained(free):\n"
        "    threads.free_cpus = lambda: free\n"
        "    with threads.set_up(config):\n"
        "        losses = twolayer.train(config).losses\n"
        "        held = threads.short_waits.end is not None\n"
        "    return losses, held\n"
        "torch.set_num_threads(2)\n"
        "alone, beside, again = trained(2), trained(1), trained(2)\n"
        "assert (alone[1], beside[1], again[1]) == (False, True, False)\n"
        "assert alone[0] == beside[0] == again[0]"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=clean_environment(), check=True)


def test_an_allocation_that_fails_is_a_device_error() -> None:
    config = load_config("default", N=10**13, threads=1)
    with (
        pytest.raises(DeviceError, match="out of memory on cpu: the training needs at least"),
        set_up(config),
    ):
        torch.empty(2**60)


def test_other_errors_of_torch_pass_through() -> None:
    with pytest.raises(RuntimeError, match="mat1"), set_up(load_config("default", threads=1)):
        torch.mm(torch.ones(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize("precision", ["full", "tf32"])
def test_precision_is_the_configs_inside_and_the_callers_again_outside(precision: str) -> None:
    cuda, cpu = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        outside = cuda.fp32_precision, cpu.fp32_precision
        with set_up(load_config("default", threads=1, precision=precision)):
            assert cuda.fp32_precision == ("ieee" if precision == "full" else "tf32")
            assert cpu.fp32_precision == "ieee"
        assert (cuda.fp32_precision, cpu.fp32_precision) == outside
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("limit", "most"), [("max 100000", 64), ("400000 100000", 4), ("150000 100000", 1), ("50000 100000", 1), ("", 64)]
)
def test_no_more_threads_than_the_containers_cpus(
    limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = tmp_path / "groups"
    groups.write_text("0::/\n")
    if limit:
        (tmp_path / "cpu.max").write_text(limit + "\n")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    quota = threads._quota(tmp_path, groups)
    monkeypatch.setattr(threads, "_quota", lambda: quota)
    assert cores() == most
    assert choose_threads(load_config("default", N=4096, D_in=4096)) == most


def test_the_groups_above_count_too_and_the_smallest_limit_wins(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    groups.write_text("0::/user.slice/work.scope\n")
    (tmp_path / "user.slice" / "work.scope").mkdir(parents=True)
    (tmp_path / "user.slice" / "cpu.max").write_text("200000 100000\n")
    (tmp_path / "user.slice" / "work.scope" / "cpu.max").write_text("300000 100000\n")
    assert threads._quota(tmp_path, groups) == 2


def test_an_older_kernels_limit_counts(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    groups.write_text("12:cpu,cpuacct:/docker/1\n1:name=systemd:/\n")
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert threads._quota(tmp_path, groups) == float("inf")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("250000\n")
    assert threads._quota(tmp_path, groups) == 2.5


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert threads._quota(tmp_path, tmp_path / "no such file") == float("inf")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to CPUs")
def test_a_process_bound_to_one_cpu_takes_one_thread() -> None:
    cpu = min(os.sched_getaffinity(0))
    program = (
        f"import os; os.sched_setaffinity(0, {{{cpu}}}); from twolayer.hardware import threads; print(threads.cores())"
    )
    environment = {key: value for key, value in clean_environment().items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
