"""No operation of an engine mixes devices, or waits for one, also where there is no GPU.

Two stand-ins for a GPU. `meta`: tensors of every PyTorch that hold no numbers: an operation must not have others,
and no number can be read back. And PyTorch's fake tensors on `cuda`, which check what CUDA would: these
need a build with CUDA, but neither a driver nor a GPU (`make test-versions` has one). Autograd needs the GPU there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.engines.factory import make_engine

SMALL, LARGE, ROWS = {"N": 64, "D_in": 10, "H": 20, "D_out": 3}, {"N": 2000, "D_in": 600}, 5
ENGINES: Mapping[str, dict[str, Any]] = {
    "fused primal": {"engine": "fused", "form": "primal"},
    "fused dual": {"engine": "fused", "form": "dual"},
    "fused plain": {"engine": "fused", "form": "primal", **LARGE},
    "manual": {"engine": "manual"},
    "batches manual": {"engine": "manual", "batch_size": 16},
    "batches fused": {"engine": "fused", "batch_size": 16},
    "autograd": {"engine": "autograd"},
    "batches autograd": {"engine": "autograd", "batch_size": 16},
}


class OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call,unused-ignore]
    """The tensors of an operation are on one device; numbers (no dimensions) may be on the CPU, as CUDA allows it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
        devices = {tensor.device.type for tensor in tensors}
        assert len(devices) <= 1, f"{func} has tensors on {' and '.join(sorted(devices))}"
        return func(*args, **(kwargs or {}))


def train(config: Config, device: str) -> Sequence[Tensor]:
    """All that a training calls on an engine; the losses and the state."""
    N, D_in, H, D_out = config.N, config.D_in, config.H, config.D_out
    data, more = (
        Data(torch.empty(rows, D_in, device=device), torch.empty(rows, D_out, device=device)) for rows in (N, ROWS)
    )
    model = nn.Sequential(nn.Linear(D_in, H, device="meta"), nn.ReLU(), nn.Linear(H, D_out, device="meta"))
    for layer in (model[0], model[2]):
        for name in ("weight", "bias"):
            empty = torch.empty(getattr(layer, name).shape, device=device)
            setattr(layer, name, nn.Parameter(empty, requires_grad=config.engine == "autograd"))
    engine: Any = make_engine(model, Data(data.x, data.y, more), config)
    found = []
    if config.batch_size is None:
        found += [engine.advance(3), engine.advance(120)]
        assert len(found[1]) == 120
    else:
        rows = torch.arange(ROWS, device=device)
        losses = torch.empty((2, 2) if config.loss == "cross_entropy" else (2,), device=device)
        engine.updates([rows, rows], losses)
        found += [engine.update(rows), losses, engine.evaluate(more)]
    engine.sync()
    state = {name: tensor.clone() for name, tensor in engine.state().items()}
    engine.load_state(state, 120)
    engine.set_lr(1e-3)
    if config.batch_size is None:
        found.append(engine.advance(2))
    return [*found, *state.values(), *model.parameters()]


def config_of(name: str, loss: str, **more: Any) -> Config:
    config = load_config("default", **{**SMALL, **ENGINES[name]}, threads=1, environment={})
    return config.model_copy(update={"loss": loss, **more})  # without the check that classes come from a table


@pytest.mark.sample(6)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", ENGINES)
def test_every_tensor_of_an_engine_is_on_the_device_of_its_data(name: str, loss: str) -> None:
    with OneDevice():  # type: ignore[no-untyped-call,unused-ignore]
        assert {tensor.device.type for tensor in train(config_of(name, loss), "meta")} == {"meta"}


def test_a_tensor_on_another_device_is_found() -> None:
    with pytest.raises(AssertionError, match="tensors on cpu and meta"), OneDevice():  # type: ignore[no-untyped-call,unused-ignore]
        torch.mm(torch.empty(3, 3, device="meta"), torch.empty(3, 3))


@pytest.mark.skipif(torch.version.cuda is None, reason="needs a PyTorch built with CUDA (no GPU): make test-versions")
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", [name for name in ENGINES if "autograd" not in name])
def test_no_operation_on_cuda_mixes_devices(name: str, loss: str) -> None:
    config = config_of(name, loss, device="cuda", cuda_graph=False)
    with FakeTensorMode(), torch.no_grad():
        assert {tensor.device.type for tensor in train(config, "cuda")} == {"cuda"}


@pytest.mark.skipif(torch.version.cuda is None, reason="needs a PyTorch built with CUDA (no GPU): make test-versions")
def test_fake_tensors_find_an_operation_that_mixes_devices() -> None:
    with FakeTensorMode(), pytest.raises(RuntimeError, match="cuda:0"):
        torch.mm(torch.empty(3, 3, device="cuda"), torch.empty(3, 3))
