"""A training by several processes: the same config and data in all of them, and what the others do."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from twolayer.config import loading
from twolayer.config.from_table import table_of
from twolayer.config.schema import Config, document, settled
from twolayer.engines import selection
from twolayer.engines.base import Data
from twolayer.engines.factory import make_engine
from twolayer.engines.led import follow
from twolayer.engines.parts import ALONE, Group
from twolayer.errors import DataError, DeviceError
from twolayer.formatting import counted, setting
from twolayer.hardware import memory, threads
from twolayer.hardware.launchers import Place
from twolayer.runs.checkpoint import open_announced
from twolayer.tables.features import Encoding
from twolayer.tables.options import FileData
from twolayer.training import shares
from twolayer.training.fingerprints import fingerprints
from twolayer.training.setup import prepare, resolve_auto

if TYPE_CHECKING:
    from twolayer.hardware.distributed import Ranks
    from twolayer.tables.dataset import Table

WHAT = {"data_sha256": "the data", "validation_sha256": "the validation rows", "initial_sha256": "the initial weights"}


def prepare_together(
    config: Config, table: Table | None, ranks: Ranks | None, *, shared: bool = True
) -> tuple[Config, Data, nn.Sequential, Group]:
    """What `prepare` gives, the same in all processes, and their group: the first chooses what is `auto`, and compares.

    `shared`: see `prepare_alike`. Raises DataError where another process has other data, and what `prepare` raises.
    """
    if ranks is None:
        return *prepare(config, table), ALONE
    (config,) = announce([config], ranks, shared=shared)
    if shared:
        memory.check(config, ranks=ranks.size, here=ranks.place.local_size)
    return *prepare_alike(config, table, ranks, shared=shared), ranks


def announce(configs: Sequence[Config], ranks: Ranks, *, shared: bool = False) -> list[Config]:
    """Tell the others which trainings there will be, one after another; the configs without `auto` but `lr`.

    `shared` is as for `prepare_alike`.
    """
    settled_ = [settled(resolve_auto(_placed(config, ranks.place))) for config in configs]
    ranks.publish("configs", json.dumps([shared, [document(config) for config in settled_]]))
    return settled_


def prepare_alike(
    config: Config, table: Table | None, ranks: Ranks, number: int = 0, *, shared: bool = False
) -> tuple[Config, Data, nn.Sequential]:
    """What `prepare` gives for the config of this number, which the others have prepared as well.

    Where the data are `shared`, each has what it needs if all train together; else all data, and any may train alone.
    Raises DataError where another process has other data, and what `prepare` raises.
    """
    is_shared_table = shared and isinstance(config.data, FileData) and selection.shares_data(config)
    if is_shared_table:
        table = table or table_of(config)
        ranks.publish("columns", json.dumps(table.columns.document()))
        shares.tell_rows(table, config, ranks)
    prepared = _, data, model = prepare(config, table, ranks if shared else ALONE)
    own = fingerprints(data, model)
    for rank, text in enumerate(ranks.collected(f"sums of {number}"), 1):
        host, sums = json.loads(text)
        ranks.hosts.append(host)
        if is_shared_table:
            own = fingerprints(shares.part_of(data, config, rank, ranks.size), model)
        if other := [WHAT[key] for key, digest in own.items() if sums.get(key) != digest]:
            here = f"those of rank 0 on {socket.gethostname()}"
            raise DataError(
                f"{' and '.join(other)} of rank {rank} on {host} are not {here}: all must have the same file"
            )
    return prepared


def work(ranks: Ranks, signalled: Callable[[], int]) -> None:
    """Train each config that is announced, as the first process tells, until it tells the end. Raises TwolayerError.

    `signalled` gives the exit code of a signal that has come, else 0.
    """
    passed_on: list[int] = []

    def tell() -> None:
        if (code := signalled()) and not passed_on:
            ranks.signal(code)
            passed_on.append(code)

    shared, configs = json.loads(ranks.heard("configs"))
    if not configs:
        ranks.publish("dismissed", "")
    for number, text in enumerate(configs):
        config = loading.resolve("the config of rank 0", environment={}, read=False, raw=text.encode()).config
        table = None
        if shared and isinstance(config.data, FileData) and selection.shares_data(config):
            columns = Encoding.of(json.loads(ranks.heard("columns")))
            table = shares.read_own(config, columns, ranks)
        config, data, model = prepare(_placed(config, ranks.place), table, ranks if shared else ALONE)
        ranks.publish(f"sums of {number}", json.dumps([socket.gethostname(), fingerprints(data, model)]))
        start = config.model_copy(update={"lr": 1.0}) if config.lr == "auto" else config
        with threads.set_up(config):
            _follow(model, data, start, ranks, tell)


def _follow(model: nn.Sequential, data: Data, config: Config, ranks: Ranks, tell: Callable[[], None]) -> None:
    follow(lambda group: make_engine(model, data, config, group), ranks, tell, open_announced)


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
