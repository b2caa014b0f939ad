"""Chooses the engine, the form and the rows per part, from the sizes alone."""

from __future__ import annotations

from typing import Literal

from twolayer.config.schema import Config

# The dual form computes Z from the weights again every 1000 iterations, counted from the first: not where a block ends,
# so that no result depends on where blocks end.
FOLD_EVERY = 1000

# At most this many hidden activations are in memory at once; more rows are processed in parts.
PART = 2**24


def choose_engine(config: Config) -> Literal["autograd", "manual", "fused"]:
    """The engine of a config whose device is chosen: `auto` is fused, and autograd on MPS, where nothing is tested."""
    if config.engine != "auto":
        return config.engine
    return "autograd" if config.device == "mps" else "fused"


def choose_form(config: Config) -> Literal["auto", "primal", "dual"]:
    """The form of a config whose engine is chosen; it stays `auto` for engines without forms.

    `auto` is the form with fewer floating point operations over the whole training. An iteration's products with x are
    4 N D_in H operations in the primal form and 2 N^2 H in the dual form, which needs 2 N^2 D_in once, for K, and
    4 N D_in H at the start, at every fold and at the end. K is computed in float64, which takes twice as long on a CPU
    and 32 times as long on many GPUs.
    """
    if config.form != "auto" or config.engine in ("autograd", "manual"):
        return config.form
    if in_parts(config):
        return "primal"
    N, D_in, H, epochs = config.N, config.D_in, config.H, config.epochs
    primal = epochs * 4 * N * D_in * H
    slower = 1 if config.dtype == "float64" else 2 if config.device == "cpu" else 32
    dual = epochs * 2 * N**2 * H + slower * 2 * N**2 * D_in + (2 + epochs // FOLD_EVERY) * 4 * N * D_in * H
    return "dual" if dual < primal else "primal"


def operations(config: Config, rows: int | None = None) -> int:
    """The floating point operations in the matrix products of an update on `rows` rows (default: all).

    Two products with x (or one with K, if the form is dual) and three with W2.
    """
    N, D_in, H, D_out = rows or config.N, config.D_in, config.H, config.D_out
    return (2 * N * N * H if config.form == "dual" else 4 * N * D_in * H) + 6 * N * H * D_out


def is_batched(config: Config) -> bool:
    """Whether an update is on some of the rows only."""
    return config.batch_size is not None and config.batch_size < config.N


def in_parts(config: Config) -> bool:
    """Whether the training needs a `RowEngine`: for batches, validation, an average, or more rows than fit one part."""
    is_watched = config.validation is not None or config.average is not None
    return is_batched(config) or is_watched or config.N * config.H > PART


def part_rows(H: int, rows: int) -> int:
    """How many of these rows may have their hidden activations in memory at once."""
    return min(max(1, PART // H), rows)


def batches(N: int, batch_size: int) -> int:
    """The updates in an epoch: the number of equal batches whose size is nearest to the one asked for."""
    return max(1, (2 * N + batch_size) // (2 * batch_size))
