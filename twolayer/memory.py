"""How much memory a training or a table needs, and whether there is as much: known before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from twolayer.config import Config
from twolayer.errors import ConfigError, DataError, Origin, Problem

# Of so many numbers at the most are the hidden units that are held at once: those of more rows come in parts.
PART = 2**24

_ITEMSIZE = {"float32": 4, "float64": 8}


def needed(config: Config) -> int:
    """The bytes that a training takes on the device, at the least.

    The data, N (D_in + D_out); the parameters and their gradients; an activation (N, H) and an output (N, D_out),
    each with its gradient, or those of a part of the rows; and where the form is dual, its K (N, N) and what collects
    the steps, (N, H).
    """
    dual = config.N * (config.N + config.H) if config.form == "dual" else 0
    rows = part_rows(config.H, config.N) if in_parts(config) and config.form != "dual" else config.N
    numbers = _drawn(config) + _parameters(config) + 2 * rows * (config.H + config.D_out) + dual
    return numbers * _ITEMSIZE[config.dtype]


def in_parts(config: Config) -> bool:
    """Whether the training goes by rows: in batches, with some for validation, or with more than are held at once."""
    is_batched = config.batch_size is not None and config.batch_size < config.N
    return is_batched or config.validation is not None or config.N * config.H > PART


def batches(N: int, batch_size: int) -> int:
    """The updates in an epoch: as many as bring the batches, of equal size, nearest to the one that is wanted."""
    return max(1, (2 * N + batch_size) // (2 * batch_size))


def part_rows(H: int, most: int) -> int:
    """The rows whose hidden units are held at once, of so many."""
    return min(max(1, PART // H), most)


def needed_by_host(config: Config) -> int:
    """The bytes that a training takes in the CPU's memory, where everything is drawn in float32, at the least."""
    if config.device == "cpu":
        originals = 4 * _drawn(config) if config.dtype == "float64" else 0
        return max(needed(config), originals + _drawn(config) * _ITEMSIZE[config.dtype])
    return 4 * _drawn(config)


def needed_to_save(config: Config) -> int:
    """The bytes that writing a checkpoint takes besides: two copies of the engine's state, by safetensors."""
    steps = config.N * config.H if config.form == "dual" else 0
    return 2 * (_parameters(config) + steps) * _ITEMSIZE[config.dtype]


def _parameters(config: Config) -> int:
    return config.H * (config.D_in + 1) + config.D_out * (config.H + 1)


def _drawn(config: Config) -> int:
    return config.N * (config.D_in + config.D_out) + _parameters(config)


def available() -> int | None:
    """The bytes this process can still take, by the system, its container and its own limit; None where none says."""
    limits = [limit for limit in (_system(), _container(), _process()) if limit is not None]
    return min(limits, default=None)


def _system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux: the physical memory is all that the standard library knows
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the control group leaves: its limit less what is in use and is no cache that would give way."""
    for limit, usage, cache, statistics in (
        (root / "memory.max", root / "memory.current", "inactive_file", root / "memory.stat"),
        (
            root / "memory" / "memory.limit_in_bytes",
            root / "memory" / "memory.usage_in_bytes",
            "total_inactive_file",
            root / "memory" / "memory.stat",
        ),
    ):
        try:
            most, used = int(limit.read_text()), int(usage.read_text())  # the limit may be the word "max"
            lines = dict(line.split() for line in statistics.read_text().splitlines())
            return max(0, most - used + int(lines.get(cache, 0)))
        except (OSError, ValueError):
            continue
    return None


def _process() -> int | None:
    """What the process's own limit (`ulimit -v`) leaves."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        return max(0, limit - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    except (ImportError, OSError):  # no Linux
        return None


def check_table(need: int, name: str, free: int | None = None) -> None:
    """Raise DataError, with both sizes, for a table that needs at least `need` bytes, where there are fewer."""
    free = available() if free is None else free
    if free is not None and need > free:
        raise DataError(f"{name}: needs at least {size(need)} of memory, and {size(free)} is available")


def check(config: Config, name: str = "config", *, saved: bool = False) -> None:
    """Raise ConfigError, with the size, for a training that cannot fit into the CPU's memory; one that is saved."""
    need, free = needed_by_host(config) + (needed_to_save(config) if saved else 0), available()
    if free is not None and need > free:
        message = f"{config.shape} needs at least {size(need)} of memory, and {size(free)} is available"
        raise ConfigError([Problem(Origin(name), "", message)])


def size(count: int) -> str:
    """A number of bytes, in the unit that suits it."""
    amount, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.3g} {units[0]}" if amount < 1000 else f"{amount:.0f} {units[0]}"
