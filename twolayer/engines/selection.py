"""Which engine, form and number of rows at a time, from the sizes alone."""

from __future__ import annotations

from twolayer.config.schema import Config

# The dual form recomputes from the weights at every so many iterations, counted from the first: never where a block
# ends, so that no result depends on the cuts.
FOLD_EVERY = 1000

# Of so many numbers at the most are the hidden units that are held at once: those of more rows come in parts.
PART = 2**24


def choose_engine(config: Config) -> str:
    """The engine's name; `auto` is fused, and on MPS, where nothing is tested, autograd."""
    if config.engine != "auto":
        return config.engine
    return "autograd" if config.device == "mps" else "fused"


def choose_form(config: Config) -> str:
    """`primal` or `dual`; for `auto` the one with fewer floating point operations over the whole training.

    An iteration's products with x are 4 N D_in H operations in the primal form and 2 N^2 H in the dual form, which
    takes 2 N^2 D_in once, for K, and 4 N D_in H at the start, at every fold and at the end. K is made in float64, which
    takes a CPU twice as long and many a GPU 32 times.
    """
    if config.form != "auto":
        return config.form
    if in_parts(config):
        return "primal"
    N, D_in, H, epochs = config.N, config.D_in, config.H, config.epochs
    primal = epochs * 4 * N * D_in * H
    slower = 1 if config.dtype == "float64" else 2 if config.device == "cpu" else 32
    dual = epochs * 2 * N**2 * H + slower * 2 * N**2 * D_in + (2 + epochs // FOLD_EVERY) * 4 * N * D_in * H
    return "dual" if dual < primal else "primal"


def operations(config: Config, rows: int | None = None) -> int:
    """The operations in the matrix products of an update on all rows, or so many: two with x (or one with K), three
    with W2.
    """
    N, D_in, H, D_out = rows or config.N, config.D_in, config.H, config.D_out
    dual = choose_engine(config) == "fused" and choose_form(config) == "dual"
    return (2 * N * N * H if dual else 4 * N * D_in * H) + 6 * N * H * D_out


def in_parts(config: Config) -> bool:
    """Whether the training goes by rows: in batches, with some for validation, or with more than are held at once."""
    is_batched = config.batch_size is not None and config.batch_size < config.N
    return is_batched or config.validation is not None or config.N * config.H > PART


def part_rows(H: int, most: int) -> int:
    """The rows whose hidden units are held at once, of so many."""
    return min(max(1, PART // H), most)


def batches(N: int, batch_size: int) -> int:
    """The updates in an epoch: as many as bring the batches, of equal size, nearest to the one that is wanted."""
    return max(1, (2 * N + batch_size) // (2 * batch_size))
