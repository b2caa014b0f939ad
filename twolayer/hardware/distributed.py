"""The group of processes that train together: PyTorch's own, `torch.distributed`."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from twolayer.errors import RankError
from twolayer.formatting import counted, duration
from twolayer.hardware.launchers import Place

# PyTorch documents these, and exports them without saying so to type checkers.
Store: TypeAlias = Any
_ProcessGroup: TypeAlias = Any

LATE = 3.0  # seconds in which a failed process says why, or ends


class Ranks:
    """The processes that train together, met at a store; a `Group` for engines. Raises RankError where one fails.

    `gone` says which processes have ended, and how: of those that this one has started.
    """

    def __init__(
        self, place: Place, store: Store, exchange: float, gone: Callable[[], list[str]], group: _ProcessGroup = None
    ) -> None:
        self.place, self.store, self.exchange, self.gone, self.group = place, store, exchange, gone, group
        self.polled: Store = None  # where the group was made
        self.some: dict[int, Ranks] = {}  # groups of the first processes, by how many they are
        self.rank, self.size = place.rank, place.size
        self.is_broken = False
        self.hosts = [socket.gethostname()]  # of all ranks, once they have compared their data

    def document(self) -> dict[str, Any]:
        """What `run.json` keeps of where a training ran: no result depends on it."""
        return {"ranks": self.size, "hosts": sorted(set(self.hosts)), "back_end": dist.get_backend()}

    def gather(self, own: Tensor, all_: Sequence[Tensor]) -> None:
        """Write each process's own tensor, all of one shape, into the tensor at its rank."""
        with self._explained():
            if own.is_cuda and not has_nccl():
                hosts = [torch.empty_like(tensor, device="cpu") for tensor in all_]
                dist.all_gather(hosts, own.cpu(), group=self.group)
                for tensor, host in zip(all_, hosts, strict=True):
                    tensor.copy_(host)
            else:
                dist.all_gather(list(all_), own, group=self.group)

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Write the tensor of the process `source` into that of all others."""
        if not tensor.is_contiguous():  # what is sent is memory as it is: strides could differ between processes
            raise ValueError("a tensor that is not contiguous cannot be broadcast")
        with self._explained():
            if tensor.is_cuda and not has_nccl():
                host = tensor.cpu()
                dist.broadcast(host, source, group=self.group)
                tensor.copy_(host)
            else:
                dist.broadcast(tensor, source, group=self.group)

    def first(self, size: int) -> Ranks:
        """The first processes as a group of their own; all processes ask for it, also the rest."""
        if size == self.size:
            return self
        if size not in self.some:
            with self._explained():
                group = dist.new_group(range(size), timeout=timedelta(seconds=self.exchange))
            self.some[size] = Ranks(replace(self.place, size=size), self.store, self.exchange, self.gone, group)
        return self.some[size]

    def give(self, tensor: Tensor, source: int) -> None:
        """Write the tensor of the process `source`, which is not the first, into that of the first; for these two."""
        with self._explained():
            host = tensor.cpu() if tensor.is_cuda and not has_nccl() else tensor
            if self.rank:
                dist.send(host, 0, group=self.group)
            else:
                dist.recv(host, source, group=self.group)
                if host is not tensor:
                    tensor.copy_(host)

    def publish(self, key: str, text: str) -> None:
        """Leave a text for the others: the first's `key`, or this process's own."""
        with self._explained():
            self.store.set(key if self.rank == 0 else f"{key}/{self.rank}", text)

    def heard(self, key: str) -> str:
        """The text that the first process has left or will leave."""
        with self._explained():
            if self._missing([key], self.exchange):
                raise RuntimeError("timed out")
            return str(self.store.get(key).decode())

    def collected(self, key: str) -> list[str]:
        """The texts of all others, from rank 1 on."""
        keys = [f"{key}/{rank}" for rank in range(1, self.size)]
        with self._explained():
            if missing := self._missing(keys, self.exchange):
                late = [int(one.rpartition("/")[2]) for one in missing]
                raise self._failed(f"no answer from {listed(late)} within {duration(self.exchange)}")
            return [self.store.get(one).decode() for one in keys]

    def fail(self, message: str, exit_code: int) -> None:
        """Tell the first process why this one ends, and wait until it knows: a launcher ends all when one has ended."""
        with suppress(RuntimeError, OSError):
            self.store.set(f"error/{self.rank}", json.dumps([f"{socket.gethostname()}: {message}", exit_code]))
            self.close()  # who waits for this one in an exchange waits no more
            end = time.monotonic() + LATE
            while not self.store.check([f"known/{self.rank}"]) and time.monotonic() < end:
                time.sleep(0.02)

    def signal(self, exit_code: int) -> None:
        """Tell the first process that a signal has come to this one."""
        with suppress(RuntimeError, OSError):
            self.store.set("signal", str(exit_code))

    def signalled(self) -> int:
        """The exit code for a signal that came to another process, else 0."""
        with self._explained():
            return int(self.store.get("signal")) if self.store.check(["signal"]) else 0

    def close(self) -> None:
        """Leave the group."""
        if dist.is_initialized():
            with suppress(RuntimeError, OSError):
                dist.destroy_process_group()

    def _missing(self, keys: Iterable[str], seconds: float) -> list[str]:
        """Wait until all keys are there; those that are not after so long. Raises RankError where a process fails."""
        end, missing, pause = time.monotonic() + seconds, list(keys), 0.002
        while missing := [key for key in missing if not self.store.check([key])]:
            if reason := self._reason():
                raise reason
            if time.monotonic() > end:
                break
            time.sleep(pause)
            pause = min(0.1, 1.5 * pause)
        return missing

    def _reason(self) -> RankError | None:
        """Why another process has failed, if it has said so or has ended."""
        with suppress(RuntimeError, OSError):
            for rank in range(self.size):
                if rank != self.rank and self.store.check([f"error/{rank}"]):
                    message, code = json.loads(self.store.get(f"error/{rank}"))
                    self.is_broken = True
                    if not self.rank:
                        self.store.set(f"known/{rank}", "")
                    return RankError(f"rank {rank} on {message}", code)
        if gone := self.gone():
            return self._failed("; ".join(gone))
        return None

    def _failed(self, message: str) -> RankError:
        self.is_broken = True
        return RankError(message)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn a failure of torch.distributed into an error that says whose failure it is."""
        try:
            yield
        except OSError as error:  # of the folder where the ranks of one machine meet
            raise self._failed(f"the ranks cannot meet: {self.place.meeting}: {error.strerror or error}") from None
        except RuntimeError as error:
            late = time.monotonic() + LATE
            while (reason := self._reason()) is None and time.monotonic() < late:
                time.sleep(0.02)
            self.is_broken = True
            what = str(error).partition("\n")[0].lower()
            if reason is not None:
                raise reason from None
            if "timed out" in what or "timeout" in what:
                raise RankError(f"another rank has not answered within {duration(self.exchange)}") from None
            raise RankError("the connection to another rank is lost: it has ended, or its network has") from None


def has_nccl() -> bool:
    """Whether ranks on GPUs talk by nccl."""
    # A build with CUDA has nccl also where there is no GPU, and from torch 2.15 on refuses to start it there.
    return dist.is_nccl_available() and torch.cuda.is_available()


def listed(ranks: Sequence[int]) -> str:
    """Such as "ranks 1, 2"."""
    return f"{counted(len(ranks), 'rank').partition(' ')[2]} {', '.join(map(str, ranks))}"
