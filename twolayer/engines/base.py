"""The engines: each computes the same gradient descent in its own way. `make_engine` chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from twolayer import memory
from twolayer.config.schema import Config
from twolayer.data import Data
from twolayer.engines.autograd import AutogradEngine
from twolayer.engines.batched import RowsEngine
from twolayer.engines.cuda_graph import Graph
from twolayer.engines.fused import fused_engine
from twolayer.engines.manual import ManualEngine
from twolayer.errors import DataError


class Engine(Protocol):
    """Advances gradient descent on one model and one data set."""

    def advance(self, iterations: int) -> Tensor:
        """Do so many iterations; the loss BEFORE each update, shape (iterations,), on the device.

        With `loss: cross_entropy` of shape (iterations, 2): the loss, and the part of the rows that it has right,
        which are those whose largest output, of equals the first, is their class.
        """

    def sync(self) -> None:
        """Write the working state into the model's parameters; changes nothing of what `advance` goes on to do."""

    def set_lr(self, lr: float) -> None:
        """Take another step from the next iteration on."""

    def state(self) -> dict[str, Tensor]:
        """All that a continuation needs to be the same bit for bit: the working tensors themselves, by name."""

    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Go on from the state that such an engine had after so many iterations. Raises DataError for another's."""


class RowEngine(Engine, Protocol):
    """One that also takes rows by their numbers, and other rows to judge by: autograd, and where `in_parts`, all."""

    def update(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """One update from the rows with these numbers, int64 and on the device; their loss before it.

        Of shape (), or (2,) with the accuracy; written into `out` where given. A mean is over these rows.
        """

    def updates(self, batches: Sequence[Tensor], out: Tensor) -> None:
        """One `update` after the other; their losses go into `out`, (len(batches),) or (len(batches), 2)."""

    def evaluate(self, data: Data) -> Tensor:
        """The loss of the weights as they are on these data, shape (), or (2,) with the accuracy."""


def choose_engine(config: Config) -> str:
    """The engine's name; `auto` is fused, and on MPS, where nothing is tested, autograd."""
    if config.engine != "auto":
        return config.engine
    return "autograd" if config.device == "mps" else "fused"


def make_engine(model: nn.Sequential, data: Data, config: Config) -> Engine:
    """The engine that `choose_engine` names, at work on this model's parameters.

    Raises DataError where the model is not Linear -> ReLU -> Linear with biases, or the data are not of its shapes,
    dtype and device, or not N rows.
    """
    if len(data.x) != config.N:  # by which the form and the threads are chosen
        raise DataError(f"the config says N = {config.N}, and the data have {len(data.x)} rows")
    _check(model, data)
    name = choose_engine(config)
    engines: dict[str, Callable[..., Engine]] = {"autograd": AutogradEngine, "manual": ManualEngine}
    if memory.in_parts(config) and not (name == "fused" and config.form == "dual"):
        engines |= {"manual": RowsEngine, "fused": RowsEngine}
    if name in engines:
        return engines[name](model, data, lr=config.step, reduction=config.reduction, loss=config.loss)
    engine = fused_engine(data, config)(model, data, lr=config.step, reduction=config.reduction, loss=config.loss)
    if data.x.is_cuda and config.cuda_graph:
        engine.replay = Graph(data.x.device)
    return engine


def _check(model: nn.Sequential, data: Data) -> None:
    layers = list(model)
    if [type(layer) for layer in layers] != [nn.Linear, nn.ReLU, nn.Linear] or len(list(model.parameters())) != 4:
        raise DataError(f"the model must be Linear -> ReLU -> Linear with biases, not {model}")
    w1, _, w2, _ = model.parameters()
    N, (H, D_in), D_out = len(data.x), w1.shape, len(w2)
    shapes = {"x": (N, D_in), "y": (N, D_out), "the second layer's weights": (D_out, H)}
    tensors = [data.x, data.y, w2]
    if data.validation is not None:
        n = len(data.validation.x)
        shapes |= {"the validation rows' x": (n, D_in), "the validation rows' y": (n, D_out)}
        tensors += [data.validation.x, data.validation.y]
    for what, tensor in zip(shapes, tensors, strict=True):
        if tensor.shape != shapes[what]:
            raise DataError(f"{what} must be of shape {shapes[what]}, not {tuple(tensor.shape)}")
    kinds = {(tensor.dtype, tensor.device) for tensor in (*tensors, *model.parameters())}
    if len(kinds) > 1:
        raise DataError(f"data and model must be of one dtype and on one device, not {sorted(map(str, kinds))}")
