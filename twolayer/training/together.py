"""A training by several processes: the same config and data in all of them, and what the others do."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from twolayer.config import loading
from twolayer.config.from_table import table_of
from twolayer.config.schema import Config, document, settled
from twolayer.engines import selection
from twolayer.engines.base import Data
from twolayer.engines.factory import make_engine
from twolayer.engines.led import LedEngine, compute_seconds, follow
from twolayer.engines.parts import ALONE, Group
from twolayer.errors import DataError, DeviceError
from twolayer.formatting import counted, setting
from twolayer.hardware import memory, threads
from twolayer.hardware.launchers import Place
from twolayer.tables.features import Encoding
from twolayer.tables.options import FileData
from twolayer.training import shares
from twolayer.training.fingerprints import fingerprints
from twolayer.training.loop import Fit
from twolayer.training.setup import build_model, prepare, resolve_auto

if TYPE_CHECKING:
    from twolayer.hardware.distributed import Ranks
    from twolayer.tables.dataset import Table

WHAT = {"data_sha256": "the data", "validation_sha256": "the validation rows", "initial_sha256": "the initial weights"}


@dataclass(frozen=True)
class Pace:
    """The seconds of an update: that a rank computes, that ranks exchange numbers, and of one process without parts."""

    computes: float
    exchanges: float
    alone: float
    threads: int  # of that process


def prepare_together(
    config: Config, table: Table | None, ranks: Ranks | None
) -> tuple[Config, Data, nn.Sequential, Group]:
    """What `prepare` gives, the same in all processes, and their group: the first chooses what is `auto`, and compares.

    Raises DataError where another process has other data, and what `prepare` raises.
    """
    if ranks is None:
        return *prepare(config, table), ALONE
    config = settled(resolve_auto(_placed(config, ranks.place)))
    memory.check(config, ranks=ranks.size, here=ranks.place.local_size)
    ranks.publish("config", document(config))
    is_shared_table = isinstance(config.data, FileData) and selection.shares_data(config)
    if is_shared_table:
        table = table or table_of(config)
        ranks.publish("columns", json.dumps(table.columns.document()))
        shares.tell_rows(table, config, ranks)
    prepared = _, data, model = prepare(config, table, ranks)
    own = fingerprints(data, model)
    for rank, text in enumerate(ranks.collected("sums"), 1):
        host, sums = json.loads(text)
        ranks.hosts.append(host)
        if is_shared_table:
            own = fingerprints(shares.part_of(data, config, rank, ranks.size), model)
        if other := [WHAT[key] for key, digest in own.items() if sums.get(key) != digest]:
            here = f"those of rank 0 on {socket.gethostname()}"
            raise DataError(
                f"{' and '.join(other)} of rank {rank} on {host} are not {here}: all must have the same file"
            )
    return *prepared, ranks


def work(ranks: Ranks, signalled: Callable[[], int]) -> None:
    """Train as the first process tells, until it tells the end. Raises TwolayerError.

    `signalled` gives the exit code of a signal that has come, else 0.
    """
    text = ranks.heard("config")
    if not text:
        return
    config = loading.resolve("the config of rank 0", environment={}, read=False, raw=text.encode()).config
    table = None
    if isinstance(config.data, FileData) and selection.shares_data(config):
        columns = Encoding.of(json.loads(ranks.heard("columns")))
        table = shares.read_own(config, columns, ranks)
    config, data, model = prepare(_placed(config, ranks.place), table, ranks)
    ranks.publish("sums", json.dumps([socket.gethostname(), fingerprints(data, model)]))
    start = config.model_copy(update={"lr": 1.0}) if config.lr == "auto" else config
    told: list[int] = []

    def tell() -> None:
        if (code := signalled()) and not told:
            ranks.signal(code)
            told.append(code)

    with threads.set_up(config):
        follow(lambda: make_engine(model, data, start, ranks), ranks, tell)


def _placed(config: Config, place: Place) -> Config:
    """The config with the GPU of this process: that of its number on its machine. Raises DeviceError."""
    if not config.device.startswith("cuda"):
        return config
    if config.device not in ("cuda", "cuda:0") and place.local_size > 1:
        raise DeviceError(f"{config.device} is one GPU, for {place.local_size} ranks; use {setting('device', 'cuda')}")
    count = (
        torch.cuda.device_count() if torch.cuda.is_available() else place.local_size
    )  # `prepare` says why there is none
    needed = place.local_size if place.meeting else place.local_rank + 1
    if needed > count:
        have = counted(count, "GPU")
        raise DeviceError(f"{place.local_size} ranks on this machine, which has {have}: each rank needs one of its own")
    return config.model_copy(update={"device": f"cuda:{place.local_rank}"})


def pace(fit: Fit) -> Pace | None:
    """How long an update takes; None in a training of one process.

    Nothing of the training changes: what computes is a copy.
    """
    engine, config = fit.engine, fit.config
    if not isinstance(engine, LedEngine):
        return None
    whole = resolve_auto(config.model_copy(update={"parts": None, "split": "auto", "threads": "auto"}))
    with threads.set_up(config):
        computes = compute_seconds(copy.deepcopy(fit.model), fit.data, config, engine.group)
        exchanges = engine.exchange_seconds()
    x, y, more = fit.data.x, fit.data.y, config.N / max(1, len(fit.data.x))
    # An update takes as long as its rows are many; of the inputs only the dual form has a share, and no work with them.
    some = whole.model_copy(update={"N": len(x), "D_in": x.shape[1]})
    model = copy.deepcopy(fit.model) if fit.data.share is None else build_model(some)
    with threads.set_up(whole):
        alone = more * compute_seconds(model, Data(x, y), some)
    return Pace(computes, exchanges, alone, int(whole.threads))
