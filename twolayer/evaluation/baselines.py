"""What a network is to be held against: the constant and the linear model of the same rows, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK = 2**22  # numbers of x that are converted at a time
_MOST_ROWS, _MOST_NUMBERS = 100_000, 2**25  # of x that the logistic model is fitted to: it reads them again and again
_PASSES = 500


@dataclass(frozen=True)
class Baseline:
    """A linear model, weight (D_out, D_in) and bias (D_out,), and the best constant (D_out,), all on the CPU.

    They take standardised inputs. The linear model gives standardised targets, or logits; the constant is the mean of
    the standardised targets, or the frequencies of the classes.
    """

    weight: Tensor
    bias: Tensor
    constant: Tensor


def linear_baseline(x: Tensor, y: Tensor, classes: bool) -> Baseline:
    """The baseline of x (N, D_in) and y (N, D_out), as trained on: one-hot where it is of classes. Deterministic."""
    weight, bias = _logistic(x, y) if classes else _least_squares(x, y)
    return Baseline(weight, bias, _total(_chunks(y)) / len(y))


def _chunks(tensor: Tensor, columns: int = 0) -> Iterator[Tensor]:
    """A tensor's rows in float64 on the CPU, some at a time: as many as of another one with so many columns."""
    for part in torch.split(tensor.detach(), max(1, _CHUNK // max(columns, tensor.shape[1]))):
        yield part.to("cpu", torch.float64)


def _total(parts: Iterator[Tensor]) -> Tensor:
    """The sum of all rows of all parts."""
    return torch.stack([part.sum(0) for part in parts]).sum(0)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means and deviations of the columns; a column that is constant has deviation 1."""
    mean = _total(_chunks(x)) / len(x)
    deviation = (_total((chunk - mean).square() for chunk in _chunks(x)) / len(x)).sqrt()
    return mean, torch.where(deviation > 1e-12 * mean.abs().clamp(min=1), deviation, torch.ones_like(deviation))


def _least_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares by the normal equations; of all that are as good, the one with the least weights."""
    rows, inputs = x.shape
    mean, deviation = _moments(x)
    mean_y = _total(_chunks(y)) / rows
    if rows < inputs:  # then the products of the rows are the smaller matrix
        z = torch.cat([(chunk - mean) / deviation for chunk in _chunks(x)])
        centred = torch.cat(list(_chunks(y))) - mean_y
        weight = (z.t() @ (_pseudo_inverse(z @ z.t()) @ centred)).t()
    else:
        gram = torch.zeros(inputs, inputs, dtype=torch.float64)
        moment = torch.zeros(inputs, y.shape[1], dtype=torch.float64)
        for x_part, y_part in zip(_chunks(x, y.shape[1]), _chunks(y, inputs), strict=True):
            z = (x_part - mean) / deviation
            gram.addmm_(z.t(), z)
            moment.addmm_(z.t(), y_part - mean_y)
        weight = (_pseudo_inverse(gram) @ moment).t()
    weight = weight / deviation
    return weight.contiguous(), mean_y - weight @ mean


def _pseudo_inverse(gram: Tensor) -> Tensor:
    """Of a symmetric matrix, where directions that carry nothing but rounding (collinear columns) count for nothing."""
    values, vectors = torch.linalg.eigh(gram)
    is_sound = values > values[-1] * len(gram) * 1e-15
    inverse = torch.where(is_sound, 1 / torch.where(is_sound, values, 1.0), 0.0)
    product: Tensor = (vectors * inverse) @ vectors.t()
    return product


def _logistic(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The multinomial logistic model that minimises the sum of the losses + |weight|^2 / 2, scikit-learn's default.

    Of two classes the first one's logit is 0, as there. It is fitted to evenly spaced rows where there are very many.
    """
    most = min(_MOST_ROWS, max(1000, _MOST_NUMBERS // x.shape[1]))
    rows = torch.arange(min(len(x), most)) * len(x) // min(len(x), most)
    x, y = (tensor.detach()[rows.to(tensor.device)].to("cpu", torch.float64) for tensor in (x, y))
    classes = y.shape[1]
    mean, deviation = _moments(x)
    z = (x - mean) / deviation  # the model is the same one, and found in fewer steps
    free = torch.zeros(classes - (classes == 2), x.shape[1] + 1, dtype=torch.float64, requires_grad=True)

    def split() -> tuple[Tensor, Tensor]:
        whole = functional.pad(free, (0, 0, 1, 0)) if classes == 2 else free
        return whole[:, :-1], whole[:, -1]

    optimizer = torch.optim.LBFGS(
        [free], max_iter=_PASSES, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        weight, bias = split()
        losses = functional.cross_entropy(functional.linear(z, weight, bias), y, reduction="sum")
        loss: Tensor = (losses + 0.5 * (weight / deviation).square().sum()) / len(z)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        weight, bias = split()
        weight = weight / deviation
        return weight.contiguous(), bias - weight @ mean
