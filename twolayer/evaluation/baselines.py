"""Baselines for a network: a linear model and a constant, fitted to the same rows in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK = 2**22  # numbers of x that are converted to float64 at a time
_MAX_ROWS, _MAX_NUMBERS = 100_000, 2**25  # of x for the logistic model, which reads them many times
_MAX_STEPS, _MAX_PRODUCTS = 100, 200  # of Newton's method, and products with the Hessian in each
_TOLERANCE = 1e-9  # of the gradient, by row
_SMALLEST = 1e-10  # part of a step


@dataclass(frozen=True)
class Baseline:
    """A linear model, weight (D_out, D_in) and bias (D_out,), and a constant (D_out,), all on the CPU.

    The linear model takes standardised inputs and gives standardised targets, or logits. The constant is the mean of
    the standardised targets, or the frequencies of the classes.
    """

    weight: Tensor
    bias: Tensor
    constant: Tensor


def linear_baseline(x: Tensor, y: Tensor, classes: bool) -> Baseline:
    """The baseline fitted to the training rows x (N, D_in) and y (N, D_out), one-hot with `classes`. Deterministic."""
    weight, bias = _logistic(x, y) if classes else _least_squares(x, y)
    return Baseline(weight, bias, _total(_chunks(y)) / len(y))


def _chunks(tensor: Tensor, columns: int = 0) -> Iterator[Tensor]:
    """A tensor's rows in float64 on the CPU, in chunks; `columns`, if larger than its own, sets their size."""
    for part in torch.split(tensor.detach(), max(1, _CHUNK // max(columns, tensor.shape[1]))):
        yield part.to("cpu", torch.float64)


def _total(parts: Iterator[Tensor]) -> Tensor:
    """The sum of all rows of all parts."""
    return torch.stack([part.sum(0) for part in parts]).sum(0)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of the columns; 1 in place of the standard deviation of a constant column."""
    mean = _total(_chunks(x)) / len(x)
    std = (_total((chunk - mean).square() for chunk in _chunks(x)) / len(x)).sqrt()
    return mean, torch.where(std > 1e-12 * mean.abs().clamp(min=1), std, torch.ones_like(std))


def _least_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares by the normal equations; of several solutions the one with the smallest weights."""
    rows, inputs = x.shape
    mean, std = _moments(x)
    mean_y = _total(_chunks(y)) / rows
    if rows < inputs:  # then the matrix of products of rows is the smaller one
        z = torch.cat([(chunk - mean) / std for chunk in _chunks(x)])
        centred = torch.cat(list(_chunks(y))) - mean_y
        weight = (z.t() @ (_pseudo_inverse(z @ z.t()) @ centred)).t()
    else:
        gram = torch.zeros(inputs, inputs, dtype=torch.float64)
        moment = torch.zeros(inputs, y.shape[1], dtype=torch.float64)
        for x_part, y_part in zip(_chunks(x, y.shape[1]), _chunks(y, inputs), strict=True):
            z = (x_part - mean) / std
            gram.addmm_(z.t(), z)
            moment.addmm_(z.t(), y_part - mean_y)
        weight = (_pseudo_inverse(gram) @ moment).t()
    weight = weight / std
    return weight.contiguous(), mean_y - weight @ mean


def _pseudo_inverse(gram: Tensor) -> Tensor:
    """The pseudo-inverse of a symmetric matrix, without directions of rounding errors only (collinear columns)."""
    values, vectors = torch.linalg.eigh(gram)
    is_sound = values > values[-1] * len(gram) * 1e-15
    inverse = torch.where(is_sound, 1 / torch.where(is_sound, values, 1.0), 0.0)
    product: Tensor = (vectors * inverse) @ vectors.t()
    return product


def _logistic(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The multinomial logistic model that minimises the sum of the losses + |weight|^2 / 2, as scikit-learn does.

    With two classes the logit of the first is 0. Of very many rows it is fitted to evenly spaced ones.
    """
    limit = min(_MAX_ROWS, max(1000, _MAX_NUMBERS // x.shape[1]))
    rows = torch.arange(min(len(x), limit)) * len(x) // min(len(x), limit)
    x, y = (tensor.detach()[rows.to(tensor.device)].to("cpu", torch.float64) for tensor in (x, y))
    mean, std = _moments(x)
    ones = torch.ones(len(x), 1, dtype=torch.float64)  # for the bias, which has no penalty
    z = torch.cat([(x - mean) / std, ones], 1)  # gives the same model in fewer steps
    penalty = torch.cat([std**-2, torch.zeros_like(std[:1])])
    free = _minimum(z, y, penalty)
    whole = functional.pad(free, (0, 0, y.shape[1] - len(free), 0))
    weight = whole[:, :-1] / std
    return weight.contiguous(), whole[:, -1] - weight @ mean


def _minimum(z: Tensor, y: Tensor, penalty: Tensor) -> Tensor:
    """The weights (classes, columns of z) at the penalised loss's minimum, by Newton's method.

    Of two classes they are the second's.

    (`torch.optim` has no such method, and imports all of PyTorch's compiler, which takes a second.)
    """
    first = int(y.shape[1] == 2)
    known = y[:, first:]

    def evaluate(weight: Tensor) -> tuple[float, Tensor]:
        logits = functional.pad(z @ weight.t(), (first, 0))
        losses = functional.cross_entropy(logits, y, reduction="sum")
        return float(losses + 0.5 * (penalty * weight.square()).sum()), logits.softmax(1)[:, first:]

    weight = torch.zeros(known.shape[1], z.shape[1], dtype=torch.float64)
    loss, p = evaluate(weight)
    for _ in range(_MAX_STEPS):
        gradient = (p - known).t() @ z + penalty * weight
        error = float(gradient.abs().max()) / len(z)
        if error <= _TOLERANCE:
            break
        step = -_newton_step(z, p, penalty, gradient, min(0.5, error**0.5))
        slope, size = float((gradient * step).sum()), 1.0
        while (found := evaluate(weight + size * step))[0] > loss + 1e-4 * size * slope + 1e-14 * abs(loss):
            size /= 2
            if size < _SMALLEST:  # rounding errors are all that is left
                return weight
        weight, (loss, p) = weight + size * step, found
    return weight


def _newton_step(z: Tensor, p: Tensor, penalty: Tensor, gradient: Tensor, tolerance: float) -> Tensor:
    """The inverse Hessian times the gradient, by conjugate gradients: the Hessian itself may not fit into memory."""
    diagonal = (
        (p * (1 - p)).sum(0)[:, None] + penalty + 1e-12
    )  # about that of the Hessian: columns of z have variance 1
    solution, residual = torch.zeros_like(gradient), gradient
    scaled = residual / diagonal
    direction, square = scaled, float((residual * scaled).sum())
    end = tolerance**2 * square
    for _ in range(_MAX_PRODUCTS):
        change = z @ direction.t()
        product = (p * (change - (p * change).sum(1, keepdim=True))).t() @ z + penalty * direction
        curvature = float((direction * product).sum())
        if curvature <= 0:  # by rounding: no step in this direction
            break
        size = square / curvature
        solution, residual = solution + size * direction, residual - size * product
        scaled = residual / diagonal
        before, square = square, float((residual * scaled).sum())
        if square <= end:
            break
        direction = scaled + square / before * direction
    return solution
