"""Determinism: the same training again must give the same bits, wherever it is cut, resumed, or lies in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from twolayer.hardware import threads as cpu_threads
from twolayer.training.doctor import book, problems
from twolayer.training.doctor.finding import Finding, attempted
from twolayer.training.doctor.problems import Make, Problem, Trace

ITERATIONS = 30
AT_ALL_THREADS = 10  # threads of a busy machine wait for each other
BLOCKS = (1, 7, 20, 2)  # the same iterations, in other blocks
GRAPH_ITERATIONS = 3 * 50  # one chunk warms up, the second is captured, the third is replayed
SHARED = {"N": 2048, "D_in": 20, "H": 32, "D_out": 1, "lr": 1e-6}  # enough rows for threads to share
ODD_BYTES = (7, 1009, 65_537, 1_000_003)


def determinism(device: str) -> Iterator[Finding]:
    """Every engine and form twice, at one thread and at all, in other blocks, resumed, at other addresses."""
    problem, cores = Problem.of(book.book(device=device)), cpu_threads.cores() if device == "cpu" else 1
    for name, make in problem.engines().items():
        yield from attempted("determinism", _twice(name, make, problem, cores), name)
    if cores > 1 and "compiled" in problem.engines():
        shared = Problem.of(book.book(**SHARED))
        make = shared.engines()["compiled"]
        one, all_ = (problems.trace(make, shared, [ITERATIONS], threads=count) for count in (1, cores))
        yield same(f"1 and {cores} threads", "compiled", one, all_)
    if device.startswith("cuda"):
        for name in ("fused (primal)", "fused (dual)"):
            yield _graph(problem, name)


def _twice(name: str, make: Make, problem: Problem, cores: int) -> Iterator[Finding]:
    """One engine's training, and the same in other ways."""
    first = problems.trace(make, problem, [ITERATIONS])
    yield same("twice", name, first, problems.trace(make, problem, [ITERATIONS]))
    yield same("in other blocks", name, first, problems.trace(make, problem, BLOCKS))
    yield same("resumed", name, first, problems.trace(make, problem, BLOCKS, resumed=True))
    yield same("at other addresses", name, first, _elsewhere(make, problem))
    if cores > 1:
        one, other = (problems.trace(make, problem, [AT_ALL_THREADS], threads=cores) for _ in range(2))
        yield same(f"twice at {cores} threads", name, one, other)


def _elsewhere(make: Make, problem: Problem) -> Trace:
    """A training beside tensors of odd sizes, so that its own lie elsewhere."""
    kept = [torch.empty(count, dtype=torch.uint8, device=problem.config.device) for count in ODD_BYTES]
    found = problems.trace(make, problem, [ITERATIONS])
    del kept
    return found


def _graph(problem: Problem, name: str) -> Finding:
    """The fused engine with its CUDA graph, and with every kernel launched alone."""
    alone = Problem(problem.config.model_copy(update={"cuda_graph": False}), problem.data, problem.model)
    on, off = (problems.trace(each.engines()[name], each, [GRAPH_ITERATIONS]) for each in (problem, alone))
    return same("CUDA graph on and off", name, off, on)


def same(name: str, engine: str, first: Trace, second: Trace) -> Finding:
    """Whether two trainings have the same bits: in every loss, and in every parameter in the end."""
    unequal = torch.nonzero(first.losses != second.losses)
    if len(unequal):
        at = int(unequal[0, 0])
        values = (at + 1, float(first.losses[at]), float(second.losses[at]))
        return Finding("determinism", name, "wrong", engine, *values, note="not the same bits")
    for one, other in zip(first.parameters, second.parameters, strict=True):
        if not torch.equal(one, other):
            at = int(torch.nonzero((one != other).reshape(-1))[0, 0])
            values = (len(first.losses), float(one.reshape(-1)[at]), float(other.reshape(-1)[at]))
            return Finding("determinism", name, "wrong", engine, *values, note="a weight has other bits")
    return Finding("determinism", name, "right", engine)
