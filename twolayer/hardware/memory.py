"""How much memory a training needs, and whether it is available: computed before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest
from itertools import accumulate

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.selection import ITEMSIZE, groups, in_cached_parts, in_parts, rows_at_once, weights
from twolayer.errors import ConfigError, Origin, Problem
from twolayer.formatting import size
from twolayer.system import available_memory

_LARGE = 2**30  # bytes
_PROCESS = 160 * 2**20  # bytes that a process with PyTorch has for itself; measured: 152 MiB


def needed(config: Config, ranks: int = 1) -> int:
    """The minimum number of bytes that a training needs on its device; with ranks, that each but the first needs.

    The data, N (D_in + D_out); the parameters and their gradients; an activation (N, H) and an output (N, D_out),
    each with its gradient, for all rows or for a part of them; for the dual form K (N, N) and the sum of the gradients
    S (N, H); and what else is kept of the parameters (see `_copies`).
    """
    if config.parts is not None:
        config = _chosen(config)
        numbers = _data(config, ranks) + _model(config, ranks) + _of_parts(config, ranks)
        return numbers * ITEMSIZE[config.dtype]
    dual = config.N * (config.N + config.H) if config.form == "dual" else 0
    activations = 2 * rows_at_once(config) * (config.H + config.D_out)
    numbers = _drawn(config) + _copies(config) * weights(config) + activations + dual
    return numbers * ITEMSIZE[config.dtype]


def beside_data(config: Config, ranks: int = 1) -> int:
    """The minimum number of bytes for one more model and engine where the data are already; in the first of ranks."""
    if config.parts is not None:
        config = _chosen(config)
    there = _data(config, ranks) + _model(config, ranks) - weights(config)
    return needed(config, ranks) - there * ITEMSIZE[config.dtype]


def _of_parts(config: Config, ranks: int) -> int:
    """The numbers that a rank has beside the data and the model, where what is computed is cut into parts.

    Of its own units or inputs the weights, of its own rows a copy; sums of each level of a tree, and those of the
    other ranks.
    """
    N, D_in, H, D_out = config.N, config.D_in, config.H, config.D_out
    exchanged = (config.parts or 1).bit_length() + (ranks if ranks > 1 else 0)
    if config.split == "inputs":
        doubled = 8 // ITEMSIZE[config.dtype]  # K is summed in float64
        return (N + H) * D_in // ranks + N * N * (1 + doubled * exchanged) + (5 + exchanged) * N * H
    if config.engine == "compiled":  # the weights packed in two ways, a gradient and that of a part
        return (4 + exchanged) * weights(config) + 2 * rows_at_once(config) * (H + D_out)
    if config.split == "rows":
        own, at_once = N * (D_in + D_out) // ranks, min(rows_at_once(config), -(-N // ranks))
        return own + (3 + exchanged) * weights(config) + 2 * at_once * (H + D_out)
    more = N * N + 3 * N * H // ranks if config.form == "dual" else N * D_in  # x transposed
    return (weights(config) + 2 * N * H) // ranks + (2 + exchanged) * N * D_out + more


def needed_by_host(config: Config, ranks: int = 1, here: int | None = None) -> int:
    """The minimum number of bytes that a training needs in the CPU's memory, where everything is drawn in float32.

    With ranks, that those need which are on this machine: `here` of them, the first among them, which share the data;
    None: all, and each has all data.
    """
    if ranks > 1:
        config = _chosen(config)
        data, model = _data(config, ranks), _model(config, ranks)
        each = needed(config, ranks) if config.device == "cpu" else 4 * (data + model)
        other_data, other_weights = (  # of the other ranks
            numbers * ITEMSIZE[config.dtype] for numbers in (_data(config) - data, weights(config) - model)
        )
        if here is None:
            return ranks * (each + other_data + other_weights)
        return here * each + other_weights + (other_data if selection.leader_has_all(config) else 0)
    if config.device == "cpu":
        originals = 4 * _drawn(config) if config.dtype == "float64" else 0
        return max(needed(config), originals + _drawn(config) * ITEMSIZE[config.dtype])
    return 4 * _drawn(config)


def needed_to_save(config: Config) -> int:
    """The additional bytes for checkpoints: a resumed training has the engine's state twice, as bytes and as tensors.

    Of a state in parts of units or inputs that is one part; and in the end the first process gathers the weights.
    """
    dual = config.N * config.H if config.form == "dual" else 0
    # The best weights, the average, and the vector from which the learning rate is measured next.
    kept = (config.patience is not None) + (config.average is not None) + (config.lr == "auto")
    numbers = 2 * ((1 + kept) * weights(config) + dual)
    if config.parts is not None and (split := _chosen(config).split) != "rows":
        count = min(config.parts, config.H if split == "units" else config.D_in)
        numbers = 2 * (kept * weights(config) + (weights(config) + dual) // count) + weights(config)
    return numbers * ITEMSIZE[config.dtype]


def _copies(config: Config) -> int:
    """How often the parameters are in memory, beside those that are drawn.

    Measured with three and nine million hidden units, these included: 3.3 times for batches, 4.3 with `patience`, 6.3
    with an average, too. `lr: auto` has at least four vectors of their size.
    """
    measured = 4 * (config.lr == "auto" and config.form != "dual")
    kept = (config.patience is not None) + 2 * (config.average is not None) if in_parts(config) else 0
    if config.engine == "compiled":  # packed in two ways, and the gradients of all groups and of a part
        return 3 + groups(config.N, weights(config)) + kept + measured
    return (2 + kept if in_parts(config) else 3 if in_cached_parts(config) else 1) + measured


def _drawn(config: Config) -> int:
    return _data(config) + weights(config)


def _chosen(config: Config) -> Config:
    """The config with its form and split chosen."""
    config = config.model_copy(update={"form": selection.choose_form(config)})
    return config.model_copy(update={"split": selection.choose_split(config)})


def _data(config: Config, ranks: int = 1) -> int:
    """The numbers of x and y that each of `ranks` ranks has, but for the first (see `leader_has_all`)."""
    if ranks == 1 or not selection.shares_data(config):
        return config.N * (config.D_in + config.D_out)
    if config.split == "inputs":
        return config.N * (-(-config.D_in // ranks) + config.D_out)
    return -(-config.N // ranks) * (config.D_in + config.D_out)


def _model(config: Config, ranks: int = 1) -> int:
    """The initial weights that each of `ranks` ranks has, but for the first, which has all."""
    return weights(config) // ranks if selection.shares_weights(config) else weights(config)


def check(
    config: Config, name: str = "config", *, saved: bool = False, ranks: int = 1, here: int | None = None, idle: int = 0
) -> None:
    """Raise ConfigError if a training does not fit into the CPU's memory; `saved`: including checkpoints.

    Of its `ranks`, `here` are on this machine, and share the data; None: all are, and each has all data. `idle` are
    more processes, which only have the data and a model.
    """
    need = _whole(config, ranks, here, saved=saved) + idle * _drawn(config) * ITEMSIZE[config.dtype]
    free = available_memory.available()
    if free is not None and not _fits(need, free):
        count = ranks if here is None else here
        by = f" by {count} ranks" if count > 1 else ""
        message = f"{config.shape}{by} needs at least {size(need)} of memory, and {size(free)} is available"
        raise ConfigError([Problem(Origin(name), "", message)])


def at_once(configs: Iterable[Config], most: int, *, saved: bool) -> int:
    """How many of these trainings, at least 1 and at most `most`, fit into the CPU's memory at once, each in a process.

    The largest of them are counted, wherever they come in the order.
    """
    each = (_PROCESS + _whole(config, saved=saved) for config in configs)
    return fitting(each, available_memory.available(), most)


def fitting(needs: Iterable[int], free: int | None, most: int) -> int:
    """How many of the largest of these numbers of bytes, at least 1 and at most `most`, are free together.

    `free` is None where the system does not say.
    """
    if free is None:
        return most
    return max(1, sum(_fits(need, free) for need in accumulate(nlargest(most, needs))))


def _whole(config: Config, ranks: int = 1, here: int | None = None, *, saved: bool) -> int:
    return needed_by_host(config, ranks, here) + (needed_to_save(config) if saved else 0)


def _fits(need: int, free: int) -> bool:
    """Whether that many bytes are available. A tenth is left to what cannot be counted.

    A training that grows beyond the memory is killed without a word.
    """
    return need <= (free if need < _LARGE else 0.9 * free)
