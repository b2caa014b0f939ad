"""The peers: one function for each library, all of which do the same gradient descent from the same weights.

    python benchmarks/peers.py NAME

trains on the book's default problem and prints its 500 losses. Each peer imports its own library only, and is set up as
someone who knows it well would: no DataLoader that gathers batches row by row, no callbacks, no logs. Like all
tutorials, the loops in PyTorch read each loss with `.item()`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import nn

Array = NDArray[np.float32]
Train = Callable[[], list[float]]  # the loss before each update


@dataclass(frozen=True)
class Problem:
    """Data, weights and learning rate: x (N, D_in), y (N, D_out), w1 (H, D_in), b1 (H,), w2 (D_out, H), b2 (D_out,).

    `order`: the rows of each update, (iterations, rows in a batch); all rows at each where it is None.
    """

    x: Array
    y: Array
    weights: tuple[Array, Array, Array, Array]
    lr: float
    order: NDArray[np.int64] | None = None


Peer = Callable[[Problem, int], Train]  # sets up n iterations, which is not measured


def _model(problem: Problem) -> tuple[torch.Tensor, torch.Tensor, nn.Sequential]:
    """x, y and the network in PyTorch."""
    import torch
    from torch import nn

    (H, D_in), D_out = problem.weights[0].shape, problem.y.shape[1]
    model = nn.Sequential(nn.Linear(D_in, H), nn.ReLU(), nn.Linear(H, D_out))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), problem.weights, strict=True):
            parameter.copy_(torch.from_numpy(value))
    return torch.from_numpy(problem.x), torch.from_numpy(problem.y), model


class _Batches:
    """The batch of each update; it takes the place of a DataLoader, too."""

    def __init__(self, problem: Problem, x: Any, y: Any, count: int) -> None:
        self.x, self.y, self.count = x, y, count
        self.order: Any = problem.order
        if self.order is not None and not isinstance(x, np.ndarray):
            import torch

            self.order = torch.from_numpy(self.order).unbind()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        if self.order is None:
            return repeat((self.x, self.y), self.count)
        return ((self.x[rows], self.y[rows]) for rows in self.order)


def by_hand(problem: Problem, iterations: int) -> Train:
    """The book's loop."""
    import torch
    from torch import nn

    x, y, model = _model(problem)
    loss_fn, batches = nn.MSELoss(reduction="sum"), _Batches(problem, x, y, iterations)

    def train() -> list[float]:
        losses = []
        for inputs, targets in batches:
            loss = loss_fn(model(inputs), targets)
            losses.append(loss.item())
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= problem.lr * p.grad  # type: ignore[misc, operator]
        return losses

    return train


def by_sgd(problem: Problem, iterations: int, **options: bool) -> Train:
    """The loop with torch.optim.SGD."""
    import torch
    from torch import nn

    x, y, model = _model(problem)
    loss_fn, batches = nn.MSELoss(reduction="sum"), _Batches(problem, x, y, iterations)
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.lr, **options)

    def train() -> list[float]:
        losses = []
        for inputs, targets in batches:
            loss = loss_fn(model(inputs), targets)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return losses

    return train


def by_numpy(problem: Problem, iterations: int) -> Train:
    """Back-propagation in numpy, in place where that is natural."""
    batches, step = _Batches(problem, problem.x, problem.y, iterations), np.float32(problem.lr)
    w1, b1, w2, b2 = (value.copy() for value in problem.weights)

    def train() -> list[float]:
        losses = []
        for x, y in batches:
            h = x @ w1.T
            h += b1
            np.maximum(h, 0, out=h)
            residual = h @ w2.T
            residual += b2
            residual -= y
            losses.append(float(np.vdot(residual, residual)))
            residual *= 2
            grad_h = residual @ w2
            grad_h *= h > 0
            w2[:] -= step * (residual.T @ h)
            b2[:] -= step * residual.sum(0)
            w1[:] -= step * (grad_h.T @ x)
            b1[:] -= step * grad_h.sum(0)
        return losses

    return train


@cache
def _compiled() -> Any:
    """JAX's training: one compiled scan over the iterations, which returns the weights and the losses."""
    import jax
    import jax.numpy as jnp

    @partial(jax.jit, static_argnames="iterations")
    def train(weights: Any, x: Any, y: Any, lr: float, order: Any, iterations: int) -> Any:
        def loss_fn(weights: Any, inputs: Any, targets: Any) -> Any:
            w1, b1, w2, b2 = weights
            return jnp.sum((jax.nn.relu(inputs @ w1 + b1) @ w2 + b2 - targets) ** 2)

        def step(weights: Any, rows: Any) -> Any:
            batch = (x, y) if rows is None else (x[rows], y[rows])
            loss, gradients = jax.value_and_grad(loss_fn)(weights, *batch)
            return jax.tree.map(lambda weight, gradient: weight - lr * gradient, weights, gradients), loss

        return jax.lax.scan(step, weights, order, length=iterations)

    return train


