"""The largest stable step of gradient descent, from the curvature of the loss.

With lambda the largest eigenvalue of the Hessian, gradient descent with a step above 2 / lambda moves away from any
minimum along that eigenvector: near one it diverges, and further off the network is thrown to a flatter place or lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.base import Data, check_state, relu_backward, views
from twolayer.engines.losses import factor, softmax
from twolayer.errors import DataError
from twolayer.hardware import threads
from twolayer.tables.options import FileData

TOLERANCE = 1e-3  # of the estimate, by which two in a row may differ
MOST_PRODUCTS = 200  # Hessian-vector products; then the last estimate is taken
CHUNK = 2**22  # numbers at work in one product, or so

SAMPLE = 512  # rows of a table on which `LearningRateFinder` works, at the most
SAMPLE_TOLERANCE = 0.05  # what `LearningRateFinder` takes for TOLERANCE
LARGE = 2**16  # rows of a file above which `curvature` works on the sample, too

# The estimate may cost this part of a run, at the most, to be made unasked.
CHEAP = 0.02


@dataclass(frozen=True)
class Curvature:
    """The largest eigenvalue of the Hessian, an estimate from below, and the products that it took."""

    largest: float
    products: int

    @property
    def limit(self) -> float:
        """The largest stable step, 2 / lambda; infinite where the loss is flat or curves down only."""
        return 2 / self.largest if self.largest > 0 else float("inf")


def curvature(model: nn.Sequential, data: Data, config: Config) -> Curvature:
    """The largest eigenvalue of the Hessian of the loss at the model's weights, by power iteration.

    Deterministic from `config.seed`. Of a file of more than 2^16 rows it is that of `sample`. Raises DeviceError where
    there is not the memory, and DataError where the curvature is not finite.
    """
    generator = torch.Generator().manual_seed(config.seed)
    weights = [parameter.detach() for parameter in model.parameters()]
    start = [torch.randn(w.shape, generator=generator).to(w) for w in weights]
    times = 1.0
    if isinstance(config.data, FileData) and len(data.x) > LARGE:
        some = sample(data, config)
        data, times = some, len(data.x) / len(some.x) if config.reduction == "sum" else 1.0
    with threads.set_up(config), torch.no_grad():
        largest, products = _power(weights, data, config, start, 0.0)
        if largest < 0:  # the one of largest size: seen from there, the largest is the farthest
            above, more = _power(weights, data, config, start, largest)
            largest, products = largest + above, products + more
    return Curvature(times * _finite(largest, config), products)


def suggested(model: nn.Sequential, data: Data, config: Config) -> float:
    """The step that `lr: auto` takes at the model's weights: 1 / lambda, and 1 where every step is stable."""
    limit = curvature(model, data, config).limit
    return limit / 2 if math.isfinite(limit) else 1.0


def is_sampled(config: Config) -> bool:
    """Whether `lr: auto` is measured by `LearningRateFinder`, which is for tables, and not by `suggested`."""
    is_table = isinstance(config.data, FileData) or config.loss == "cross_entropy"
    return is_table or (config.batch_size is not None and config.batch_size < config.N)


