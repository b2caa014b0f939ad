"""Baselines for a network: a linear model and a constant, fitted to the same rows in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK = 2**22  # numbers of x that are converted to float64 at a time
_MAX_ROWS, _MAX_NUMBERS = 100_000, 2**25  # of x for the logistic model, which reads them many times
_MAX_ITERATIONS = 500


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
    classes = y.shape[1]
    mean, std = _moments(x)
    z = (x - mean) / std  # gives the same model in fewer iterations
    free = torch.zeros(classes - (classes == 2), x.shape[1] + 1, dtype=torch.float64, requires_grad=True)

    def split() -> tuple[Tensor, Tensor]:
        whole = functional.pad(free, (0, 0, 1, 0)) if classes == 2 else free
        return whole[:, :-1], whole[:, -1]

    optimizer = torch.optim.LBFGS(
        [free], max_iter=_MAX_ITERATIONS, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        weight, bias = split()
        losses = functional.cross_entropy(functional.linear(z, weight, bias), y, reduction="sum")
        loss: Tensor = (losses + 0.5 * (weight / std).square().sum()) / len(z)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        weight, bias = split()
        weight = weight / std
        return weight.contiguous(), bias - weight @ mean
