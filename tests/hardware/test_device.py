from __future__ import annotations

import pytest
import torch

from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.errors import DeviceError
from twolayer.hardware import memory
from twolayer.hardware.device import at_once, resolve_device

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_without_a_gpu_cuda_is_refused_with_the_reason(device: str) -> None:
    reason = r"(PyTorch \S+ is a CPU-only build; install one with CUDA|PyTorch cannot use CUDA \(.+\); fix that)"
    with pytest.raises(DeviceError, match=rf"no device {device}: {reason}, or use device=\"cpu\""):
        resolve_device(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_on_a_cpu_only_build_the_reason_is_that(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(DeviceError, match=rf"no device {device}: PyTorch \S+ is a CPU-only build"):
        resolve_device(device)


@pytest.mark.parametrize("hidden", [False, True])
def test_on_a_build_with_cuda_without_a_driver_the_reason_is_pytorchs(
    hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init() -> None:
        raise RuntimeError("No CUDA GPUs are available. More words")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        reason = "CUDA_VISIBLE_DEVICES is '', which hides every GPU; unset it"
    else:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        reason = r"PyTorch cannot use CUDA \(No CUDA GPUs are available\); fix that"
    with pytest.raises(DeviceError, match=f'no device cuda: {reason}, or use device="cpu"'):
        resolve_device("cuda")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a Metal GPU")
def test_without_metal_mps_is_refused_with_the_reason() -> None:
    with pytest.raises(DeviceError, match=r"no device mps: (PyTorch .* is built without it|this machine has no Metal)"):
        resolve_device("mps")


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    assert resolve_device("auto") == "cpu"


@pytest.mark.cuda
@needs_cuda
def test_cuda_is_the_first_gpu_and_auto_takes_it() -> None:
    assert resolve_device("cuda") == resolve_device("auto") == "cuda:0"


@pytest.mark.cuda
@needs_cuda
def test_an_ordinal_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(DeviceError, match=r"no device cuda:99: available: cuda:0 \S+"):
        resolve_device("cuda:99")


def test_as_many_trainings_at_once_as_the_gpu_has_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    free = dict[str, int]()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)

    def on(device: str, H: int = 4) -> Config:
        return load_config("modules", device=device, H=H, engine="autograd", environment={})

    each = 512 * 2**20  # of a process, beside which a small training is nothing
    for gigabytes, count in ((0.1, 1), (0.9, 1), (1.2, 2), (3.5, 6), (80, 8)):
        free["cuda:0"] = int(gigabytes * 2**30)
        assert at_once([on("cuda:0")] * 100, 8) == (count, "cuda:0" if count < 8 else "")
    large = on("cuda:0", H=10**8)  # the largest count, wherever they are
    free["cuda:0"] = int((2 * memory.needed(large) + 3 * each) / 0.9)
    assert at_once([on("cuda:0"), large, on("cuda:0"), large], 4) == (2, "cuda:0")
    assert at_once([on("cuda:0"), large, on("cuda:0")], 3) == (3, "")
    free["cuda:0"] = free["cuda:1"] = int(1.2 * 2**30)
    assert at_once([on("cuda:0"), on("cuda:0"), on("cuda:1"), on("cuda:1")], 4) == (4, "")
    assert at_once([on("cuda:0"), on("cuda:0"), *[on("cuda:1")] * 3], 4) == (2, "cuda:1")
    assert at_once([on("cpu")] * 4, 4) == (4, "")
