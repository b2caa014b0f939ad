"""The largest stable step of gradient descent, from the curvature of the loss.

With lambda the largest eigenvalue of the Hessian, gradient descent with a step above 2 / lambda moves away from any
minimum along that eigenvector: near one it diverges, and further off the network is thrown to a flatter place or lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twolayer import machine
from twolayer.config import Config
from twolayer.data import Data
from twolayer.engines.manual import relu_backward
from twolayer.errors import DataError

TOLERANCE = 1e-3  # of the estimate, by which two in a row may differ
MOST_PRODUCTS = 200  # Hessian-vector products; then the last estimate is taken
CHUNK = 2**22  # numbers at work in one product, or so

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

    Deterministic from `config.seed`. Raises DeviceError where there is not the memory, and DataError where the
    curvature is not finite.
    """
    generator = torch.Generator().manual_seed(config.seed)
    weights = [parameter.detach() for parameter in model.parameters()]
    start = [torch.randn(w.shape, generator=generator).to(w) for w in weights]
    with machine.set_up(config), torch.no_grad():
        largest, products = _power(weights, data, config.reduction, start, 0.0)
        if largest < 0:  # the one of largest size: seen from there, the largest is the farthest
            above, more = _power(weights, data, config.reduction, start, largest)
            largest, products = largest + above, products + more
    if not math.isfinite(largest):
        raise DataError(f"the curvature of the loss is beyond {config.dtype}; scale the data down")
    return Curvature(largest, products)


def suggested(model: nn.Sequential, data: Data, config: Config) -> float:
    """The step that `lr: auto` takes at the model's weights: 1 / lambda, and 1 where every step is stable."""
    limit = curvature(model, data, config).limit
    return limit / 2 if math.isfinite(limit) else 1.0


def next_measure(done: int) -> int:
    """The iterations after which `lr: auto` measures next: 1, 2, ..., 8, 10, 12, 15, ..., a quarter more each time."""
    number = 1
    while number <= done:
        number = max(number + 1, number * 5 // 4)
    return number


def _power(
    weights: Sequence[Tensor], data: Data, reduction: str, start: Sequence[Tensor], shift: float
) -> tuple[float, int]:
    """The eigenvalue of largest size of the Hessian less `shift` times one, and the products that it took."""
    vector, estimate = _normalised(start), float("nan")
    products = 0
    while products < MOST_PRODUCTS:
        products += 1
        product = hessian_product(weights, data, reduction, vector)
        if shift:
            product = [p - shift * v for p, v in zip(product, vector, strict=True)]
        before, estimate = estimate, _dot(vector, product)
        if not estimate or not math.isfinite(estimate) or abs(estimate - before) <= TOLERANCE * abs(estimate):
            break
        vector = _normalised(product)
    return estimate, products


def hessian_product(weights: Sequence[Tensor], data: Data, reduction: str, vector: Sequence[Tensor]) -> list[Tensor]:
    """The Hessian of the loss at the weights (W1, b1, W2, b2) times a vector of the same shapes.

    By differentiating the gradient along the vector, written out (Pearlmutter 1994), a part of the rows at a time.
    """
    w1, b1, w2, b2 = weights
    v1, c1, v2, c2 = vector
    (H, D_in), D_out = w1.shape, len(w2)
    scale = 2.0 if reduction == "sum" else 2.0 / data.y.numel()
    total = [torch.zeros_like(w) for w in weights]
    rows = max(1, CHUNK // (D_in + 4 * H + 3 * D_out))
    for x, y in zip(torch.split(data.x, rows), torch.split(data.y, rows), strict=True):
        h = torch.addmm(b1, x, w1.t()).relu_()
        g = torch.addmm(b2, h, w2.t()).sub_(y).mul_(scale)  # the gradient at the output
        dh = _where_active(torch.addmm(c1, x, v1.t()), h)  # d... is the derivative along the vector
        dg = torch.addmm(c2, dh, w2.t()).addmm_(h, v2.t()).mul_(scale)
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
    return MOST_PRODUCTS * product <= CHEAP * config.epochs * machine.operations(config)


def _where_active(values: Tensor, h: Tensor) -> Tensor:
    relu_backward(values, h, 0, grad_input=values)
    return values


def _dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return sum(float(torch.dot(a.flatten().double(), b.flatten().double())) for a, b in zip(one, other, strict=True))


def _normalised(vector: Sequence[Tensor]) -> list[Tensor]:
    norm = _dot(vector, vector) ** 0.5
    return [part / norm for part in vector]
