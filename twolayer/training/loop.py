"""The training loop: `train` for a whole training, `fit` for a block of iterations at a time."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from typing import Any, cast

import torch
from torch import Tensor, nn

from twolayer.config.loading import AnyConfig, as_config
from twolayer.config.schema import Config
from twolayer.engines.base import Data, RowEngine
from twolayer.engines.factory import make_engine
from twolayer.engines.led import LedEngine, led, load_state
from twolayer.engines.parts import ALONE, Group
from twolayer.engines.state_in_parts import SavedParts
from twolayer.errors import DataError, DivergedError
from twolayer.hardware import threads
from twolayer.runs.history import Block, join
from twolayer.tables.options import FileData
from twolayer.training.blocks import joined
from twolayer.training.early_stopping import EarlyStopping
from twolayer.training.epoch import Epoch, updates_per_epoch
from twolayer.training.learning_rate import LearningRateFinder
from twolayer.training.metrics import scores, training_scores
from twolayer.training.outcome import Outcome, Training
from twolayer.training.saved_state import saved_lr, taken
from twolayer.training.setup import build_model, prepare, resolve_auto
from twolayer.training.stopping import Abandoned, StopRequest
from twolayer.training.weight_average import WeightAverage

BLOCK_SECONDS = 0.05


def train(config: AnyConfig | None = None, **values: Any) -> Training:
    """Train the network that a config describes, from drawing the data to the last update.

    `config` is a Config, or the name or path of one, or of a table, with keys as keyword arguments: as for
    `load_config`, also where it is left out. Raises ConfigError, DataError, DeviceError or DivergedError.
    """
    config, data, model = prepare(as_config(config, **values))
    training = fit(model, data, config)
    blocks = list(training)
    whole = join(blocks) if blocks else Block(1, (), 0.0)
    return Training(config, model, data, whole.losses, training.finish().loss, whole.seconds, whole.more)


class Fit(Iterator[Block]):
    """A training in progress: trains the model in place and yields its losses, a block of iterations at a time.

    The data and the model must have the config's shape. Of its other keys `epochs`, `lr`, `loss`, `reduction`,
    `engine`, `form`, `threads`, `precision`, `cuda_graph`, `batch_size`, `patience`, `average` and `seed` (for the
    order of the rows) are used here. A block is about 50 ms of work, so that printing, disk and device synchronisation
    stay out of the hot loop; the results do not depend on where blocks end, and between two blocks `model` has the
    current weights. DivergedError follows the block that ends with the first loss that is not finite.

    With `lr: auto` the learning rate is 1 / lambda (see `learning_rate`), measured again at fixed iterations; with
    batches, classes or a file it never rises. With `batch_size` an iteration is an epoch: an update for every batch.
    `state`: that after `done` iterations of the same training, and some updates of the next one, which then resumes bit
    for bit, with its `parts` if they are saved apart; StateError if it is another training's. No block crosses a
    multiple of `cut_every`. In a `group` of several processes this is the first one's, which the others follow (see
    `together.work`) until `finish` or `close`.

    `pieces` is the same training in blocks that never last long: they end within an epoch, too, and hold no losses
    then; and `model` has the weights only after `finish`.
    """

    def __init__(
        self,
        model: nn.Sequential,
        data: Data,
        config: Config,
        state: Mapping[str, Tensor] | None = None,
        done: int = 0,
        *,
        parts: SavedParts | None = None,
        cut_every: int = 0,
        group: Group = ALONE,
    ) -> None:
        config = resolve_auto(config)
        self.model, self.data, self.config, self.done, self.cut_every = model, data, config, done, cut_every
        if (config.validation is None) != (data.validation is None):
            raise DataError("the data must have validation rows if the config has `validation`, and only then")
        self.best = EarlyStopping(model, config.patience) if config.patience is not None else None
        self.stopped = False  # by `patience`
        self.batches = updates_per_epoch(config) if config.is_by_epoch else 1
        is_resumed, state = state is not None, dict(state or {})
        with threads.set_up(config):  # K of the dual form depends on the threads, too
            is_auto = config.lr == "auto"
            start = config.model_copy(update={"lr": 1.0}) if is_auto else config
            self.engine = led(lambda group: make_engine(model, data, start, group), group)
            self.finder = LearningRateFinder(model, data, config, self.engine) if is_auto else None
            if self.best is not None and is_resumed:
                self.best.load_state(taken(state, self.best.state()))
            if self.finder is not None and is_resumed:
                self.finder.load_state(taken(state, self.finder.state()), done * self.batches)
            self.lr = saved_lr(state) if is_resumed and is_auto else self._choose_lr(math.inf)
            self.engine.set_lr(self.lr)
            self.average = WeightAverage(self.engine.state(), config.average) if config.average is not None else None
            if is_resumed:
                if self.average is not None:
                    self.average.load_state(taken(state, self.average.state()))
                within = taken(state, Epoch.STATE)
                load_state(self.engine, state, done, parts)
                self.engine.sync()
        self.epoch: Epoch | None = None  # the one that has begun
        if is_resumed and within:
            self.epoch = Epoch(done, config, data, [0.0] * sum(name.startswith("val_") for name in config.columns))
            self.epoch.load_state(within)
        self.stop = StopRequest()
        self.engine.check = self.stop.check
        self.pieces = self._run()
        self._blocks = joined(self.pieces, self._sync, self._is_at_cut)

    def __next__(self) -> Block:
        return next(self._blocks)

    def restart(self) -> tuple[Data, nn.Sequential]:
        """The data, and a model with the initial weights. Raises as `prepare` does."""
        if isinstance(self.config.data, FileData):  # the file may have changed or be missing by now
            return self.data, build_model(self.config)
        _, data, model = prepare(self.config)
        return data, model

    def request_stop(self) -> None:
        """Let the pieces and the blocks end within a second, or after the product that is being computed.

        An update that takes longer is forgotten.
        """
        self.stop.is_made = True

    def close(self) -> None:
        """Let the other processes go, where there are any: nothing more is computed."""
        if isinstance(self.engine, LedEngine):
            self.engine.end()

    @property
    def updates(self) -> int:
        """The updates that are done of the epoch after `done` epochs, of `batches`."""
        return self.epoch.done if self.epoch is not None else 0

    @property
    def progress(self) -> float:
        """The iterations or epochs that are done, with the part of the last one."""
        return self.done + self.updates / self.batches

    @property
    def is_finished(self) -> bool:
        """Whether all iterations are done; `finish` is next."""
        return self.stopped or self.done >= self.config.epochs

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs to be the same bit for bit."""
        return self.engine.state() | self.beside_engine()

    def beside_engine(self) -> dict[str, Tensor]:
        """What of the state is not the engine's."""
        state = {"lr": torch.tensor(self.lr, dtype=torch.float64)} if self.config.lr == "auto" else {}
        for part in (self.epoch, self.finder, self.best, self.average):
            if part is not None:
                state |= part.state()
        return state

    def finish(self) -> Outcome:
        """Copy the weights to keep into the model; their scores.

        Raises DivergedError if their loss is not finite. The training cannot continue after this.
        """
        kept, self.stop.can_abandon = self.done, False
        with threads.set_up(self.config):
            self.engine.sync()
            if self.best is not None:
                self._validated()
                self.best.restore()
                kept = self.best.at
            elif self.average is not None:
                self.average.keep()
                self.engine.sync()
            names = [name for name in self.config.columns[1:] if name != "lr"]
            values = training_scores(self.engine, self.model, self.data, self.config)
            self.close()
            if self.data.validation is not None:
                values += scores(self.model, self.data.validation, self.config)
        outcome = Outcome(kept, dict(zip(names, values, strict=True)))
        if not math.isfinite(outcome.loss):
            raise DivergedError(self.done + 1, outcome.loss, self.lr, unit=self.config.unit)
        return outcome

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

    def _sync(self) -> None:
        with threads.set_up(self.config):
            self.engine.sync()

    def _is_at_cut(self) -> bool:
        return self.cut_every > 0 and self.done % self.cut_every == 0

    def _run(self) -> Iterator[Block]:
        size = 1  # updates
        while not (self.is_finished or self.stop.is_made):
            start, first, before = time.perf_counter(), self.done + 1, self._count()
            rows: list[tuple[float, ...]] = []
            with threads.set_up(self.config), suppress(Abandoned):
                for row in self._epochs(size) if self.config.is_by_epoch else self._iterations(size):
                    rows.append(row)
            seconds = time.perf_counter() - start
            if self._count() == before:  # ended by `patience`, or abandoned
                return
            bad = next((i for i, row in enumerate(rows) if not math.isfinite(row[0])), len(rows))
            losses, *more = list(zip(*rows[: bad + 1], strict=True)) or [()]
            yield Block(first, losses, seconds, dict(zip(self.config.columns[2:], more, strict=False)))
            if bad < len(rows):
                raise DivergedError(first + bad, losses[bad], self.lr, unit=self.config.unit)
            size = max(1, min(4 * size, int((self._count() - before) * BLOCK_SECONDS / max(seconds, 1e-9))))

    def _count(self) -> int:
        """All updates so far."""
        return self.done * self.batches + self.updates

    def _end(self) -> int:
        """After how many iterations the next piece ends at the latest."""
        cut = (self.done // self.cut_every + 1) * self.cut_every if self.cut_every else sys.maxsize
        return min(self.config.epochs, cut)

    def _iterations(self, count: int) -> Iterator[tuple[float, ...]]:
        """At most `count` iterations on all rows at once; their rows of the history."""
        end = min(self.done + count, self._end())
        while self.done < end:
            count = min(self._measure(self.done), end) - self.done
            self.stop.can_abandon = count == 1  # of several the losses would be lost
            values = self.engine.advance(count).view(count, -1).tolist()  # the only place that waits for the device
            self.done += count
            yield from ((*row, *self._lr_column()) for row in values)

    def _epochs(self, updates: int) -> Iterator[tuple[float, ...]]:
        """At most `updates` updates: whole epochs, or a part of one that has more; the rows of the epochs that end.

        Fewer if `patience` ends the training.
        """
        end = self._end()
        while self.done < end:
            if self.epoch is None:
                self.stop.can_abandon = True
                validated, self.stopped = self._validated() if self.data.validation is not None else ((), False)
                if self.stopped:
                    return
                self.epoch = Epoch(self.done, self.config, self.data, validated)
            updates -= self._advance(self.epoch, updates)
            if self.epoch.done < self.batches:
                self.epoch.wait()
                return
            self.done += 1
            if self.average is not None:
                self.average.add(self.done)
            row = (*self.epoch.figures(), *self.epoch.validated, *self._lr_column())
            self.epoch = None
            yield row
            if updates < self.batches:
                return

    def _advance(self, epoch: Epoch, updates: int) -> int:
        """Do at most as many updates of the epoch; how many were done."""
        before, end = epoch.done, min(epoch.done + updates, self.batches)
        first = self.done * self.batches
        while epoch.done < end:
            due = self._measure(first + epoch.done) - first
            count = min(due, end) - epoch.done
            self.stop.can_abandon = count == 1  # of several the losses would be lost
            epoch.advance(self.engine, count)
        return epoch.done - before

    def _lr_column(self) -> tuple[float, ...]:
        return (self.lr,) if self.config.lr == "auto" else ()

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


def fit(model: nn.Sequential, data: Data, config: AnyConfig) -> Fit:
    """Train the model in place; yields the losses, a block of consecutive iterations at a time (see `Fit`)."""
    return Fit(model, data, as_config(config))
