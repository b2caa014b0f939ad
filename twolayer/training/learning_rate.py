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
from twolayer.engines.base import Data, Engine, check_state
from twolayer.engines.dual import DualEngine, gram
from twolayer.engines.losses import Objective
from twolayer.errors import DataError
from twolayer.hardware import threads
from twolayer.tables.options import FileData
from twolayer.training.batch_noise import HeaviestRow
from twolayer.training.hessian import HessianProduct
from twolayer.training.lanczos import Lanczos

TOLERANCE = 1e-2  # of the residual, relative to the eigenvalue; its error is about the square of that
MAX_PRODUCTS = 200

# The same for a measurement of `lr: auto`, which starts from the last eigenvector. That would not notice another
# direction whose curvature has become larger; but along such a direction the gradient grows, so a share of it is added.
WARM_TOLERANCE = 0.1
MAX_WARM_PRODUCTS = 30
GRADIENT_SHARE = 0.3

# A learning rate is kept while it is at most this times 1 / lambda: a fixed one would be stable up to twice that.
HOLD = 1.25

STEADY = 0.2  # lambda is steady if it has changed by at most this share since the last measurement

SAMPLE = 512  # maximum rows of a table that `LearningRateFinder` uses
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
    """The largest eigenvalue of the Hessian of the loss at the model's weights, by the Lanczos method.

    Deterministic for a `config.seed`. For a file of more than 2^16 rows it is that of `sample`. Raises DeviceError if
    there is not enough memory, and DataError if the curvature is not finite.
    """
    factor = 1.0
    if isinstance(config.data, FileData) and len(data.x) > LARGE:
        some = sample(data, config)
        data, factor = some, len(data.x) / len(some.x) if config.reduction == "sum" else 1.0
    objective = Objective.of(config)
    numerator, denominator = objective.gradient_scale(*data.y.shape)
    with threads.set_up(config), torch.no_grad():
        product = HessianProduct(data, objective, config.H, k=gram(data.x) if config.form == "dual" else None)
        product.set_weights([parameter.detach() for parameter in model.parameters()])
        lanczos = Lanczos(product, data.x)
        lanczos.start(torch.Generator().manual_seed(config.seed))
        largest, products = lanczos.largest(TOLERANCE, MAX_PRODUCTS)
    return Curvature(factor * numerator / denominator * _finite(largest, config), products)


def suggested(model: nn.Sequential, data: Data, config: Config) -> float:
    """The learning rate of `lr: auto` at the model's weights: 1 / lambda, and 1 if every learning rate is stable."""
    limit = curvature(model, data, config).limit
    return limit / 2 if math.isfinite(limit) else 1.0


def is_sampled(config: Config) -> bool:
    """Whether `lr: auto` measures some of the rows, and may only fall: for a table, for classes, and with batches."""
    is_table = isinstance(config.data, FileData) or config.loss == "cross_entropy"
    return is_table or selection.is_batched(config)


