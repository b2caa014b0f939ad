"""CPU threads and matmul precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import torch

from twolayer.config.schema import Config
from twolayer.engines.selection import GROUP_ROWS, operations, rows_at_once
from twolayer.errors import DeviceError
from twolayer.formatting import size
from twolayer.hardware import memory
from twolayer.system.load import free_cpus

# One thread per this many operations on the rows that are computed at once: less is hardly worth sharing, and on a busy
# machine threads wait for each other many times as long as they compute (docs/performance.md, "Threads"). Those of the
# compiled engine are handed their work by Python.
THREAD_OPERATIONS = 40_000_000
THREAD_OPERATIONS_COMPILED = 8_000_000


def choose_threads(config: Config) -> int:
    """The CPU threads of a config whose engine and form are chosen; `auto`: more, the more is computed at once."""
    if config.threads != "auto":
        return config.threads
    if config.parts is not None:  # products are the same bits at one thread alone
        return 1
    rows = min(config.N, config.batch_size or config.N)
    if config.engine == "compiled":
        shared = rows // GROUP_ROWS  # what threads share
        return max(1, min(operations(config, rows) // THREAD_OPERATIONS_COMPILED, shared, cores()))
    at_once = min(rows, rows_at_once(config))
    return max(1, min(operations(config, at_once) // THREAD_OPERATIONS, cores()))


def cores() -> int:
    """The CPU threads that PyTorch would use here, at most the CPUs that the container may use."""
    return max(1, int(min(torch.get_num_threads(), _quota())))


def _quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """How many CPUs the control groups (cgroups) allow this process; infinite without a limit."""
    paths = {Path("/")}  # a container sees its own group as the root
    try:
        for line in own.read_text().splitlines():
            path = Path(line.split(":", 2)[2])
            paths |= {path, *path.parents}
    except (OSError, IndexError):  # not Linux
        return float("inf")
    limits = [float("inf")]
    for path in paths:
        below = path.relative_to("/")
        older = root / "cpu" / below  # cgroup v1
        for files in ([root / below / "cpu.max"], [older / "cpu.cfs_quota_us", older / "cpu.cfs_period_us"]):
            with suppress(OSError, ValueError):  # missing, or the word "max"
                quota, period = map(int, " ".join(file.read_text() for file in files).split())
                limits += [quota / period] if quota > 0 else []
    return min(limits)


class ShortWaits:
    """Lets PyTorch's threads wait for each other with little spinning, at the same number of threads.

    GNU OpenMP lets a thread spin for milliseconds before it sleeps, which beside other programs takes the CPU from the
    thread that is waited for; but only a hundred times while it has more threads than there are CPUs. So a second set
    of threads is made, which do nothing. Another OpenMP is left as it is.
    """

    def __init__(self) -> None:
        self.end: Event | None = None

    def set(self, are_on: bool) -> None:
        """Begin or end it, where that has not been done."""
        if are_on and self.end is None:
            self.end = Event()
            Thread(target=self._hold, args=(self.end,), daemon=True).start()
        elif not are_on and self.end is not None:
            self.end.set()
            self.end = None

    @staticmethod
    def _hold(end: Event) -> None:
        torch.zeros(2**16).add_(1)  # is shared among new threads: OpenMP keeps some for each thread that computes
        end.wait()


short_waits = ShortWaits()


@contextmanager
def set_up(config: Config) -> Iterator[None]:
    """Use the config's threads and precision inside; both belong to the whole process, so they are restored.

    `threads` must be a number (see `training.setup.resolve_auto`). Turns torch's out-of-memory errors, which differ by
    device, into a DeviceError.
    """
    threads, wanted = torch.get_num_threads(), int(config.threads)
    precisions = {
        torch.backends.cuda.matmul: "tf32" if config.precision == "tf32" else "ieee",
        torch.backends.mkldnn.matmul: "ieee",  # type: ignore[attr-defined]
    }
    changed = {}
    for backend, precision in precisions.items():
        before = backend.fp32_precision
        if before != precision and (before, precision) != ("none", "ieee"):  # "none" is full precision
            changed[backend] = before
            backend.fp32_precision = precision
    short_waits.set(wanted > 1 and free_cpus() < wanted)  # it takes the number of threads from before
    if wanted != threads:
        torch.set_num_threads(wanted)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
            need = size(memory.needed(config))
            raise DeviceError(f"out of memory on {config.device}: the training needs at least {need}") from None
        raise
    finally:
        if wanted != threads:
            torch.set_num_threads(threads)
        for backend, before in changed.items():
            # A value inherited from the setting for all backends is not its own.
            backend.fp32_precision = "none" if before == torch.backends.fp32_precision else before  # type: ignore[attr-defined]
