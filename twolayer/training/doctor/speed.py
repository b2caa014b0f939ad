"""Speed: this machine's own rates, and what part of them trainings reach. A figure is never wrong."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator

import torch

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.factory import make_engine
from twolayer.hardware import threads as cpu_threads
from twolayer.system import available_memory
from twolayer.training.benchmark import MatmulRate, clock
from twolayer.training.doctor import book
from twolayer.training.doctor.finding import Finding
from twolayer.training.setup import prepare

ROUNDS = 3
COPIED_BYTES = 2**28  # far more than caches hold
ROWS = {"N": 2**19, "D_in": 8, "H": 8, "D_out": 1, "lr": 1e-9}
TRAINED_SECONDS = 0.2  # of each training, about
BUSY = 0.9  # less of its cores than this, and other programs have the rest


def load() -> float | None:
    """The mean number of processes that were ready to run in the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def speed(device: str, load_before: float | None) -> Iterator[Finding]:
    """The rates of products and copies, the part of them that trainings reach, and whether the machine is busy."""
    config = book.book(device=device)
    matmul = MatmulRate(config)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(ROUNDS):
        matmul.measure()
    had = (time.process_time() - cpu) / (time.perf_counter() - start)
    copied = copy_rate(device)
    size = f"{matmul.size} x {matmul.size}"
    yield _figure("products", matmul.rate / 1e9, "GFLOP/s", note=f"float32, {size}, best of {ROUNDS}")
    yield _figure("copies", copied / 1e9, "GB/s", note="read and written")
    large = min(1024, matmul.size // 2) if device == "cpu" else matmul.size // 2
    shapes = {"book": {}, "large": {"N": large, "D_in": large, "H": large, "D_out": 64, "lr": 1e-9, "form": "primal"}}
    for name, sizes in shapes.items():
        yield from _training(name, config.model_copy(update=sizes), matmul.rate)
    yield from _rows(device, copied)
    if device == "cpu":
        cores = cpu_threads.cores()
        note = "busy: others have the rest" if had < BUSY * cores else None
        yield _figure("cores had", had, f"of {cores}", note=note)
    if load_before is not None:
        yield _figure("load", load_before, "processes", note="in the minute before")


def _figure(name: str, value: float, unit: str, *, engine: str | None = None, note: str | None = None) -> Finding:
    return Finding("speed", name, "fact", engine, got=value, unit=unit, note=note)


def copy_rate(device: str) -> float:
    """Bytes read and written per second by copies of a large tensor, the best of some."""
    free = available_memory.available() if device == "cpu" else None
    size = COPIED_BYTES if free is None else max(2**20, min(COPIED_BYTES, free // 8))
    one = torch.ones(size // 4, device=device)
    other, best = torch.empty_like(one), 0.0
    with cpu_threads.set_up(book.book(device=device, threads=cpu_threads.cores())):
        for _ in range(ROUNDS + 1):  # the first one is slower: its memory is new
            start = clock(device)
            other.copy_(one)
            best = max(best, 2 * one.nbytes / (clock(device) - start))
    return best


def seconds_of(config: Config) -> tuple[Config, float]:
    """The config that `engine: auto` makes of this, and the seconds of one of its iterations."""
    config, data, model = prepare(config)
    with cpu_threads.set_up(config):
        engine, count, seconds = make_engine(model, data, config), 1, 0.0
        while True:  # the first times are too few to be kept, unless they take long
            start = clock(config.device)
            engine.advance(count)
            seconds = clock(config.device) - start
            if seconds >= TRAINED_SECONDS:
                return config, seconds / count
            count = min(10 * count, math.ceil(1.1 * count * TRAINED_SECONDS / seconds))


def _training(name: str, config: Config, rate: float) -> Iterator[Finding]:
    """The time of an iteration, and its products' part of the rate of products."""
    config, seconds = seconds_of(config)
    yield _figure(name, 1e6 * seconds, "µs", engine=config.engine_name, note=f"an iteration of {config.shape}")
    share = selection.operations(config) / seconds / rate
    yield _figure(f"{name}, share", 100 * share, "% of products", engine=config.engine_name)


def _rows(device: str, copied: float) -> Iterator[Finding]:
    """The time of an iteration over many rows of few columns, and its part of the rate of copies: x and y are read."""
    config, seconds = seconds_of(book.book(device=device, **ROWS))
    yield _figure("rows", 1e6 * seconds, "µs", engine=config.engine_name, note=f"an iteration of {config.shape}")
    share = config.N * (config.D_in + config.D_out) * selection.ITEMSIZE[config.dtype] / seconds / copied
    yield _figure("rows, share", 100 * share, "% of copies", engine=config.engine_name)
