"""`twolayer.inspect`: the network of a config, a run or a training, taken apart."""

from __future__ import annotations

import math
from typing import Any, Literal

from twolayer.config.loading import AnyConfig
from twolayer.config.schema import Config
from twolayer.errors import RunError
from twolayer.runs.any_source import config_or_run, name_of
from twolayer.training import inspection
from twolayer.training.from_run import place_in_config, place_in_run
from twolayer.training.inspection import Inspection
from twolayer.training.outcome import Training


def inspect(
    source: AnyConfig | Training | None = None, at: Literal["start", "end"] | int | None = None, **values: Any
) -> Inspection:
    """Take a network apart on its training rows: what goes forward, the gradients, and what one step changes.

    `source` is a config (with keys as keyword arguments; left out as for `load_config`), a run, which is only read, or
    a finished Training. `at` says which weights: the initial ones ("start", the default of a config), those that are
    kept ("end", the default of a run), or those after a number of iterations or epochs. Raises TwolayerError.
    """
    if isinstance(source, Training):
        if at is not None or values:
            raise RunError("a Training has the weights that it ended with; inspect its `config` for others", usage=True)
        lr = source.more["lr"][-1] if source.more.get("lr") else math.nan
        lr = lr if source.config.lr == "auto" else source.config.lr
        return inspection.inspect(source.model, source.data, source.config, lr)
    is_number = isinstance(at, int) and not isinstance(at, bool)
    if at not in (None, "start", "end") and not (is_number and int(at) >= 0):
        raise RunError(f'at: must be "start", "end" or a number of iterations or epochs, not {at!r}', usage=True)
    found = config_or_run(source, **values)
    if isinstance(found, Config):
        if isinstance(at, int) and at > found.epochs:
            raise RunError(f"at={at} is after the last of {found.epochs}; add epochs={at}", usage=True)
        place = place_in_config(found, None, name_of(source, found), "start" if at is None else at)
    else:
        place = place_in_run(found, "end" if at is None else at)
    return inspection.inspect(place.model, place.data, place.config, place.lr)
