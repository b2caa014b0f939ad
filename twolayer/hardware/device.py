"""The device: which one, its name, and its free memory."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable

import torch

from twolayer.config.schema import Config
from twolayer.errors import DeviceError
from twolayer.formatting import setting
from twolayer.hardware import memory
from twolayer.system import available_memory

# Bytes of a GPU that a process with CUDA has for itself: 300 to 400 MB (pytorch/pytorch#107667 and #109888), and more.
_CONTEXT = 512 * 2**20


def resolve_device(device: str, dtype: str = "float32") -> str:
    """The device to compute on: `auto` is the first available of cuda, mps and cpu; `cuda` becomes `cuda:<n>`.

    Raises DeviceError, with the reason, if the device is not available; never falls back to another.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return resolve_device("cuda")
        return "mps" if torch.backends.mps.is_available() and dtype != "float64" else "cpu"
    if device == "mps" and not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        reason = "this machine has no Metal GPU" if built else f"PyTorch {torch.__version__} is built without it"
        raise DeviceError(f"no device mps: {reason}; use {setting('device', 'cpu')}")
    if device.startswith("cuda"):
        _, _, number = device.partition(":")
        if reason := _why_no_cuda(int(number) if number else None):
            raise DeviceError(f"no device {device}: {reason}")
        return device if number else f"cuda:{torch.cuda.current_device()}"
    return device


def _why_no_cuda(ordinal: int | None) -> str:
    """Why there is no such GPU and what to do about it; empty if there is one."""
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"PyTorch {torch.__version__} is a CPU-only build; install one with CUDA, or use {setting('device', 'cpu')}"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # torch names the cause: no driver, one too old, or no GPU
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        if visible is not None and "driver" not in reason.lower():
            hidden = f"CUDA_VISIBLE_DEVICES is {visible!r}, which hides every GPU"
            return f"{hidden}; unset it, or use {setting('device', 'cpu')}"
        return f"PyTorch cannot use CUDA ({reason}); fix that, or use {setting('device', 'cpu')}"
    count = torch.cuda.device_count()
    hidden = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else ""
    if ordinal is not None and ordinal >= count:
        names = ", ".join(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count))
        return f"available: {names}{hidden}"
    return ""


def device_name(device: str) -> str:
    """The device and the name of its GPU: `cuda:0 (NVIDIA H100 80GB HBM3)`."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device


def fits(config: Config, ranks: int = 1) -> bool:
    """Whether the training by these ranks fits into the free memory of its device, which must not be `auto`."""
    free = free_memory(config.device)
    return free is None or memory.needed(config, ranks) <= free


def at_once(configs: Iterable[Config], most: int) -> tuple[int, str]:
    """How many of these trainings, at least 1 and at most `most`, fit into GPU memory at once, each in a process.

    And the GPU that has no room for more, empty where all have. The largest trainings of a GPU are counted, wherever
    they come in the order. No device must be `auto`.
    """
    needs = defaultdict[str, list[int]](list)
    for config in configs:
        if config.device != "cpu":
            needs[config.device].append(_CONTEXT + memory.needed(config))
    count, full = most, ""
    for device, each in needs.items():
        fitting = memory.fitting(each, free_memory(device), most)
        if fitting < min(count, len(each)):
            count, full = fitting, device
    return count, full


def free_memory(device: str) -> int | None:
    """The free bytes of a device; None if the system does not say."""
    if device.startswith("cuda"):
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch will use it again
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return available_memory.available()
