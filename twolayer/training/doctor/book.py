"""The rTorch book's "A neural network step-by-step": its problem, its published losses, and the numbers it draws."""

from __future__ import annotations

import csv
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from twolayer.config.loading import load_config
from twolayer.config.schema import Config

Array = np.ndarray[Any, np.dtype[Any]]

# Some of the numbers that seed 0 draws, by tensor and flat index, as PyTorch 2.13 draws them on x86_64.
DRAWN = {
    "x": {0: -1.1258398, 1: -1.1523602, 21333: -0.62515867, 42666: -1.4760427, 63999: 2.1563921},
    "y": {0: 0.43953943, 1: -0.75429702, 213: 0.13584653, 426: -0.35754651, 639: -0.12675546},
    "0.weight": {0: -0.022794407, 1: 0.030039953, 33333: 0.017274054, 66666: 0.00072450034, 99999: 0.019043399},
    "0.bias": {0: -0.024971563, 1: 0.027916435, 33: 0.0052145147, 66: -0.031055473, 99: 0.012395603},
    "2.weight": {0: 0.080071032, 1: 0.0012352824, 333: -0.01165031, 666: 0.03582133, 999: 0.0024886609},
    "2.bias": {0: 0.060711719, 1: 0.096595339, 3: 0.0041870712, 6: 0.0027573823, 9: 0.0089953421},
}
DRAWN_WITHIN = 1e-5  # rounding alone is 1.4e-6

# The SHA-256 of all numbers that seed 0 draws: x, y, and the weights in their order. The last bits depend on the CPU
# capability, and may depend on the version of PyTorch and on the machine: what is not here is unknown, and not wrong.
_SCALAR = "6d5a6511c0e899b5a50a2e8ebf0ed4f62e79e4a349c9d414c71000e2bc1c7e1f"
_AVX2 = "ec1042516f635087c53fbecf81921e2727ae0623891ad36c9287dae65cf785a0"
CHECKSUMS = {
    (torch, capability, "x86_64"): digest
    for torch in ("2.11", "2.13", "2.14", "2.15")
    for capability, digest in (("DEFAULT", _SCALAR), ("AVX2", _AVX2), ("AVX512", _AVX2))
}


def book(**changes: Any) -> Config:
    """The book's config, whatever the environment says, with these changes."""
    return load_config("default", environment={}).model_copy(update=changes)


@cache
def published_losses() -> tuple[float, ...]:
    """The 500 losses that the book published, each from before its update."""
    with Path(__file__).with_name("rtorch_losses.csv").open(newline="") as file:
        return tuple(float(row["loss"]) for row in csv.DictReader(file))


def agrees_to_three_digits(loss: float, other: float) -> bool:
    """Whether a loss is within half a unit of the other's third significant digit."""
    return abs(loss - other) <= 0.5 * 10.0 ** (math.floor(math.log10(other)) - 2)


def drawn(config: Config) -> dict[str, Array]:
    """x, y and the initial weights as PyTorch's generator gives them, computed by numpy in float64.

    Without PyTorch: numpy has the same Mersenne Twister. For sizes as the book's only, where x and y have a multiple of
    16 numbers, which PyTorch makes sixteen at a time.
    """
    words: Any = np.random.MT19937()
    words.state = np.random.RandomState(config.seed).get_state(legacy=False)  # it seeds as PyTorch does
    N, D_in, H, D_out = config.N, config.D_in, config.H, config.D_out

    def uniform(*shape: int) -> Array:
        raw: Array = words.random_raw(math.prod(shape)) & (2**24 - 1)
        return raw.reshape(shape) * 2.0**-24

    def normal(*shape: int) -> Array:
        u, v = uniform(math.prod(shape) // 16, 2, 8).transpose(1, 0, 2)
        radius, angle = np.sqrt(-2 * np.log(1 - u)), 2 * np.pi * v
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(shape)

    def within(inputs: int, *shape: int) -> Array:
        return (2 * uniform(*shape) - 1) / math.sqrt(inputs)

    return {
        "x": normal(N, D_in),
        "y": normal(N, D_out),
        "0.weight": within(D_in, H, D_in),
        "0.bias": within(D_in, H),
        "2.weight": within(H, D_out, H),
        "2.bias": within(H, D_out),
    }


def descend(
    x: Array, y: Array, parameters: list[Array], lr: float, iterations: int, *, mean: bool = False
) -> tuple[list[float], list[Array]]:
    """Gradient descent on the squared error by numpy, in float64: the losses before each update, and the parameters.

    x (N, D_in), y (N, D_out), and the parameters as in nn.Linear: (H, D_in), (H,), (D_out, H), (D_out,).
    """
    x, y = (np.asarray(array, dtype=np.float64).T for array in (x, y))  # (D_in, N), (D_out, N)
    w1, b1, w2, b2 = (np.asarray(array, dtype=np.float64) for array in parameters)
    b1, b2 = b1[:, None], b2[:, None]
    scale = 1.0 / y.size if mean else 1.0
    losses = []
    for _ in range(iterations):
        z = w1 @ x + b1
        h = np.where(z > 0, z, 0.0)
        residual = w2 @ h + b2 - y
        losses.append(scale * float(np.sum(residual**2)))
        g = 2 * scale * residual
        gz = (w2.T @ g) * (z > 0)
        w2, b2 = w2 - lr * g @ h.T, b2 - lr * g.sum(axis=1, keepdims=True)
        w1, b1 = w1 - lr * gz @ x.T, b1 - lr * gz.sum(axis=1, keepdims=True)
    return losses, [w1, b1[:, 0], w2, b2[:, 0]]
