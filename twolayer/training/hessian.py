"""Products of vectors with the Hessian of the loss, in the coordinates in which the training computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twolayer.engines.base import Data, relu_backward
from twolayer.engines.losses import Objective, softmax

PART = 2**19  # hidden activations that are processed at once on a CPU: few enough for its cache
KEPT = 2**24  # the activations of all rows are kept between products if they are at most this many numbers

Weights = Sequence[Tensor]  # W1 (H, D_in), b1 (H,), W2 (D_out, H), b2 (D_out,)


@dataclass(frozen=True)
class Vector:
    """A flat tensor for `HessianProduct`, and views of its parts.

    It holds W1, b1 and B = [W2 b2]. In the dual form it holds S (H, N) instead of the first two, which are S X and the
    sums of S; and then S K, for K = X X' + 1, and B again. The dot product of two vectors is that of the one's
    `coordinates`, its first half, and the other's `metric`, its second half; in the primal form both are all of it.
    """

    flat: Tensor
    coordinates: Tensor
    metric: Tensor
    first: tuple[Tensor, Tensor]  # W1 (H, D_in) and b1 (H, 1); in the dual form S and S K
    b: Tensor  # (D_out, H + 1)
    w2: Tensor  # B without its last column


@dataclass(frozen=True)
class _Part:
    """Some rows and what is computed of them, transposed: a row for each hidden unit or output."""

    x: Tensor  # (n, D_in)
    x_t: Tensor
    y_t: Tensor  # (D_out, n)
    weights: Tensor | None  # (n,)
    h_ones: Tensor  # (H + 1, n): the activations, and a row of ones
    h: Tensor  # the activations alone
    g: Tensor  # (D_out, n): the gradient at the output
    p: Tensor  # the same shape; for cross entropy the probabilities
    # Derivatives along a vector: of the activations and of the gradient there, (H, n); of the gradient at the output.
    dh: Tensor
    dgh: Tensor
    dg: Tensor


class HessianProduct:
    """Multiplies the Hessian of the loss by vectors: the gradient differentiated along them (Pearlmutter 1994).

    The loss is the sum over the rows, each times its weight if there are `row_weights` (N,); for squared errors it is
    half of that sum. With K (N, N) vectors are those of the dual form, and X is only used by `set_weights`. Rows are
    processed in parts, in buffers that are allocated once.
    """

    def __init__(
        self, data: Data, objective: Objective, H: int, *, k: Tensor | None = None, row_weights: Tensor | None = None
    ) -> None:
        self.k, self.is_mse = k, objective.loss == "mse"
        (N, self.D_in), self.D_out, self.H, self.N = data.x.shape, data.y.shape[1], H, len(data.x)
        self.size = H * (self.D_in + 1 if k is None else N) + self.D_out * (H + 1)
        rows = N if k is not None else min(N, max(1, (KEPT if data.x.is_cuda else PART) // H))
        count = -(-N // rows)
        self.is_kept = count == 1 or N * (H + 2 * self.D_out) <= KEPT
        # Each part has activations of its own if they are kept; else only those of different sizes have.
        buffers: dict[int, tuple[Tensor, ...]] = {}
        derivatives: dict[int, tuple[Tensor, ...]] = {}
        self.parts = []
        for i in range(count):
            some = slice(i * rows, (i + 1) * rows)
            x, y = data.x[some], data.y[some]
            if self.is_kept or len(x) not in buffers:
                buffers[len(x)] = _transposed(x, H + 1, self.D_out, self.D_out)
            if len(x) not in derivatives:
                derivatives[len(x)] = _transposed(x, H, H, self.D_out)
            h_ones, g, p = buffers[len(x)]
            weights = row_weights[some] if row_weights is not None else None
            part = _Part(x, x.t(), y.t(), weights, h_ones, h_ones[:-1], g, p, *derivatives[len(x)])
            self.parts.append(part)

    @property
    def width(self) -> int:
        """The numbers in a vector."""
        return self.size if self.k is None else 2 * self.size

    def vector(self, flat: Tensor) -> Vector:
        """A tensor (width,) as a vector."""
        H, D_in, coordinates = self.H, self.D_in, flat[: self.size]
        b = coordinates[-self.D_out * (H + 1) :].view(self.D_out, H + 1)
        if self.k is None:
            weights = H * D_in
            first = flat[:weights].view(H, D_in), flat[weights : weights + H].view(H, 1)
            return Vector(flat, coordinates, coordinates, first, b, b[:, :-1])
        metric = flat[self.size :]
        first = coordinates[: H * self.N].view(H, self.N), metric[: H * self.N].view(H, self.N)
        return Vector(flat, coordinates, metric, first, b, b[:, :-1])

    def set_weights(self, weights: Weights) -> None:
        """Take the Hessian at these weights from the next product on; call it again when they change."""
        w1, b1, w2, b2 = weights
        self.w1, self.b1, self.w2, self.b = w1, b1[:, None], w2, torch.cat([w2, b2[:, None]], 1)
        if self.is_kept:
            for part in self.parts:
                self._forward(part)

    def set_pre_activations(self, z: Tensor, b: Tensor) -> None:
        """The same for the dual form, with its pre-activations Z (H, N) and B = [W2 b2] (D_out, H + 1)."""
        self.b, self.w2 = b, b[:, :-1]
        torch.clamp_min(z, 0, out=self.parts[0].h)
        self._outputs(self.parts[0])

    def __call__(self, vector: Vector, out: Vector) -> None:
        """Write the product with `vector` into `out`."""
        for number, part in enumerate(self.parts):
            if not self.is_kept:
                self._forward(part)
            if self.k is None:
                w1, b1 = vector.first
                dz = torch.addmm(b1, w1, part.x_t, out=part.dh)
            else:
                dz = vector.first[1]
            dh = relu_backward(dz, part.h, 0, grad_input=part.dh)
            dg = torch.mm(vector.b, part.h_ones, out=part.dg).addmm_(self.w2, dh)
            if not self.is_mse:  # (diag(p) - p p') dz
                dg.mul_(part.p).addcmul_(part.p, dg.sum(0, keepdim=True), value=-1)
            if part.weights is not None:
                dg.mul_(part.weights)
            dgh = torch.mm(self.w2.t(), dg, out=self._dgh(part, out)).addmm_(vector.w2.t(), part.g)
            self._collect(part, dg, dgh, out, is_first=not number)
            out.w2.addmm_(part.g, dh.t())
        self.complete(out)

    def gradient(self, out: Vector) -> None:
        """Write the gradient of the loss into `out`."""
        for number, part in enumerate(self.parts):
            if not self.is_kept:
                self._forward(part)
            dgh = torch.mm(self.w2.t(), part.g, out=self._dgh(part, out))
            self._collect(part, part.g, dgh, out, is_first=not number)
        self.complete(out)

    def complete(self, vector: Vector) -> None:
        """In the dual form, compute a vector's `metric` from its `coordinates`."""
        if self.k is not None:
            s, sk = vector.first
            vector.metric[s.numel() :].copy_(vector.coordinates[s.numel() :])
            torch.mm(s, self.k, out=sk)

    def _dgh(self, part: _Part, out: Vector) -> Tensor:
        """Where the gradient at the activations goes: in the dual form it is S."""
        return part.dgh if self.k is None else out.first[0]

    def _collect(self, part: _Part, dg: Tensor, dgh: Tensor, out: Vector, *, is_first: bool) -> None:
        """Add to `out` what comes of a part's gradients at the outputs and, before ReLU's own, at the activations."""
        beta = 0 if is_first else 1  # the first part overwrites `out`
        relu_backward(dgh, part.h, 0, grad_input=dgh)
        out.b.addmm_(dg, part.h_ones.t(), beta=beta)
        if self.k is None:
            w1, b1 = out.first
            w1.addmm_(dgh, part.x, beta=beta)
            torch.sum(dgh, 1, keepdim=True, out=b1) if is_first else b1.add_(dgh.sum(1, keepdim=True))

    def _forward(self, part: _Part) -> None:
        """Compute a part's activations and its gradient at the output."""
        torch.addmm(self.b1, self.w1, part.x_t, out=part.h).relu_()
        self._outputs(part)

    def _outputs(self, part: _Part) -> None:
        if self.is_mse:
            torch.addmm(part.y_t, self.b, part.h_ones, beta=-1, out=part.g)
        else:
            torch.mm(self.b, part.h_ones, out=part.g)
            torch.sub(softmax(part.g, 0, False, out=part.p), part.y_t, out=part.g)
        if part.weights is not None:
            part.g.mul_(part.weights)


def _transposed(x: Tensor, *sizes: int) -> tuple[Tensor, ...]:
    """A buffer of ones for each size: (size, n) for n rows of x."""
    return tuple(x.new_ones(size, len(x)) for size in sizes)
