"""How much memory a training needs, and whether it is available: computed before anything is allocated."""

from __future__ import annotations

from twolayer.config.schema import Config
from twolayer.engines.selection import ITEMSIZE, groups, in_cached_parts, in_parts, rows_at_once
from twolayer.errors import ConfigError, Origin, Problem
from twolayer.formatting import size
from twolayer.system import available_memory

_LARGE = 2**30  # bytes


def needed(config: Config) -> int:
    """The minimum number of bytes that a training needs on its device.

    The data, N (D_in + D_out); the parameters and their gradients; an activation (N, H) and an output (N, D_out),
    each with its gradient, for all rows or for a part of them; for the dual form K (N, N) and the sum of the gradients
    S (N, H); and what else is kept of the parameters (see `_copies`).
    """
    dual = config.N * (config.N + config.H) if config.form == "dual" else 0
    activations = 2 * rows_at_once(config) * (config.H + config.D_out)
    numbers = _drawn(config) + _copies(config) * _parameters(config) + activations + dual
    return numbers * ITEMSIZE[config.dtype]


def needed_by_host(config: Config) -> int:
    """The minimum number of bytes that a training needs in the CPU's memory, where everything is drawn in float32."""
    if config.device == "cpu":
        originals = 4 * _drawn(config) if config.dtype == "float64" else 0
        return max(needed(config), originals + _drawn(config) * ITEMSIZE[config.dtype])
    return 4 * _drawn(config)


def needed_to_save(config: Config) -> int:
    """The additional bytes for writing a checkpoint: safetensors makes two copies of the engine's state."""
    dual = config.N * config.H if config.form == "dual" else 0
    # The best weights, the average, and the vector from which the learning rate is measured next.
    kept = (config.patience is not None) + (config.average is not None) + (config.lr == "auto")
    return 2 * ((1 + kept) * _parameters(config) + dual) * ITEMSIZE[config.dtype]


def _copies(config: Config) -> int:
    """How often the parameters are in memory, beside those that are drawn.

    Measured with three and nine million hidden units, these included: 3.3 times for batches, 4.3 with `patience`, 6.3
    with an average, too. `lr: auto` has at least four vectors of their size.
    """
    measured = 4 * (config.lr == "auto" and config.form != "dual")
    kept = (config.patience is not None) + 2 * (config.average is not None) if in_parts(config) else 0
    if config.engine == "compiled":  # packed in two ways, and the gradients of all groups and of a part
        return 3 + groups(config.N, _parameters(config)) + kept + measured
    return (2 + kept if in_parts(config) else 3 if in_cached_parts(config) else 1) + measured


def _parameters(config: Config) -> int:
    return config.H * (config.D_in + 1) + config.D_out * (config.H + 1)


def _drawn(config: Config) -> int:
    return config.N * (config.D_in + config.D_out) + _parameters(config)


def check(config: Config, name: str = "config", *, saved: bool = False) -> None:
    """Raise ConfigError if a training does not fit into the CPU's memory; `saved`: including checkpoints."""
    need, free = needed_by_host(config) + (needed_to_save(config) if saved else 0), available_memory.available()
    # A tenth is left to what cannot be counted: a training that grows beyond the memory is killed without a word.
    if free is not None and need > (free if need < _LARGE else 0.9 * free):
        message = f"{config.shape} needs at least {size(need)} of memory, and {size(free)} is available"
        raise ConfigError([Problem(Origin(name), "", message)])
