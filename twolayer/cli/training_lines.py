"""The lines above and below the loss table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from twolayer.cli.terminal import err, out
from twolayer.config.schema import Config
from twolayer.formatting import duration, safe


def about(config: str, device: str, engine: str, threads: int | str, seed: int, *, stderr: bool = False) -> None:
    """Print the line on what is trained and what it runs on."""
    where = err() if stderr else out()
    where.print(Text(safe(f"config {config}, device {device}, engine {engine}, threads {threads}, seed {seed}")))


def summary(
    best: int | None,
    scores: Mapping[str, float],
    seconds: float,
    rows: float,
    config: Config,
    *,
    last: int = 0,
    stderr: bool = False,
) -> None:
    """Print the lines below the table: the scores of the saved weights, and the time.

    `best` is the epoch of those weights if they are the best ones by the validation loss, of `last` epochs. A row of
    the history is about the weights before it: their validation loss is that of the next row.
    """
    console, unit = err() if stderr else out(), config.unit
    micro = "us" if console.options.ascii_only else "µs"
    each = f", {duration(seconds / rows, micro)} per {unit}" if rows else ""
    loss, *others = (f"{value:#.6g}" for value in scores.values())
    more = "".join(f", {name} {value}" for name, value in zip(list(scores)[1:], others, strict=True))
    start = "loss after the last update  " if config.average is None else "loss of the averaged weights  "
    if best is not None:
        which = f"those of row {best + 1}" if best < last else "those after the last row"
        start = f"best weights, {which} (lowest val_loss): loss "
    console.print(Text(f"{start}{loss}{more}\ntraining time  {duration(seconds, micro)}{each}"))
