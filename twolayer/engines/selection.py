"""Chooses the engine, the form and the rows per part, from the sizes alone."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from twolayer.config.schema import Config

# The dual form computes Z from the weights again every 1000 iterations, counted from the first: not where a block ends,
# so that no result depends on where blocks end.
FOLD_EVERY = 1000

# At most this many hidden activations are in memory at once; more rows are processed in parts.
PART = 2**24

# A CPU's cache holds about this many bytes of hidden activations, beside their gradients; with more inputs than this
# the products with x need larger parts (docs/performance.md, "Parts that fit the cache").
CACHED_BYTES = 2**20
CACHED_D_IN = 256
CACHED_X_BYTES = 2**22  # of x, where all parts of the hidden units read it
FEWEST_ROWS = 64  # with fewer a product is mostly calls
ITEMSIZE = {"float32": 4, "float64": 8}

# What the compiled engine saves in an update, for each hidden activation in it and for each operation, in seconds; up
# to how many inputs it does, for small batches and for more rows; and from which saving on it is taken: to load it
# takes half a second, and to compile it, once, two and a half more (docs/performance.md, "Who takes the compiled
# engine").
SAVED_SECONDS, SAVED_PER_UNIT, SAVED_PER_OPERATION = 10e-6, 0.7e-9, 5e-12
SMALL_ROWS, SMALL_D_IN, LARGE_D_IN = 128, 1024, 128
COMPILED_PAYS = 1

# The compiled engine cuts its rows into groups, which threads share: at most this number, of at least these rows.
GROUPS, GROUP_ROWS = 64, 256


def choose_engine(config: Config) -> Literal["autograd", "manual", "fused", "compiled"]:
    """The engine of a config whose device is chosen.

    `auto` is fused; compiled on a CPU where numba is installed and `compiled_saves` enough; and autograd on MPS, where
    nothing is tested. In parts it is compiled only if they are of rows.
    """
    if config.engine != "auto":
        return config.engine
    if config.device == "mps":
        return "autograd"
    if config.parts is not None and choose_split(config.model_copy(update={"form": choose_form(config)})) != "rows":
        return "fused"
    pays = config.device == "cpu" and compiled_saves(config) >= COMPILED_PAYS
    return "compiled" if pays and numba_works() else "fused"


def numba_works() -> bool:
    """Whether numba is installed, can be imported (it refuses a NumPy that it does not know), and compiles."""
    if find_spec("numba") is None:
        return False
    try:
        import numba
    except ImportError:
        return False
    return not getattr(numba.config, "DISABLE_JIT", 0)


def compiled_saves(config: Config) -> float:
    """The seconds that the compiled engine is expected to save over the whole training, beside the fused one.

    0 where the fused engine would take the dual form, or where the products decide, which PyTorch's are better at.
    """
    rows = min(config.N, config.batch_size or config.N)
    if config.D_in > (SMALL_D_IN if rows <= SMALL_ROWS else LARGE_D_IN):
        return 0
    if config.form != "auto" or choose_form(config.model_copy(update={"engine": "fused"})) == "dual":
        return 0
    updates = config.epochs * (batches(config.N, config.batch_size) if config.batch_size else 1)
    saved = SAVED_SECONDS + SAVED_PER_UNIT * rows * config.H + SAVED_PER_OPERATION * operations(config, rows)
    return updates * saved


def choose_form(config: Config) -> Literal["auto", "primal", "dual"]:
    """The form of a config whose engine is chosen; it stays `auto` for engines without forms.

    `auto` is the form with fewer floating point operations over the whole training. An iteration's products with x are
    4 N D_in H operations in the primal form and 2 N^2 H in the dual form, which needs 2 N^2 D_in once, for K, and
    4 N D_in H at the start, at every fold and at the end. K is computed in float64, which takes twice as long on a CPU
    and 32 times as long on many GPUs.
    """
    if config.form != "auto" or config.engine in ("autograd", "manual", "compiled"):
        return config.form
    if config.split == "inputs":
        return "dual"
    if in_parts(config) or config.split == "rows":
        return "primal"
    N, D_in, H, epochs = config.N, config.D_in, config.H, config.epochs
    primal = epochs * 4 * N * D_in * H
    slower = 1 if config.dtype == "float64" else 2 if config.device == "cpu" else 32
    dual = epochs * 2 * N**2 * H + slower * 2 * N**2 * D_in + (2 + epochs // FOLD_EVERY) * 4 * N * D_in * H
    return "dual" if dual < primal else "primal"


def choose_split(config: Config) -> Literal["auto", "units", "rows", "inputs"]:
    """What the parts are of, for a config whose form is chosen; it stays `auto` without parts.

    Each update combines N D_out numbers if the parts are of hidden units, and the gradients of all weights if they are
    of rows: `auto` takes the smaller. Only rows can be batches, or validated; the compiled engine has no others.
    """
    if config.parts is None or config.split != "auto":
        return config.split
    if config.engine == "compiled":
        return "rows"
    if is_batched(config) or is_watched(config):
        return "rows"
    return "units" if config.form == "dual" or config.N * config.D_out < weights(config) else "rows"


def shares_data(config: Config) -> bool:
    """Whether a process needs its own rows or columns of x alone, for a config whose split is chosen.

    A batch may have any rows.
    """
    if config.parts is None:
        return False
    return config.split == "inputs" or (config.split == "rows" and not is_batched(config))


def shares_weights(config: Config) -> bool:
    """Whether a process needs the weights of its own units or inputs alone, for a config whose split is chosen."""
    return config.parts is not None and config.split != "rows"


def leader_has_all(config: Config) -> bool:
    """Whether the first process has all data nevertheless.

    It measures the learning rate; of a table it fits the baseline, and keeps what its rows are recognised by.
    """
    return config.lr == "auto" or config.data.source == "file"


def weights(config: Config) -> int:
    """The weights and biases of the network."""
    return config.H * (config.D_in + 1) + config.D_out * (config.H + 1)


def operations(config: Config, rows: int | None = None) -> int:
    """The floating point operations in the matrix products of an update on `rows` rows (default: all).

    Two products with x (or one with K, if the form is dual) and three with W2.
    """
    N, D_in, H, D_out = rows or config.N, config.D_in, config.H, config.D_out
    return (2 * N * N * H if config.form == "dual" else 4 * N * D_in * H) + 6 * N * H * D_out


def is_batched(config: Config) -> bool:
    """Whether an update is on some of the rows only."""
    return config.batch_size is not None and config.batch_size < config.N


def is_watched(config: Config) -> bool:
    """Whether the weights are validated or averaged after each epoch."""
    return config.validation is not None or config.average is not None


def in_parts(config: Config) -> bool:
    """Whether the training needs a `RowEngine`: for batches, validation, an average, or more rows than fit one part."""
    return is_batched(config) or is_watched(config) or config.N * config.H > PART


def in_cached_parts(config: Config) -> bool:
    """Whether the fused engine trains on all rows in parts that stay in the cache: the primal form on a CPU."""
    if config.device != "cpu" or config.engine != "fused" or config.form != "primal" or config.D_in > CACHED_D_IN:
        return False
    if config.parts is not None and config.split != "rows":
        return False
    return 2 * cached_rows(config.D_in, config.H, config.N, ITEMSIZE[config.dtype]) <= config.N


def rows_at_once(config: Config) -> int:
    """How many rows have their hidden activations in memory at once."""
    if config.engine == "compiled":
        return 8
    by_part = (in_parts(config) or config.split == "rows") and config.form != "dual"
    if config.device == "cpu" and config.engine != "autograd" and (by_part or in_cached_parts(config)):
        return cached_rows(config.D_in, config.H, config.N, ITEMSIZE[config.dtype])
    return part_rows(config.H, config.N) if by_part else config.N


def part_rows(H: int, rows: int) -> int:
    """How many of these rows may have their hidden activations in memory at once."""
    return min(max(1, PART // H), rows)


def cached_rows(D_in: int, H: int, rows: int, itemsize: int) -> int:
    """How many of these rows a CPU computes at once, so that their hidden activations stay in its cache."""
    if D_in > CACHED_D_IN:
        return part_rows(H, rows)
    return min(part_rows(H, rows), max(FEWEST_ROWS, CACHED_BYTES // (itemsize * H)))


def chunk_rows(rows: int, at_once: int, H: int) -> int:
    """How many of a part's rows are computed at once: equal chunks of nearly as many as the cache holds.

    A multiple of 16, or all; a chunk of a few rows at the end would take as long as one of a hundred.
    """
    count = max(1, (2 * rows + at_once) // (2 * at_once), -(-rows // max(1, PART // H)))
    return min(rows, -(-rows // (16 * count)) * 16)


def cached_rows_of_x(rows: int, D_in: int, itemsize: int) -> int:
    """How many of these rows of x a CPU's cache holds, to be read several times: a multiple of 16, or all."""
    return min(rows, max(FEWEST_ROWS, CACHED_X_BYTES // (itemsize * D_in) // 16 * 16))


def batches(N: int, batch_size: int) -> int:
    """The updates in an epoch: the number of equal batches whose size is nearest to the one asked for."""
    return max(1, (2 * N + batch_size) // (2 * batch_size))


def groups(N: int, weights: int) -> int:
    """How many groups the compiled engine cuts at most N rows into; each keeps a gradient of all `weights`."""
    return max(1, min(GROUPS, -(-N // GROUP_ROWS), PART // weights))


def group_rows(rows: int, most: int) -> int:
    """The rows of each group but the last, a multiple of eight, where there are at most `most` groups."""
    return max(GROUP_ROWS, -(-rows // (8 * most)) * 8)