def sample(data: Data, config: Config) -> Data:
    """At most 512 rows, evenly spaced: of N rows those numbered i N / n, for i from 0 to n - 1, rounded down."""
    N = len(data.x)
    n = selection.part_rows(config.H, min(SAMPLE, N))
    if n == N:
        return Data(data.x, data.y)
    rows = (torch.arange(n) * N // n).to(data.x.device)
    return Data(data.x[rows], data.y[rows])


class LearningRateFinder:
    """The step of `lr: auto` for tables, 1 / lambda of the loss over `sample`: a measurement costs two products or so.

    It starts where the one before has ended, and everything is in buffers that are made once. It is the step for the
    rows of an update: where the loss is their sum, for as many as the largest batch has. All methods are to be called
    with the threads and the precision of the training (`threads.set_up`).
    """

    def __init__(self, model: nn.Sequential, data: Data, config: Config) -> None:
        self.model, self.config = model, config
        some = sample(data, config)
        self.x, self.y = some.x, some.y  # (n, D_in), (n, D_out)
        (n, D_in), D_out, H = self.x.shape, self.y.shape[1], config.H
        numerator, denominator = factor(config.loss, config.reduction, n, D_out)
        batches = selection.batches(len(data.x), config.batch_size or len(data.x))
        times = math.ceil(len(data.x) / batches) / n if config.reduction == "sum" else 1.0
        self.scale = times * numerator / denominator

        # The first layer's weights lie transposed, as in `RowsEngine`.
        shapes = [(D_in, H), (H,), (D_out, H), (D_out,)]
        generator = torch.Generator().manual_seed(config.seed)
        vector = torch.randn(sum(math.prod(shape) for shape in shapes), generator=generator).to(self.x)
        self.vector, self.product = vector / vector.norm(), torch.empty_like(vector)
        self.vector_parts, self.product_parts = views(self.vector, shapes), views(self.product, shapes)
        self.h, self.dh, self.dgh = (self.x.new_empty(n, H) for _ in range(3))
        self.p, self.g, self.dg = (self.x.new_empty(n, D_out) for _ in range(3))

    @torch.no_grad()
    def step(self) -> float:
        """1 / lambda at the model's weights as they are, and 1 where every step is stable.

        Raises DataError where the curvature is not finite.
        """
        w1, b1, w2, b2 = (parameter.detach() for parameter in self.model.parameters())
        torch.addmm(b1, self.x, w1.t(), out=self.h).relu_()
        torch.addmm(b2, self.h, w2.t(), out=self.g)
        if self.config.loss == "cross_entropy":
            self.g.copy_(softmax(self.g, 1, False, out=self.p))
        self.g.sub_(self.y).mul_(self.scale)  # the gradient at the output
        largest = self._power(w2, 0.0)
        if largest < 0:  # the one of largest size: seen from there, the largest is the farthest
            largest += self._power(w2, largest)
        return 1 / largest if _finite(largest, self.config) > 0 else 1.0

    def state(self) -> dict[str, Tensor]:
        """What the next measurement starts from."""
        return {"curvature": self.vector}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from such a state. Raises StateError for another's."""
        check_state(self.state(), state)
        self.vector.copy_(state["curvature"])

    def _power(self, w2: Tensor, shift: float) -> float:
        """The eigenvalue of largest size of the Hessian less `shift` times one; its vector stays."""
        estimate = float("nan")
        for _ in range(MOST_PRODUCTS):
            self._multiply(w2)
            if shift:
                self.product.sub_(self.vector, alpha=shift)
            before, estimate = estimate, float(torch.dot(self.vector, self.product))
            norm = float(torch.linalg.vector_norm(self.product))
            if not estimate or not math.isfinite(norm):
                return estimate if not estimate else norm
            torch.mul(self.product, 1 / norm, out=self.vector)
            if abs(estimate - before) <= SAMPLE_TOLERANCE * abs(estimate):
                break
        return estimate

    def _multiply(self, w2: Tensor) -> None:
        """The product of the Hessian and the vector, as in `hessian_product`."""
        (v1_t, c1, v2, c2), (t1_t, t_b1, t2, t_b2) = self.vector_parts, self.product_parts
        x, h, dh, dg, dgh = self.x, self.h, self.dh, self.dg, self.dgh
        _where_active(torch.addmm(c1, x, v1_t, out=dh), h)
        torch.addmm(c2, dh, w2.t(), out=dg).addmm_(h, v2.t())
        if self.config.loss == "cross_entropy":
            dg.mul_(self.p).addcmul_(self.p, dg.sum(1, keepdim=True), value=-1)
        dg.mul_(self.scale)
        _where_active(torch.mm(dg, w2, out=dgh).addmm_(self.g, v2), h)
        torch.mm(x.t(), dgh, out=t1_t)
        torch.sum(dgh, 0, out=t_b1)
        torch.mm(dg.t(), h, out=t2).addmm_(self.g.t(), dh)
        torch.sum(dg, 0, out=t_b2)


def next_measure(done: int) -> int:
    """The iterations after which `lr: auto` measures next: 1, 2, ..., 8, 10, 12, 15, ..., a quarter more each time."""
    number = 1
    while number <= done:
        number = max(number + 1, number * 5 // 4)
    return number


def _power(
    weights: Sequence[Tensor], data: Data, config: Config, start: Sequence[Tensor], shift: float
) -> tuple[float, int]:
    """The eigenvalue of largest size of the Hessian less `shift` times one, and the products that it took."""
    vector, estimate = _normalised(start), float("nan")
    products = 0
    while products < MOST_PRODUCTS:
        products += 1
        product = hessian_product(weights, data, config.reduction, vector, config.loss)
        if shift:
            product = [p - shift * v for p, v in zip(product, vector, strict=True)]
        before, estimate = estimate, _dot(vector, product)
        if not estimate or not math.isfinite(estimate) or abs(estimate - before) <= TOLERANCE * abs(estimate):
            break
        vector = _normalised(product)
    return estimate, products


def hessian_product(
    weights: Sequence[Tensor], data: Data, reduction: str, vector: Sequence[Tensor], loss: str = "mse"
) -> list[Tensor]:
    """The Hessian of the loss at the weights (W1, b1, W2, b2) times a vector of the same shapes.

    By differentiating the gradient along the vector, written out (Pearlmutter 1994), a part of the rows at a time.
    """
    w1, b1, w2, b2 = weights
    v1, c1, v2, c2 = vector
    (H, D_in), D_out = w1.shape, len(w2)
    numerator, denominator = factor(loss, reduction, *data.y.shape)
    scale = numerator / denominator
    total = [torch.zeros_like(w) for w in weights]
    rows = max(1, CHUNK // (D_in + 4 * H + 3 * D_out))
    for x, y in zip(torch.split(data.x, rows), torch.split(data.y, rows), strict=True):
        h = torch.addmm(b1, x, w1.t()).relu_()
        z = torch.addmm(b2, h, w2.t())
        p = None if loss == "mse" else torch.softmax(z, 1)
        g = (z if p is None else p).sub(y).mul_(scale)  # the gradient at the output
        dh = _where_active(torch.addmm(c1, x, v1.t()), h)  # d... is the derivative along the vector
        dg = torch.addmm(c2, dh, w2.t()).addmm_(h, v2.t())
        if p is not None:  # (diag(p) - p p') dz
            dg.mul_(p).addcmul_(p, dg.sum(1, keepdim=True), value=-1)
        dg.mul_(scale)
        dgh = _where_active(torch.mm(dg, w2).addmm_(g, v2), h)
        total[0].addmm_(dgh.t(), x)
        total[1].add_(dgh.sum(0))
        total[2].addmm_(dg.t(), h).addmm_(g.t(), dh)
        total[3].add_(dg.sum(0))
    return total


def is_cheap(config: Config) -> bool:
    """Whether the estimate costs little beside the run, counted in operations of matrix products."""
    N, D_in, H, D_out = config.N, config.D_in, config.H, config.D_out
    product = 6 * N * D_in * H + 14 * N * H * D_out
    return MOST_PRODUCTS * product <= CHEAP * config.epochs * selection.operations(config)


def _finite(curvature: float, config: Config) -> float:
    if not math.isfinite(curvature):
        raise DataError(f"the curvature of the loss is beyond {config.dtype}; scale the data down")
    return curvature


def _where_active(values: Tensor, h: Tensor) -> Tensor:
    relu_backward(values, h, 0, grad_input=values)
    return values


def _dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return sum(float(torch.dot(a.flatten().double(), b.flatten().double())) for a, b in zip(one, other, strict=True))


def _normalised(vector: Sequence[Tensor]) -> list[Tensor]:
    norm = _dot(vector, vector) ** 0.5
    return [part / norm for part in vector]
