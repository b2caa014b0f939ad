"""The largest eigenvalue of the Hessian, by the Lanczos method from the eigenvector that was found last."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from twolayer.training.hessian import HessianProduct

STEPS = 12  # orthogonal vectors, before it starts again from the best of their combinations
MIN_STEPS = 3
BASIS = 2**24  # numbers in these vectors: there are fewer than 12 if they are large

# What is left of a product, relative to the largest eigenvalue, is nothing but rounding errors below this.
NOTHING = 1e-6


class Lanczos:
    """Finds the largest eigenvalue and its eigenvector, which is then the first of `vectors`, with norm 1.

    `vectors` are the orthonormal basis of a Krylov space, and one more; each is orthogonalised to all before it.
    """

    def __init__(self, product: HessianProduct, like: Tensor) -> None:
        self.product = product
        self.steps = min(STEPS, max(MIN_STEPS, BASIS // product.width - 1))
        self.basis = like.new_zeros(self.steps + 1, product.width)
        self.coordinates = self.basis[:, : product.size]
        self.metric = self.basis[:, product.width - product.size :]
        self.vectors = [product.vector(row) for row in self.basis]

    def start(self, generator: torch.Generator) -> None:
        """Start from a vector drawn at random."""
        first = self.vectors[0]
        first.coordinates.copy_(torch.randn(self.product.size, generator=generator))
        self.product.complete(first)
        first.flat.mul_(1 / self._norm(0))

    def add_gradient(self, share: float) -> None:
        """Add the gradient, scaled to `share` of the eigenvector's norm, to the vector to start from."""
        self.product.gradient(self.vectors[1])
        if 0 < (norm := self._norm(1)) < math.inf:
            first = self.vectors[0].flat
            first.add_(self.vectors[1].flat, alpha=share / norm)
            first.mul_(1 / self._norm(0))

    def largest(self, tolerance: float, max_products: int) -> tuple[float, int]:
        """The largest eigenvalue, from below, and the number of products it took; nan if a product is not finite.

        It ends when the residual, H v - lambda v, of the eigenvector v has at most `tolerance` times the norm of the
        eigenvalue: an eigenvalue is then that near, and usually much nearer.
        """
        count = 0
        while True:
            diagonal: list[float] = []
            off_diagonal: list[float] = []  # the norms of what each product adds to the space
            for step in range(self.steps):
                alpha, beta = self._extend(step)
                count += 1
                if not math.isfinite(alpha + beta):
                    return math.nan, count
                diagonal.append(alpha)
                size, eigenvalue, vector = _eigen(diagonal, off_diagonal)
                is_found = beta * abs(vector[-1]) <= tolerance * size or beta <= NOTHING * size
                is_last = is_found or count == max_products
                if is_last or step + 1 == self.steps:
                    break
                off_diagonal.append(beta)
                self.vectors[step + 1].flat.mul_(1 / beta)
            if len(vector) > 1:
                best = self.vectors[0].flat.mul_(vector[0])
                for other, share in zip(self.vectors[1:], vector[1:], strict=False):
                    best.add_(other.flat, alpha=share)
            if is_last:
                return eigenvalue, count

    def _extend(self, step: int) -> tuple[float, float]:
        """Multiply vector `step` by the Hessian into the next one and orthogonalise that.

        Returns the part of the product along the vector, and the norm of what is left.
        """
        new = self.vectors[step + 1]
        self.product(self.vectors[step], new)
        parts = torch.mv(self.metric[: step + 1], new.coordinates)
        new.flat.addmv_(self.basis[: step + 1].t(), parts, alpha=-1)
        return float(parts[step]), self._norm(step + 1)

    def _norm(self, number: int) -> float:
        """A vector's norm; nan if it is not finite."""
        a, b = self.vectors[number].coordinates, self.vectors[number].metric
        square = float(torch.dot(a, b))
        if not 1e-30 < square < math.inf:  # float32 has no squares of such numbers
            square = float(torch.dot(a.double(), b.double()))
        return float(max(0.0, square) ** 0.5) if math.isfinite(square) else math.nan


def _eigen(diagonal: list[float], off_diagonal: list[float]) -> tuple[float, float, list[float]]:
    """Of a symmetric tridiagonal matrix the norm, the largest eigenvalue and its eigenvector."""
    if not off_diagonal:
        return abs(diagonal[0]), diagonal[0], [1.0]
    if len(diagonal) == 2:  # most measurements of `lr: auto` end here; LAPACK would take as long as a product
        middle, half, (other,) = sum(diagonal) / 2, (diagonal[0] - diagonal[1]) / 2, off_diagonal
        radius, angle = math.hypot(half, other), math.atan2(other, half) / 2
        return abs(middle) + radius, middle + radius, [math.cos(angle), math.sin(angle)]
    matrix = np.diag(diagonal)
    matrix.flat[len(diagonal) :: len(diagonal) + 1] = off_diagonal  # eigh reads the lower triangle
    values, vectors = np.linalg.eigh(matrix)
    return float(max(-values[0], values[-1])), float(values[-1]), vectors[:, -1].tolist()