def sample(data: Data, config: Config) -> Data:
    """At most 512 evenly spaced rows: of N rows those with index i N / n, rounded down, for i from 0 to n - 1."""
    N = len(data.x)
    n = selection.part_rows(config.H, min(SAMPLE, N))
    if n == N:
        return Data(data.x, data.y)
    rows = (torch.arange(n) * N // n).to(data.x.device)
    return Data(data.x[rows], data.y[rows])


class LearningRateFinder:
    """The learning rate of `lr: auto`, 1 / lambda: one or two products with the Hessian for each measurement.

    It is measured where the `engine` computes: for the dual form on K, else on the weights; for tables, for classes and
    with batches on the rows of `sample`, with the row that curves a batch most (see `batch_noise`). It starts from the
    vector at which the last measurement ended and the gradient, in buffers that are allocated once. The rate is for the
    rows of one update: if the loss is their sum, for those of the largest batch. Call all methods with the threads and
    the precision of the training (`threads.set_up`).
    """

    def __init__(self, model: nn.Sequential, data: Data, config: Config, engine: Engine) -> None:
        self.engine, self.config = engine, config
        self.weights = [parameter.detach() for parameter in model.parameters()]
        self.dual = engine if isinstance(engine, DualEngine) else None
        objective, N, D_out = Objective.of(config), *data.y.shape
        numerator, denominator = objective.gradient_scale(N, D_out)
        self.heaviest: HeaviestRow | None = None
        row_weights = None
        if self.dual is None and is_sampled(config):
            batches = selection.batches(N, config.batch_size or N)
            some = sample(data, config)
            n = len(some.x)
            numerator, denominator = objective.gradient_scale(n, D_out)
            if config.reduction == "sum":
                numerator, denominator = numerator * math.ceil(N / batches), n
            if batches > 1:
                self.heaviest = HeaviestRow(data, some)
                some, row_weights = self.heaviest.data, self.heaviest.weights(N, batches)
            data = some
        self.scale = numerator / denominator
        k = self.dual.k if self.dual is not None else None
        self.product = HessianProduct(data, objective, config.H, k=k, row_weights=row_weights)
        self.lanczos = Lanczos(self.product, data.x)
        self.lanczos.start(torch.Generator().manual_seed(config.seed))
        # 1 / lambda at the last measurement, after how many updates that was, and after how many the next one is due.
        self.rate, self.measured, self.due = math.nan, 0, 0

    @torch.inference_mode()
    def measure(self, done: int) -> float:
        """1 / lambda after `done` updates; 1 if every learning rate is stable, nan if the curvature is not finite."""
        if self.dual is not None:
            self.product.set_pre_activations(self.dual.z, self.dual.b)
        else:
            self.engine.sync()
            if self.heaviest is not None:
                self.heaviest.choose(self.weights)
            self.product.set_weights(self.weights)
        if done:
            self.lanczos.add_gradient(GRADIENT_SHARE)
        largest, _ = self.lanczos.largest(WARM_TOLERANCE, MAX_WARM_PRODUCTS)
        largest *= self.scale
        rate = 1.0 if largest <= 0 else 1 / largest  # nan stays nan
        self.due = next_measurement(done, done - self.measured, steady=abs(rate / self.rate - 1) <= STEADY)
        self.rate, self.measured = rate, done
        return rate

    def choose(self, before: float, done: int) -> float:
        """The learning rate after `done` updates; `before` is the one so far.

        Raises DataError if the curvature is not finite at the start; later the loss shows whether it has diverged.
        """
        rate = self.measure(done)
        if math.isnan(rate):
            if not done:
                raise beyond(self.config)
            return before
        if not done:
            return rate
        if is_sampled(self.config):
            return min(before, rate)
        return max(rate, min(before, HOLD * rate))

    def state(self) -> dict[str, Tensor]:
        """The vector from which the next measurement starts, the last result, and when the next one is due."""
        measured = torch.tensor([self.rate, self.measured, self.due], dtype=torch.float64)
        return {"curvature": self.lanczos.basis[0], "measured": measured}

    def load_state(self, state: Mapping[str, Tensor], done: int) -> None:
        """Continue from a state after `done` updates. Raises StateError if it is another training's."""
        if not state:  # written by 0.1.0: measure at once
            self.due = self.measured = done
            return
        check_state(self.state(), state)
        self.lanczos.basis[0].copy_(state["curvature"])
        self.rate, measured, due = state["measured"].tolist()
        self.measured, self.due = int(measured), int(due)


def next_measurement(done: int, gap: int, *, steady: bool) -> int:
    """After how many updates `lr: auto` measures next, given a measurement after `done`, `gap` after the one before.

    The distance grows to twice the last one, but at most to a quarter of `done`, or to half of it while lambda is
    steady.
    """
    return done + max(1, min(2 * gap, done // (2 if steady else 4)))


def is_cheap(config: Config) -> bool:
    """Whether the estimate costs little compared with the run, counted in operations of matrix products."""
    N, D_in, H, D_out = config.N, config.D_in, config.H, config.D_out
    product = 6 * N * D_in * H + 14 * N * H * D_out
    return MAX_PRODUCTS * product <= CHEAP * config.epochs * selection.operations(config)


def beyond(config: Config) -> DataError:
    """The error for a curvature that is not finite at the initial weights."""
    return DataError(f"the curvature of the loss is beyond {config.dtype}; scale the data down")


def _finite(curvature: float, config: Config) -> float:
    if not math.isfinite(curvature):
        raise beyond(config)
    return curvature
