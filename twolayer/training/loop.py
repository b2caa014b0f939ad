"""The training loop: `train` for a whole training, `fit` for a block of iterations at a time."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from twolayer.config.schema import Config
from twolayer.engines import selection
from twolayer.engines.base import Data, RowEngine, check_state
from twolayer.engines.factory import make_engine
from twolayer.engines.losses import Objective
from twolayer.errors import DataError, DivergedError, StateError
from twolayer.hardware import threads
from twolayer.runs.history import Block
from twolayer.tables.options import FileData
from twolayer.training.early_stopping import EarlyStopping
from twolayer.training.learning_rate import LearningRateFinder
from twolayer.training.metrics import scores
from twolayer.training.setup import build_model, prepare, resolve_auto
from twolayer.training.weight_average import WeightAverage

BLOCK_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """The result of a training: the weights that are kept are those after `kept` updates (with batches, epochs).

    With `average` they are the average up to there.

    `scores` are their scores, named as in the history: loss, accuracy, val_loss, val_accuracy.
    """

    kept: int
    scores: Mapping[str, float]

    @property
    def loss(self) -> float:
        """The loss of the weights that are kept: the last ones, or their average; with `patience` the best."""
        return self.scores["loss"]


@dataclass(frozen=True)
class Training:
    """A finished training: the config with every `auto` but `lr` resolved, the trained model, its data, the losses.

    `losses[i]` is the loss before update i + 1 (with batches, over epoch i + 1), `final_loss` the loss of the weights
    that are kept, and `seconds` the time that the iterations took.
    """

    config: Config
    model: nn.Sequential
    data: Data
    losses: tuple[float, ...]
    final_loss: float
    seconds: float


def train(config: Config) -> Training:
    """Train the network that a config describes, from drawing the data to the last update.

    Raises ConfigError (not enough memory), DataError, DeviceError or DivergedError.
    """
    config, data, model = prepare(config)
    training = fit(model, data, config)
    blocks = list(training)
    losses = tuple(loss for block in blocks for loss in block.losses)
    seconds = sum(block.seconds for block in blocks)
    return Training(config, model, data, losses, training.finish().loss, seconds)


class Fit(Iterator[Block]):
    """A training in progress: trains the model in place and yields its losses, a block of iterations at a time.

    The data and the model must have the config's shape. Of its other keys `epochs`, `lr`, `loss`, `reduction`,
    `engine`, `form`, `threads`, `precision`, `cuda_graph`, `batch_size`, `patience`, `average` and `seed` (for the
    order of the rows) are used here. A block is about 50 ms of work, so that printing, disk and device synchronisation
    stay out of the hot loop; the results do not depend on where blocks end, and between two blocks `model` has the
    current weights. DivergedError follows the block that ends with the first loss that is not finite.

    With `lr: auto` the learning rate is 1 / lambda (see `learning_rate`), measured again at fixed iterations, where
    blocks end; with batches, classes or a file it never rises. With `batch_size` an iteration is an epoch: an update
    for every batch. `state`: the result of `state()` after `done` iterations of the same training, which then resumes
    bit for bit; StateError if it is another training's. No block crosses a multiple of `cut_every`.
    """

    def __init__(
        self,
        model: nn.Sequential,
        data: Data,
        config: Config,
        state: Mapping[str, Tensor] | None = None,
        done: int = 0,
        *,
        cut_every: int = 0,
    ) -> None:
        config = resolve_auto(config)
        self.model, self.data, self.config, self.done, self.cut_every = model, data, config, done, cut_every
        if (config.validation is None) != (data.validation is None):
            raise DataError("the data must have validation rows if the config has `validation`, and only then")
        self.best = EarlyStopping(model, config.patience) if config.patience is not None else None
        self.stopped = False  # by `patience`
        is_resumed, state = state is not None, dict(state or {})
        with threads.set_up(config):  # K of the dual form depends on the threads, too
            is_auto = config.lr == "auto"
            self.engine = make_engine(model, data, config.model_copy(update={"lr": 1.0}) if is_auto else config)
            self.finder = LearningRateFinder(model, data, config, self.engine) if is_auto else None
            if self.best is not None and is_resumed:
                self.best.load_state(_taken(state, self.best.state()))
            if self.finder is not None and is_resumed:
                self.finder.load_state(_taken(state, self.finder.state()), done * self._updates())
            self.lr = _saved_lr(state) if is_resumed and is_auto else self._choose_lr(math.inf)
            self.engine.set_lr(self.lr)
            self.average = WeightAverage(self.engine.state(), config.average) if config.average is not None else None
            if is_resumed:
                if self.average is not None:
                    self.average.load_state(_taken(state, self.average.state()))
                self.engine.load_state(state, done)
                self.engine.sync()
        self._blocks = self._run()

    def __next__(self) -> Block:
        return next(self._blocks)

    def restart(self) -> tuple[Data, nn.Sequential]:
        """The data, and a model with the initial weights. Raises as `prepare` does."""
        if isinstance(self.config.data, FileData):  # the file may have changed or be missing by now
            return self.data, build_model(self.config)
        _, data, model = prepare(self.config)
        return data, model

    @property
    def is_finished(self) -> bool:
        """Whether all iterations are done; `finish` is next."""
        return self.stopped or self.done >= self.config.epochs

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs to be the same bit for bit."""
        state = self.engine.state()
        if self.config.lr == "auto":
            state |= {"lr": torch.tensor(self.lr, dtype=torch.float64)}
        for part in (self.finder, self.best, self.average):
            if part is not None:
                state |= part.state()
        return state

    def finish(self) -> Outcome:
        """Copy the weights to keep into the model; their scores.

        Raises DivergedError if their loss is not finite. The training cannot continue after this.
        """
        kept = self.done
        with threads.set_up(self.config):
            if self.best is not None:
                self._validated()
                self.best.restore()
                kept = self.best.at
            elif self.average is not None:
                self.average.keep()
                self.engine.sync()
            names = [name for name in self.config.columns[1:] if name != "lr"]
            values = scores(self.model, self.data, self.config)
            if self.data.validation is not None:
                values += scores(self.model, self.data.validation, self.config)
        outcome = Outcome(kept, dict(zip(names, values, strict=True)))
        if not math.isfinite(outcome.loss):
            raise DivergedError(self.done + 1, outcome.loss, self.lr, unit=self.config.unit)
        return outcome

    def _updates(self) -> int:
        """The updates in an iteration of the history: with batches, in an epoch."""
        is_batched = selection.is_batched(self.config)
        return selection.batches(self.config.N, cast(int, self.config.batch_size)) if is_batched else 1

    def _choose_lr(self, before: float, done: int = 0) -> float:
        """The learning rate after `done` updates; `before` is the one so far."""
        return float(self.config.lr) if self.finder is None else self.finder.choose(before, done)

    def _measure(self, done: int) -> int:
        """With `lr: auto`, measure the learning rate if that is due after `done` updates; when it is due next."""
        if self.finder is None:
            return sys.maxsize
        if self.finder.due <= done:
            self.lr = self._choose_lr(self.lr, done)
            self.engine.set_lr(self.lr)
        return self.finder.due

    def _run(self) -> Iterator[Block]:
        size, columns = 1, self.config.columns[1:]
        while not self.is_finished:
            start, first = time.perf_counter(), self.done + 1
            count = min(size, self.config.epochs - self.done)
            count = min(count, self.cut_every - self.done % self.cut_every) if self.cut_every else count
            with threads.set_up(self.config):
                rows = list(self._epochs(count) if self.config.is_by_epoch else self._iterations(count))
                computed = time.perf_counter()
                self.engine.sync()
            end = time.perf_counter()
            if not rows:
                return
            losses, *more = zip(*rows, strict=True)
            bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(rows))
            cut = [column[: bad + 1] for column in more]
            yield Block(first, losses[: bad + 1], end - start, dict(zip(columns[1:], cut, strict=True)))
            if bad < len(rows):
                raise DivergedError(first + bad, losses[bad], self.lr, unit=self.config.unit)
            # Twenty times what the sync took, so that it stays a small part even if it costs more than iterations do.
            target = max(BLOCK_SECONDS, 20 * (end - computed))
            size = max(1, min(4 * size, int(len(rows) * target / max(end - start, 1e-9))))

    def _iterations(self, count: int) -> Iterator[tuple[float, ...]]:
        """`count` iterations on all rows at once; their rows of the history."""
        end = self.done + count
        while self.done < end:
            count = min(self._measure(self.done), end) - self.done
            values = self.engine.advance(count).view(count, -1).tolist()  # the only place that waits for the device
            self.done += count
            yield from ((*row, *self._lr_column()) for row in values)

    def _epochs(self, count: int) -> Iterator[tuple[float, ...]]:
        """At most `count` epochs, fewer if `patience` ends the training; their rows of the history."""
        for _ in range(count):
            validated, self.stopped = self._validated() if self.data.validation is not None else ((), False)
            if self.stopped:
                return
            if self.config.batch_size is None or self.config.batch_size >= self.config.N:
                self._measure(self.done)
                row = self.engine.advance(1).view(-1).tolist()
            else:
                row = self._epoch(self.config.batch_size)
            self.done += 1
            if self.average is not None:
                self.average.add(self.done)
            yield (*row, *validated, *self._lr_column())

    def _lr_column(self) -> tuple[float, ...]:
        return (self.lr,) if self.config.lr == "auto" else ()

    def _epoch(self, batch_size: int) -> list[float]:
        """An update for every batch; their losses combined by the config's reduction, and for classes the accuracy."""
        N, engine = self.config.N, cast(RowEngine, self.engine)
        order = epoch_order(self.config.seed, self.done, N).to(self.data.x.device)
        count = selection.batches(N, batch_size)
        sizes = [(i + 1) * N // count - i * N // count for i in range(count)]
        rows = torch.split(order, sizes)
        values = self.data.x.new_empty(count, *Objective.of(self.config).shape)
        first = number = self.done * count
        while number < first + count:
            due = min(self._measure(number), first + count)
            engine.updates(rows[number - first : due - first], values[number - first : due - first])
            number = due
        losses, *accuracies = zip(*values.view(count, -1).tolist(), strict=True)
        shares = [size / N for size in sizes]
        weights = [1.0] * count if self.config.reduction == "sum" else shares
        return [_dot(losses, weights), *(_dot(column, shares) for column in accuracies)]

    def _validated(self) -> tuple[tuple[float, ...], bool]:
        """The loss and for classes the accuracy on the validation rows; and whether `patience` ends the training.

        They are those of the average where there is one, else of the current weights. With `patience` these are kept
        if they are the best so far.
        """
        if self.data.validation is None:
            raise DataError("patience requires validation rows, but the data have none")
        with self.average.in_place() if self.average is not None else nullcontext():
            values = cast(RowEngine, self.engine).evaluate(self.data.validation).view(-1).tolist()
            if self.best is None:
                return tuple(values), False
            if values[0] < self.best.loss:
                self.engine.sync()
            return tuple(values), self.best.consider(values[0], self.done)


def _taken(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove a part from a state, that with the names of `own`, and return what there was of it."""
    return {name: state.pop(name) for name in own if name in state}


def _saved_lr(state: dict[str, Tensor]) -> float:
    """Remove the learning rate of `lr: auto` from a state and return it. Raises StateError."""
    own = {"lr": torch.zeros((), dtype=torch.float64)}
    check_state(own, taken := _taken(state, own))
    if not 0 < (lr := float(taken["lr"])) < math.inf:
        raise StateError(f"is a state of another training: its lr is {lr}")
    return lr


def _dot(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True))


def epoch_order(seed: int, epoch: int, N: int) -> Tensor:
    """The order of the rows in an epoch, int64 (N,), drawn on the CPU: the same on every device and when resumed."""
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    return torch.randperm(N, generator=torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1))


def fit(model: nn.Sequential, data: Data, config: Config) -> Fit:
    """Train the model in place; yields the losses, a block of consecutive iterations at a time (see `Fit`)."""
    return Fit(model, data, config)
