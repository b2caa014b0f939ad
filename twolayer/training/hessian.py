"""Products with the Hessian of the loss, and its largest eigenvalue by power iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from twolayer.engines.base import Data, relu_backward
from twolayer.engines.losses import Objective, softmax

MAX_PRODUCTS = 200  # Hessian-vector products in a power iteration; after them the last estimate is used

Weights = Sequence[Tensor]  # W1 (H, D_in), b1 (H,), W2 (D_out, H), b2 (D_out,)


class HessianProduct:
    """Multiplies the Hessian of `factor` times the loss by a vector with the shapes of the weights.

    By differentiating the gradient along the vector, written out (Pearlmutter 1994), for `rows` rows at a time, in
    buffers that are allocated once.
    """

    def __init__(self, data: Data, objective: Objective, H: int, rows: int, factor: float = 1.0) -> None:
        self.chunks = list(zip(torch.split(data.x, rows), torch.split(data.y, rows), strict=True))
        self.objective = objective
        N, D_out = data.y.shape
        numerator, denominator = objective.gradient_scale(N, D_out)
        self.scale = factor * numerator / denominator
        n = min(rows, N)
        # The activations, the gradient at the output, and for cross entropy the probabilities; d... is a derivative
        # along the vector.
        self.h, self.dh, self.dgh = (data.x.new_empty(n, H) for _ in range(3))
        self.g, self.dg, self.p = (data.y.new_empty(n, D_out) for _ in range(3))

    def set_weights(self, weights: Weights) -> None:
        """Take the Hessian at these weights from the next product on; call it again when they change."""
        self.weights = weights
        if len(self.chunks) == 1:
            self._forward(*self.chunks[0])

    def __call__(self, vector: Weights, out: Weights) -> None:
        """Write the product with `vector` into `out`."""
        _, _, w2, _ = self.weights
        v1, c1, v2, c2 = vector
        out1, out_b1, out2, out_b2 = out
        for number, (x, y) in enumerate(self.chunks):
            if len(self.chunks) > 1:
                self._forward(x, y)
            n, beta = len(x), min(number, 1)  # the first chunk overwrites `out`, the others are added
            h, g, dh, dg, dgh, p = (each[:n] for each in (self.h, self.g, self.dh, self.dg, self.dgh, self.p))
            torch.addmm(c1, x, v1.t(), out=dh)
            relu_backward(dh, h, 0, grad_input=dh)
            torch.addmm(c2, dh, w2.t(), out=dg).addmm_(h, v2.t())
            if self.objective.loss == "cross_entropy":  # (diag(p) - p p') dz
                dg.mul_(p).addcmul_(p, dg.sum(1, keepdim=True), value=-1)
            dg.mul_(self.scale)
            torch.mm(dg, w2, out=dgh).addmm_(g, v2)
            relu_backward(dgh, h, 0, grad_input=dgh)
            out1.addmm_(dgh.t(), x, beta=beta)
            out2.addmm_(dg.t(), h, beta=beta).addmm_(g.t(), dh)
            for total, part in ((out_b1, dgh), (out_b2, dg)):
                torch.add(total, part.sum(0), out=total) if number else torch.sum(part, 0, out=total)

    def _forward(self, x: Tensor, y: Tensor) -> None:
        """Compute the activations and the gradient at the output for a chunk."""
        (w1, b1, w2, b2), n = self.weights, len(x)
        torch.addmm(b1, x, w1.t(), out=self.h[:n]).relu_()
        g = torch.addmm(b2, self.h[:n], w2.t(), out=self.g[:n])
        if self.objective.loss == "cross_entropy":
            g.copy_(softmax(g, 1, False, out=self.p[:n]))
        g.sub_(y).mul_(self.scale)


class Vector:
    """A vector with the shapes of the weights: `parts` for products, which share the memory of `tensors`.

    `exact`: sums over `tensors` in float64; else in the dtype of the data, which is faster.
    """

    def __init__(self, tensors: Sequence[Tensor], parts: Weights, *, exact: bool) -> None:
        self.tensors, self.parts, self.exact = tensors, parts, exact

    def dot(self, other: Vector) -> float:
        """The dot product."""
        pairs = zip(self.tensors, other.tensors, strict=True)
        if self.exact:
            return sum(float(torch.dot(a.flatten().double(), b.flatten().double())) for a, b in pairs)
        return sum(float(torch.dot(a.flatten(), b.flatten())) for a, b in pairs)

    def norm(self) -> float:
        """The Euclidean norm."""
        if self.exact:
            return float(self.dot(self) ** 0.5)  # not math.sqrt, which may differ in the last bit
        return math.hypot(*(float(torch.linalg.vector_norm(tensor)) for tensor in self.tensors))

    def set_to(self, other: Vector, norm: float) -> None:
        """Become the other vector divided by its norm."""
        for own, tensor in zip(self.tensors, other.tensors, strict=True):
            if self.exact:
                torch.div(tensor, norm, out=own)
            else:
                torch.mul(tensor, 1 / norm, out=own)

    def subtract(self, other: Vector, factor: float) -> None:
        """Subtract `factor` times another vector."""
        for own, tensor in zip(self.tensors, other.tensors, strict=True):
            if self.exact:
                own.sub_(factor * tensor)
            else:
                own.sub_(tensor, alpha=factor)


def largest_eigenvalue(
    product: HessianProduct, vector: Vector, image: Vector, tolerance: float, shift: float = 0.0
) -> tuple[float, int]:
    """The eigenvalue of largest absolute value of the Hessian minus `shift` times the identity; the products it took.

    By power iteration from `vector`, of norm 1, which ends as the eigenvector; `image` is a buffer. It ends when two
    successive estimates differ by at most `tolerance`, relative to the last. The result is an estimate from below; it
    is not finite if a product is not.
    """
    estimate, count = math.nan, 0
    while count < MAX_PRODUCTS:
        count += 1
        product(vector.parts, image.parts)
        if shift:
            image.subtract(vector, shift)
        before, estimate = estimate, vector.dot(image)
        norm = image.norm()
        if not estimate or not math.isfinite(norm):
            return (norm if estimate else 0.0), count
        vector.set_to(image, norm)
        if abs(estimate - before) <= tolerance * abs(estimate):
            break
    return estimate, count
