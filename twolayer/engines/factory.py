"""Creates the engine that a config names, and checks the model and the data."""

from __future__ import annotations

from torch import nn

from twolayer.config.schema import Config
from twolayer.engines.autograd import AutogradEngine
from twolayer.engines.base import Data, Engine
from twolayer.engines.batched import BatchedEngine
from twolayer.engines.by_inputs import InputsEngine
from twolayer.engines.by_rows import RowsEngine
from twolayer.engines.by_units import DualUnitsEngine, UnitsEngine
from twolayer.engines.cuda_graph import Graph
from twolayer.engines.dual import DualEngine
from twolayer.engines.fused import FusedEngine, PlainEngine, PrimalEngine
from twolayer.engines.losses import Objective
from twolayer.engines.manual import ManualEngine
from twolayer.engines.parts import ALONE, Group
from twolayer.engines.selection import in_cached_parts, in_parts
from twolayer.errors import DataError, extra

# If x has fewer numbers than this, it is copied with a column of ones, so that the biases are part of the products.
FOLD_BELOW = 2**20


def make_engine(model: nn.Sequential, data: Data, config: Config, group: Group = ALONE) -> Engine:
    """The engine of a config without `auto` (see `training.setup.resolve_auto`), on this model's parameters.

    With `parts` it computes those of this process in the `group`, of which all make one at the same time.

    Raises DataError if the model is not Linear -> ReLU -> Linear with biases, or if the data do not have N rows or do
    not match the model in shape, dtype and device.
    """
    if data.shape[0] != config.N:  # the form and the threads were chosen by N
        raise DataError(f"the config has N = {config.N}, but the data have {data.shape[0]} rows")
    _check(model, data)
    objective, lr = Objective.of(config), float(config.lr)
    if config.engine == "compiled":
        with extra("numba", "fast"):  # imported where it is chosen alone: it takes half a second
            from twolayer.engines.compiled import CompiledEngine
            from twolayer.engines.compiled_rows import CompiledRowsEngine
        if config.parts is not None:
            return CompiledRowsEngine(model, data, objective, lr=lr, parts=config.parts, group=group)
        return CompiledEngine(model, data, objective, lr=lr)
    if config.parts is not None:
        return _in_parts(config)(model, data, objective, lr=lr, parts=config.parts, group=group)
    if config.engine == "autograd":
        return AutogradEngine(model, data, objective, lr=lr)
    if (in_parts(config) and config.form != "dual") or in_cached_parts(config):
        return BatchedEngine(model, data, objective, lr=lr)
    if config.engine == "manual":
        return ManualEngine(model, data, objective, lr=lr)
    on_cuda = data.x.is_cuda
    exact = int(config.threads) > 1 and not on_cuda
    engine = fused_engine(data, config)(model, data, objective, lr=lr, exact_updates=exact)
    if on_cuda and config.cuda_graph:
        engine.replay = Graph(data.x.device)
    return engine


def _in_parts(config: Config) -> type[UnitsEngine | RowsEngine | InputsEngine]:
    """The class for what the parts are of."""
    if config.split == "units":
        return DualUnitsEngine if config.form == "dual" else UnitsEngine
    return InputsEngine if config.split == "inputs" else RowsEngine


def fused_engine(data: Data, config: Config) -> type[FusedEngine]:
    """The class for the config's form and the size of x."""
    if config.form == "dual":
        return DualEngine
    return PrimalEngine if data.x.numel() < FOLD_BELOW else PlainEngine


def _check(model: nn.Sequential, data: Data) -> None:
    layers = list(model)
    if [type(layer) for layer in layers] != [nn.Linear, nn.ReLU, nn.Linear] or len(list(model.parameters())) != 4:
        raise DataError(f"the model must be Linear -> ReLU -> Linear with biases, not {model}")
    w1, _, w2, _ = model.parameters()
    N, (H, D_in), D_out = len(data.x), w1.shape, len(w2)
    own = D_in if data.share is None else data.x.shape[1]
    shapes = {"x": (N, own), "y": (N, D_out), "the second layer's weights": (D_out, H)}
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
