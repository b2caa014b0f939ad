"""The largest stable learning rate, from the curvature of the loss; `lr: auto`.

With lambda the largest eigenvalue of the Hessian, gradient descent with a learning rate above 2 / lambda moves away
from any minimum along that eigenvector: near a minimum it diverges, and farther away it either reaches a flatter region
or diverges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.base import Data, check_state, views
from twolayer.engines.losses import Objective
from twolayer.errors import DataError
from twolayer.hardware import threads
from twolayer.tables.options import FileData
from twolayer.training.hessian import MAX_PRODUCTS, HessianProduct, Vector, largest_eigenvalue

TOLERANCE = 1e-3  # between two successive estimates, relative
CHUNK = 2**22  # numbers in the buffers of one product, approximate

SAMPLE = 512  # maximum rows of a table that `LearningRateFinder` uses
SAMPLE_TOLERANCE = 0.05  # TOLERANCE of `LearningRateFinder`
LARGE = 2**16  # with more rows in a file, `curvature` uses the sample, too

# Without being asked for, the estimate may cost at most this share of a run.
CHEAP = 0.02


@dataclass(frozen=True)
class Curvature:
    """The largest eigenvalue of the Hessian, estimated from below, and the number of products that it took."""

    largest: float
    products: int

    @property
    def limit(self) -> float:
        """The largest stable learning rate, 2 / lambda; infinite if the loss is flat or curves down only."""
        return 2 / self.largest if self.largest > 0 else float("inf")


def curvature(model: nn.Sequential, data: Data, config: Config) -> Curvature:
    """The largest eigenvalue of the Hessian of the loss at the model's weights, by power iteration.

    Deterministic for a `config.seed`. For a file of more than 2^16 rows it is that of `sample`. Raises DeviceError if
    there is not enough memory, and DataError if the curvature is not finite.
    """
    generator = torch.Generator().manual_seed(config.seed)
    weights = [parameter.detach() for parameter in model.parameters()]
    tensors = [torch.randn(w.shape, generator=generator).to(w) for w in weights]
    start = Vector(tensors, tensors, exact=True)
    factor = 1.0
    if isinstance(config.data, FileData) and len(data.x) > LARGE:
        some = sample(data, config)
        data, factor = some, len(data.x) / len(some.x) if config.reduction == "sum" else 1.0
    rows = max(1, CHUNK // (config.D_in + 4 * config.H + 3 * config.D_out))
    with threads.set_up(config), torch.no_grad():
        product = HessianProduct(data, Objective.of(config), config.H, rows)
        product.set_weights(weights)
        vector, image = (Vector(buffers, buffers, exact=True) for buffers in _like(tensors, 2))
        vector.set_to(start, start.norm())
        largest, products = largest_eigenvalue(product, vector, image, TOLERANCE)
        if largest < 0:  # the one of largest absolute value; minus it, the largest eigenvalue is the farthest from zero
            vector.set_to(start, start.norm())
            above, more = largest_eigenvalue(product, vector, image, TOLERANCE, shift=largest)
            largest, products = largest + above, products + more
    return Curvature(factor * _finite(largest, config), products)


def suggested(model: nn.Sequential, data: Data, config: Config) -> float:
    """The learning rate of `lr: auto` at the model's weights: 1 / lambda, and 1 if every learning rate is stable."""
    limit = curvature(model, data, config).limit
    return limit / 2 if math.isfinite(limit) else 1.0


def is_sampled(config: Config) -> bool:
    """Whether `lr: auto` is measured by `LearningRateFinder`, which is for tables, and not by `suggested`."""
    is_table = isinstance(config.data, FileData) or config.loss == "cross_entropy"
    return is_table or (config.batch_size is not None and config.batch_size < config.N)


def sample(data: Data, config: Config) -> Data:
    """At most 512 evenly spaced rows: of N rows those with index i N / n, rounded down, for i from 0 to n - 1."""
    N = len(data.x)
    n = selection.part_rows(config.H, min(SAMPLE, N))
    if n == N:
        return Data(data.x, data.y)
    rows = (torch.arange(n) * N // n).to(data.x.device)
    return Data(data.x[rows], data.y[rows])


class LearningRateFinder:
    """The learning rate of `lr: auto` for tables, 1 / lambda of the loss over `sample`; about two products each time.

    It starts from the vector at which the last measurement ended, in buffers that are allocated once. The rate is for
    the rows of one update: if the loss is their sum, for the rows of the largest batch. Call all methods with the
    threads and the precision of the training (`threads.set_up`).
    """

    def __init__(self, model: nn.Sequential, data: Data, config: Config) -> None:
        self.model, self.config = model, config
        some = sample(data, config)
        (n, D_in), D_out, H = some.x.shape, some.y.shape[1], config.H
        batches = selection.batches(len(data.x), config.batch_size or len(data.x))
        factor = math.ceil(len(data.x) / batches) / n if config.reduction == "sum" else 1.0
        self.product = HessianProduct(some, Objective.of(config), H, n, factor)

        # The first layer's weights are stored transposed, as in `BatchedEngine`.
        shapes = [(D_in, H), (H,), (D_out, H), (D_out,)]
        generator = torch.Generator().manual_seed(config.seed)
        start = torch.randn(sum(math.prod(shape) for shape in shapes), generator=generator).to(some.x)
        self.eigenvector = start / start.norm()

        def of(flat: Tensor) -> Vector:
            w1_t, *others = views(flat, shapes)
            return Vector([flat], [w1_t.t(), *others], exact=False)

        self.vector, self.image = of(self.eigenvector), of(torch.empty_like(start))

    @torch.no_grad()
    def measure(self) -> float:
        """1 / lambda at the model's current weights, and 1 if every learning rate is stable.

        Raises DataError if the curvature is not finite.
        """
        self.product.set_weights([parameter.detach() for parameter in self.model.parameters()])
        largest, _ = largest_eigenvalue(self.product, self.vector, self.image, SAMPLE_TOLERANCE)
        if largest < 0:  # the one of largest absolute value; minus it, the largest eigenvalue is the farthest from zero
            above, _ = largest_eigenvalue(self.product, self.vector, self.image, SAMPLE_TOLERANCE, shift=largest)
            largest += above
        return 1 / largest if _finite(largest, self.config) > 0 else 1.0

    def state(self) -> dict[str, Tensor]:
        """The vector from which the next measurement starts."""
        return {"curvature": self.eigenvector}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state. Raises StateError if it is another training's."""
        check_state(self.state(), state)
        self.eigenvector.copy_(state["curvature"])


def next_measurement(done: int) -> int:
    """After how many iterations `lr: auto` measures next: 1, 2, ..., 8, 10, 12, 15, ..., a quarter more each time."""
    number = 1
    while number <= done:
        number = max(number + 1, number * 5 // 4)
    return number


def is_cheap(config: Config) -> bool:
    """Whether the estimate costs little compared with the run, counted in operations of matrix products."""
    N, D_in, H, D_out = config.N, config.D_in, config.H, config.D_out
    product = 6 * N * D_in * H + 14 * N * H * D_out
    return MAX_PRODUCTS * product <= CHEAP * config.epochs * selection.operations(config)


def _finite(curvature: float, config: Config) -> float:
    if not math.isfinite(curvature):
        raise DataError(f"the curvature of the loss is beyond {config.dtype}; scale the data down")
    return curvature


def _like(tensors: list[Tensor], count: int) -> list[list[Tensor]]:
    return [[torch.empty_like(tensor) for tensor in tensors] for _ in range(count)]
