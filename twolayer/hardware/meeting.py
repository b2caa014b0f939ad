"""How the processes that train together meet: at a folder or an address, where they agree on a number of their own."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Thread

import torch.distributed as dist

from twolayer.errors import RankError
from twolayer.formatting import duration
from twolayer.hardware.distributed import Ranks, Store, has_nccl, listed
from twolayer.hardware.folder_store import FolderStore
from twolayer.hardware.launchers import Place
from twolayer.system.network import use_the_way_to

_PrefixStore, _TCPStore = (getattr(dist, f"{kind}Store") for kind in ("Prefix", "TCP"))


class _Polled(dist.Store):  # type: ignore[name-defined, misc]
    """Where the group is made. PyTorch's own store has no time for another thread while one waits."""

    def __init__(self, ranks: Ranks, seconds: float) -> None:
        super().__init__()
        self.ranks, self.seconds = ranks, seconds

    def set(self, key: str, value: bytes) -> None:
        """Leave an address for the others."""
        self.ranks.store.set(f"group/{key}", value)

    def get(self, key: str) -> bytes:
        """The address that another one has left or will leave."""
        self.wait([key])
        return bytes(self.ranks.store.get(f"group/{key}"))

    def add(self, key: str, amount: int) -> int:
        """Add to a number that all share, from 0 on; the sum. Groups of some of the processes count themselves so."""
        return int(self.ranks.store.add(f"group/{key}", amount))

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait until all have left theirs. Raises RuntimeError."""
        if self.ranks._missing([f"group/{key}" for key in keys], self.seconds):
            raise RuntimeError("timed out")


def join(place: Place, meet: float, exchange: float, gone: Callable[[], list[str]] = list) -> Ranks:
    """Meet the others, within `meet` seconds, and make the group, whose exchanges may take `exchange` seconds each.

    Raises RankError, which says who has not come.
    """
    end = time.monotonic() + meet
    store = _store(place, meet)
    ranks = Ranks(place, store, exchange, gone)
    with ranks._explained():
        number = _agree(ranks, end, meet)
        ranks.store = FolderStore(Path(place.meeting), number) if place.meeting else _PrefixStore(number, store)
        _make_group(ranks, end, meet)
    return ranks


def _make_group(ranks: Ranks, end: float, seconds: float) -> None:
    """Make PyTorch's group; in a thread, which waits for ever for a process that ends meanwhile."""
    failed: list[Exception] = []
    ranks.polled = _Polled(ranks, seconds)  # as long as the group, which keeps only the part of it that is in C++

    def make() -> None:
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if has_nccl() else "gloo",
                store=ranks.polled,
                rank=ranks.rank,
                world_size=ranks.size,
                timeout=timedelta(seconds=ranks.exchange),
            )
        except Exception as error:  # noqa: BLE001 (raised below)
            failed.append(error)

    thread = Thread(target=make, daemon=True)
    thread.start()
    while thread.is_alive():
        if reason := ranks._reason():
            raise reason
        if time.monotonic() > end:
            where = f"rank {ranks.rank} on {socket.gethostname()}"
            raise RankError(f"{where}: the others have not connected within {duration(seconds)}")
        thread.join(0.02)
    if failed:
        raise failed[0]


def _store(place: Place, meet: float) -> Store:
    if place.meeting:
        # All are on this machine: no name need be resolved, and no other machine can connect.
        loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
        if loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
        return FolderStore(Path(place.meeting))
    host, port = place.address
    is_host = place.rank == 0 and not place.is_hosted
    where = f"rank {place.rank} on {socket.gethostname()}"
    use_the_way_to(host, port)
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


def _agree(ranks: Ranks, end: float, seconds: float) -> str:
    """A number that only these processes know, from the first one: the prefix of all their keys.

    A launcher that restarts processes keeps its store, with the keys of those that are dead. So each leaves an id of
    its own under its rank, and takes what answers that id; keys with the id or the number are never old ones.
    """
    store, own = ranks.store, secrets.token_hex(8)
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
            raise RankError(f"{listed(missing)} of {ranks.size} did not come within {duration(seconds)}")
        time.sleep(0.01)
    return own


def _appears(store: Store, key: str, end: float, ranks: Ranks) -> bool:
    while not store.check([key]):
        if time.monotonic() > end or ranks.gone():
            return False
        time.sleep(0.01)
    return True
