"""Capture and replay against a stand-in for CUDA's graphs, which counts them: a capture computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from tests.helpers.oracles import same
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines import fused
from twolayer.engines.cuda_graph import Graph
from twolayer.engines.factory import make_engine
from twolayer.engines.fused import FusedEngine
from twolayer.training.setup import prepare

CHUNK = 8  # iterations; a graph holds as many


class Cuda:
    """What CUDA does with graphs: `calls` says in which order. A replay does again what was captured."""

    def __init__(self, work: Callable[[], object], tensors: Callable[[], list[torch.Tensor]]) -> None:
        self.work, self.tensors = work, tensors
        self.calls: list[str] = []

    def replay(self) -> None:
        self.calls.append("replay")
        self.work()

    @contextmanager
    def capture(self, graph: object, stream: object) -> Iterator[None]:
        self.calls.append("capture")
        assert not torch.is_inference_mode_enabled()
        before = [tensor.clone() for tensor in self.tensors()]
        yield
        with torch.no_grad():
            for tensor, value in zip(self.tensors(), before, strict=True):
                tensor.copy_(value)


@pytest.fixture
def config() -> Config:
    return load_config("default", N=16, D_in=5, H=7, D_out=2, lr=1e-3, engine="fused", threads=1, environment={})


def with_graph(config: Config, patch: pytest.MonkeyPatch) -> tuple[FusedEngine, Cuda]:
    """The config's engine on the CPU, with a graph that is replayed by the stand-in."""
    patch.setattr(fused, "CHUNK", CHUNK * config.N * config.D_out)
    resolved, data, model = prepare(config)
    engine = make_engine(model, data, resolved)
    assert isinstance(engine, FusedEngine)
    assert len(engine.slots) == CHUNK
    cuda = Cuda(lambda: engine._chunk(CHUNK), lambda: [v for v in vars(engine).values() if isinstance(v, torch.Tensor)])
    patch.setattr(torch.cuda, "CUDAGraph", lambda: cuda)
    patch.setattr(torch.cuda, "graph", cuda.capture)
    patch.setattr(torch.cuda, "Stream", lambda device: None)
    patch.setattr(torch.cuda, "device", lambda device: nullcontext())
    engine.replay = Graph(torch.device("cuda:0"))
    return engine, cuda


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_replayed_iterations_are_the_same_and_the_first_chunk_is_neither_captured_nor_replayed(
    form: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.model_copy(update={"form": form})
    monkeypatch.setattr(fused, "CHUNK", CHUNK * config.N * config.D_out)
    resolved, data, model = prepare(config)
    plain = make_engine(model, data, resolved)
    engine, cuda = with_graph(config, monkeypatch)
    expected, found = plain.advance(5 * CHUNK + 3), engine.advance(5 * CHUNK + 3)
    assert cuda.calls == ["capture", *["replay"] * 4]  # of the chunks 2 to 5; the rest is shorter than a chunk
    assert torch.equal(expected, found)
    assert same([*plain.state().values()], [*engine.state().values()])


def test_another_learning_rate_is_captured_again(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, cuda = with_graph(config, monkeypatch)
    engine.advance(3 * CHUNK)
    engine.set_lr(1e-4)
    engine.advance(2 * CHUNK)
    assert cuda.calls == ["capture", "replay", "replay", "capture", "replay", "replay"]
