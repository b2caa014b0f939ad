"""Makes the engine that a config names, and checks what it is given."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.autograd import AutogradEngine
from twolayer.engines.base import Data, Engine
from twolayer.engines.batched import RowsEngine
from twolayer.engines.cuda_graph import Graph
from twolayer.engines.dual import DualEngine
from twolayer.engines.fused import FoldedEngine, Fused, PlainEngine
from twolayer.engines.manual import ManualEngine
from twolayer.engines.selection import choose_engine, choose_form
from twolayer.errors import DataError

# Below so many numbers x is copied with a column of ones, so that the biases ride inside the products.
FOLD_BELOW = 2**20


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
    if selection.in_parts(config) and not (name == "fused" and config.form == "dual"):
        engines |= {"manual": RowsEngine, "fused": RowsEngine}
    if name in engines:
        return engines[name](model, data, lr=config.step, reduction=config.reduction, loss=config.loss)
    engine = fused_engine(data, config)(model, data, lr=config.step, reduction=config.reduction, loss=config.loss)
    if data.x.is_cuda and config.cuda_graph:
        engine.replay = Graph(data.x.device)
    return engine


def fused_engine(data: Data, config: Config) -> type[Fused]:
    """The class for the config's form and the size of x."""
    if choose_form(config) == "dual":
        return DualEngine
    return FoldedEngine if data.x.numel() < FOLD_BELOW else PlainEngine


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