def by_jax(problem: Problem, iterations: int) -> Train:
    """JAX; the first call with a shape and a number of iterations compiles, too."""
    import jax

    w1, b1, w2, b2 = problem.weights
    x, y, *weights = (jax.device_put(value) for value in (problem.x, problem.y, w1.T.copy(), b1, w2.T.copy(), b2))
    order = None if problem.order is None else jax.device_put(problem.order.astype(np.int32))

    def train() -> list[float]:
        trained = _compiled()(tuple(weights), x, y, problem.lr, order, iterations=iterations)
        _, losses = jax.block_until_ready(trained)
        found: list[float] = np.asarray(losses).tolist()
        return found

    return train


def by_sklearn(problem: Problem, iterations: int, *, whole: bool = True) -> Train:
    """scikit-learn's MLPRegressor, whose loss is half the mean, with gradients of half the sum divided by N.

    Batches are one epoch of `fit` on their rows in that order, which keeps the mean of their losses alone; or, unless
    `whole`, a call of `partial_fit` each.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    w1, b1, w2, b2 = problem.weights
    x, y, order = problem.x, problem.y if problem.y.shape[1] > 1 else problem.y[:, 0], problem.order
    N, epochs = (len(x), iterations) if order is None else (order.shape[1], 1)
    plain = {"solver": "sgd", "momentum": 0, "nesterovs_momentum": False, "alpha": 0, "shuffle": False, "batch_size": N}
    endless = {"max_iter": epochs, "tol": 0, "n_iter_no_change": epochs + 1, "warm_start": True}
    net = MLPRegressor(hidden_layer_sizes=len(b1), learning_rate_init=2 * N * problem.lr, **plain, **endless)
    net.partial_fit(x[:N], y[:N])  # makes the weights, which are then ours
    net.coefs_, net.intercepts_ = [w1.T.copy(), w2.T.copy()], [b1.copy(), b2.copy()]
    factor = 2 * N * problem.y.shape[1]

    def train() -> list[float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `max_iter` is what ends it
            if order is None or whole:
                net.fit(*((x, y) if order is None else (x[order.ravel()], y[order.ravel()])))
                return [factor * float(loss) for loss in net.loss_curve_[-epochs:]]
            losses = []
            for rows in order:
                net.partial_fit(x[rows], y[rows])
                losses.append(factor * float(net.loss_))
        return losses

    return train


def by_skorch(problem: Problem, iterations: int) -> Train:
    """NeuralNetRegressor of skorch without callbacks; all iterations in one epoch, which saves an epoch's overhead."""
    from skorch import NeuralNetRegressor
    from torch import nn

    x, y, model = _model(problem)
    net = NeuralNetRegressor(
        model,
        criterion=nn.MSELoss(reduction="sum"),
        lr=problem.lr,
        max_epochs=1,
        iterator_train=lambda *_, **__: _Batches(problem, x, y, iterations),
        train_split=None,
        callbacks="disable",
    )
    net.initialize()

    def train() -> list[float]:
        net.partial_fit(x, y)
        losses: list[float] = net.history[-1, "batches", :, "train_loss"]
        return losses

    return train


def by_lightning(problem: Problem, iterations: int) -> Train:
    """Lightning's bare trainer; all iterations in one epoch, which saves an epoch's overhead."""
    import logging
    import warnings

    import torch
    from pytorch_lightning import LightningModule, Trainer
    from torch import nn

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # it speaks of what it leaves out
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # of what it will have to change
    x, y, model = _model(problem)
    losses: list[float] = []

    class Regressor(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss_fn = model, nn.MSELoss(reduction="sum")

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            loss: torch.Tensor = self.loss_fn(self.model(batch[0]), batch[1])
            losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=problem.lr)

    regressor, trainer = Regressor(), Trainer(max_epochs=1, accelerator="cpu", devices=1, barebones=True)

    def train() -> list[float]:
        trainer.fit(regressor, _Batches(problem, x, y, iterations))
        return losses

    return train


PEERS: dict[str, Peer] = {
    "by hand": by_hand,
    "torch.optim.SGD": by_sgd,
    "torch.optim.SGD, foreach": partial(by_sgd, foreach=True),
    "torch.optim.SGD, fused": partial(by_sgd, fused=True),
    "numpy": by_numpy,
    "JAX": by_jax,
    "scikit-learn": by_sklearn,
    "skorch": by_skorch,
    "Lightning": by_lightning,
}


def default_problem() -> Problem:
    """The book's: 64 x 1000 -> 100 -> 10, of random numbers, with PyTorch's initial weights."""
    N, D_in, H, D_out = 64, 1000, 100, 10
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((N, width), dtype=np.float32) for width in (D_in, D_out))
    shapes = ((H, D_in), D_in), ((H,), D_in), ((D_out, H), H), ((D_out,), H)
    w1, b1, w2, b2 = (random.uniform(-1, 1, shape).astype(np.float32) / np.float32(n) ** 0.5 for shape, n in shapes)
    return Problem(x, y, (w1, b1, w2, b2), lr=1e-4)


def main() -> None:
    """Train one of them and print its losses."""
    if sys.argv[1:2] == [] or sys.argv[1] not in PEERS:
        raise SystemExit(f"python benchmarks/peers.py NAME, where NAME is one of {', '.join(map(repr, PEERS))}")
    for t, loss in enumerate(PEERS[sys.argv[1]](default_problem(), 500)(), 1):
        print(t, loss)


if __name__ == "__main__":
    main()
