"""The group of processes that train together: PyTorch's own, `torch.distributed`, which nothing else imports."""

from __future__ import annotations

import json
import os
import secrets
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
from twolayer.system.network import interface

# PyTorch documents these, and exports them without saying so to type checkers.
_Store: TypeAlias = Any
_ProcessGroup: TypeAlias = Any
_FileStore, _PrefixStore, _TCPStore = (getattr(dist, f"{kind}Store") for kind in ("File", "Prefix", "TCP"))

LATE = 3.0  # seconds in which a failed process has told why, or has ended


class Ranks:
    """The processes that train together, met at a store; a `Group` for engines. Raises RankError where one fails.

    `gone` says which processes have ended, and how: of those that this one has started.
    """

    def __init__(
        self, place: Place, store: _Store, exchange: float, gone: Callable[[], list[str]], group: _ProcessGroup = None
    ) -> None:
        self.place, self.store, self.exchange, self.gone, self.group = place, store, exchange, gone, group
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
            if own.is_cuda and not _has_nccl():
                hosts = [torch.empty_like(tensor, device="cpu") for tensor in all_]
                dist.all_gather(hosts, own.cpu(), group=self.group)
                for tensor, host in zip(all_, hosts, strict=True):
                    tensor.copy_(host)
            else:
                dist.all_gather(list(all_), own, group=self.group)

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Write the tensor of the process `source` into that of all others."""
        with self._explained():
            if tensor.is_cuda and not _has_nccl():
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
            host = tensor.cpu() if tensor.is_cuda and not _has_nccl() else tensor
            if self.rank:
                dist.send(host, 0, group=self.group)
            else:
                dist.recv(host, source, group=self.group)
                if host is not tensor:
                    tensor.copy_(host)

    def publish(self, key: str, text: str) -> None:
        """Leave a text for the others: the first's `key`, or this process's own."""
        self.store.set(key if self.rank == 0 else f"{key}/{self.rank}", text)

    def heard(self, key: str) -> str:
        """The text that the first process has left or will leave."""
        with self._explained():
            self.store.wait([key], timedelta(seconds=self.exchange))
            return str(self.store.get(key).decode())

    def collected(self, key: str) -> list[str]:
        """The texts of all others, from rank 1 on."""
        keys = [f"{key}/{rank}" for rank in range(1, self.size)]
        waiting = self._waited(keys, self.exchange)
        if waiting:
            raise self._failed(f"no answer from {_listed(waiting)} within {duration(self.exchange)}")
        return [self.store.get(one).decode() for one in keys]

    def fail(self, message: str, exit_code: int) -> None:
        """Tell the first process why this one ends."""
        with suppress(RuntimeError):
            self.store.set(f"error/{self.rank}", json.dumps([f"{socket.gethostname()}: {message}", exit_code]))

    def signal(self, exit_code: int) -> None:
        """Tell the first process that a signal has come to this one."""
        with suppress(RuntimeError):
            self.store.set("signal", str(exit_code))

    def signalled(self) -> int:
        """The exit code for a signal that came to another process, else 0."""
        with self._explained():
            return int(self.store.get("signal")) if self.store.check(["signal"]) else 0

    def close(self) -> None:
        """Leave the group."""
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()

    def _waited(self, keys: Iterable[str], seconds: float) -> list[int]:
        """Wait until all keys are there; the ranks, the last part of each, of those that are not after so long."""
        end, missing, pause = time.monotonic() + seconds, list(keys), 0.002
        while missing := [key for key in missing if not self.store.check([key])]:
            if reason := self._reason():
                raise reason
            if time.monotonic() > end:
                break
            time.sleep(pause)
            pause = min(0.1, 1.5 * pause)
        return [int(key.rpartition("/")[2]) for key in missing]

    def _reason(self) -> RankError | None:
        """Why another process has failed, if it has said so or has ended."""
        with suppress(RuntimeError):
            for rank in range(self.size):
                if rank != self.rank and self.store.check([f"error/{rank}"]):
                    message, code = json.loads(self.store.get(f"error/{rank}"))
                    self.is_broken = True
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


def join(place: Place, meet: float, exchange: float, gone: Callable[[], list[str]] = list) -> Ranks:
    """Meet the others, within `meet` seconds, and make the group, whose exchanges may take `exchange` seconds each.

    Raises RankError, which says who has not come.
    """
    start = time.monotonic()
    store = _store(place, meet)
    ranks = Ranks(place, store, exchange, gone)
    number = _agree(ranks, meet - (time.monotonic() - start))
    ranks.store = _PrefixStore(number, store)
    with ranks._explained():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if _has_nccl() else "gloo",
            store=_PrefixStore("group", ranks.store),
            rank=place.rank,
            world_size=place.size,
            timeout=timedelta(seconds=exchange),
        )
    return ranks


def _store(place: Place, meet: float) -> _Store:
    if place.meeting:
        # All are on this machine: no name need be resolved, and no other machine can connect.
        loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
        if loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
        return _FileStore(place.meeting, place.size)
    host, port = place.address
    is_host = place.rank == 0 and not place.is_hosted
    where = f"rank {place.rank} on {socket.gethostname()}"
    _use_the_way_to(host, port)
    try:
        return _TCPStore(
            host, port, place.size, is_host, timedelta(seconds=meet), wait_for_workers=False, multi_tenant=False
        )
    except (RuntimeError, ValueError, OSError) as error:
        what = str(error).partition("\n")[0]
        if is_host and "in use" in what.lower():
            raise RankError(f"{where}: port {port} is in use; set another MASTER_PORT") from None
        reason = f"cannot listen on {host}:{port}" if is_host else f"cannot reach {host}:{port}"
        limit = f" within {duration(meet)}; check MASTER_ADDR and MASTER_PORT"
        raise RankError(f"{where}: {reason}{limit}") from None


def _use_the_way_to(host: str, port: int) -> None:
    """Let gloo use the interface that leads to the others, where this machine's name leads to itself alone.

    Debian's 127.0.1.1 is such a name: gloo would listen where no other machine can connect.
    """
    with suppress(OSError):
        own, there = socket.gethostbyname(socket.gethostname()), socket.gethostbyname(host)
        if not own.startswith("127.") or there.startswith("127.") or "GLOO_SOCKET_IFNAME" in os.environ:
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((there, port))
            address = probe.getsockname()[0]
        if name := interface(address):
            os.environ["GLOO_SOCKET_IFNAME"] = name


def _agree(ranks: Ranks, seconds: float) -> str:
    """A number that only these processes know, from the first one: the prefix of all their keys.

    A launcher that restarts processes keeps its store, with the keys of those that are dead. So each leaves an id of
    its own under its rank, and takes what answers that id; keys with the id or the number are never old ones.
    """
    store, end, own = ranks.store, time.monotonic() + seconds, secrets.token_hex(8)
    names = [f"id/{rank}" for rank in range(ranks.size)]
    if ranks.rank:
        store.set(names[ranks.rank], own)
        if _appears(store, f"answer/{own}", end, ranks):
            number = str(store.get(f"answer/{own}").decode())
            store.set(f"here/{number}/{ranks.rank}", "")
            return number
        where = f"rank {ranks.rank} on {socket.gethostname()}"
        raise RankError(f"{where}: rank 0 has not come within {duration(seconds)}")
    missing = list(range(1, ranks.size))
    while missing := [rank for rank in missing if not store.check([f"here/{own}/{rank}"])]:
        for rank in missing:
            if store.check([names[rank]]):
                store.set(f"answer/{store.get(names[rank]).decode()}", own)
        if gone := ranks.gone():
            raise RankError("; ".join(gone))
        if time.monotonic() > end:
            raise RankError(f"{_listed(missing)} of {ranks.size} did not come within {duration(seconds)}")
        time.sleep(0.01)
    return own


def _appears(store: _Store, key: str, end: float, ranks: Ranks) -> bool:
    while not store.check([key]):
        if time.monotonic() > end or ranks.gone():
            return False
        time.sleep(0.01)
    return True


def _has_nccl() -> bool:
    # A build with CUDA has nccl also where there is no GPU, and from torch 2.15 on refuses to start it there.
    return dist.is_nccl_available() and torch.cuda.is_available()


def _listed(ranks: Sequence[int]) -> str:
    return f"{counted(len(ranks), 'rank').partition(' ')[2]} {', '.join(map(str, ranks))}"
