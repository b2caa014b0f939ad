"""Other programs for the same mathematics, and the configs on which the engines are compared with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import nn
from torch._C._profiler import _EventType

from twolayer.config.schema import Config
from twolayer.engines.base import Data
from twolayer.engines.factory import make_engine
from twolayer.hardware.threads import set_up
from twolayer.training.doctor import book
from twolayer.training.setup import prepare

ENGINES = ["autograd", "manual", "fused primal", "fused dual", "compiled"]
ON_CUDA = ENGINES[:-1]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")


def run(config: Config, iterations: int = 5) -> tuple[list[float], list[torch.Tensor]]:
    """The losses and the weights after some iterations from the config's own start."""
    config, data, model = prepare(config)
    with set_up(config):
        engine = make_engine(model, data, config)
        losses = engine.advance(iterations)
        engine.sync()
    return losses.tolist(), [parameter.detach() for parameter in model.parameters()]


def sgd(model: nn.Sequential, data: Data, config: Config, iterations: int) -> list[float]:
    """Gradient descent by `torch.optim.SGD`; trains the model in place."""
    loss_fn = nn.MSELoss(reduction=config.reduction)
    optimizer = torch.optim.SGD(model.parameters(), lr=float(config.lr))
    losses = []
    for _ in range(iterations):
        loss = loss_fn(model(data.x), data.y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def with_classes(data: Data) -> Data:
    """The same x with a class to each row, drawn at random: y one-hot."""
    classes = torch.randint(data.y.shape[1], (len(data.y),), generator=torch.Generator().manual_seed(7))
    return Data(data.x, torch.zeros_like(data.y).scatter_(1, classes[:, None], 1))


def score(model: nn.Sequential, data: Data, config: Config, rows: torch.Tensor | None = None) -> torch.Tensor:
    """The loss over these rows, or all, by torch's own; for classes with the accuracy."""
    x, y = (data.x, data.y) if rows is None else (data.x[rows], data.y[rows])
    if config.loss == "mse":
        return nn.functional.mse_loss(model(x), y, reduction=config.reduction)
    z, classes = model(x), y.argmax(1)
    right = sum(int(row.tolist().index(row.max()) == label) for row, label in zip(z.detach(), classes, strict=True))
    loss = nn.functional.cross_entropy(z, classes, reduction=config.reduction)
    return torch.stack([loss, loss.detach().new_tensor(right / len(x))])


def sgd_on(
    model: nn.Sequential, data: Data, config: Config, batches: Sequence[torch.Tensor | None]
) -> list[torch.Tensor]:
    """An update by `torch.optim.SGD` on each batch of rows (None: on all); the scores before them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=float(config.lr))
    scores = []
    for rows in batches:
        result = score(model, data, config, rows)
        scores.append(result.detach())
        optimizer.zero_grad()
        result.flatten()[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return scores


def numpy64(model: nn.Sequential, data: Data, config: Config, iterations: int) -> tuple[list[float], list[Any]]:
    """Gradient descent in numpy, float64, with column-vector biases: another program for the same mathematics."""
    parameters = [parameter.detach().numpy() for parameter in model.parameters()]
    x, y, is_mean = data.x.numpy(), data.y.numpy(), config.reduction == "mean"
    return book.descend(x, y, parameters, float(config.lr), iterations, mean=is_mean)


def configs(most: int = 70) -> st.SearchStrategy[Config]:
    size = st.integers(1, most)
    return st.builds(
        Config,
        N=size,
        D_in=size,
        H=size,
        D_out=size,
        lr=st.sampled_from([1e-7, 1e-6, 1e-5]),
        epochs=st.just(5),
        seed=st.integers(0, 2**32),
        init=st.sampled_from(["default", "normal"]),
        reduction=st.sampled_from(["sum", "mean"]),
        dtype=st.sampled_from(["float32", "float64"]),
        threads=st.sampled_from([1, 2]),
    )


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    """Bit for bit; where both have diverged to nan, nan equals nan."""
    return all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(first, second, strict=True))


def with_engine(config: Config, engine: str) -> Config:
    """The config with an engine, or with `fused` and its form."""
    name, _, form = engine.partition(" ")
    return config.model_copy(update={"engine": name, "form": form or "auto"})


def allocations(work: Callable[[], object]) -> list[int]:
    """The bytes of everything that torch allocates meanwhile, one by one."""
    # acc_events, though there is one cycle alone: without it some versions warn.
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        work()

    def walk(event: Any) -> Iterator[Any]:
        yield event
        for child in event.children:
            yield from walk(child)

    tree = profile.profiler.kineto_results.experimental_event_tree()
    events = [event for root in tree for event in walk(root) if event.tag == _EventType.Allocation]
    return [event.extra_fields.alloc_size for event in events if event.extra_fields.alloc_size > 0]
