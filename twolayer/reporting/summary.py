"""A run in a few lines: what was trained, how far, and with what result."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from pathlib import Path

from twolayer.formatting import duration, safe, shown
from twolayer.reporting.fold_scores import fold_line
from twolayer.runs.run_files import HISTORY
from twolayer.runs.saved_run import SavedRun


@dataclass(frozen=True)
class Metric:
    """The first, best and last finite value of a column of the history; `final` is that of the weights that are kept.

    The best is the smallest loss or the largest accuracy, first reached at row `best_at`; `last_at` is the row of the
    last, which in a diverged run is not the last row.
    """

    first: float | None
    best: float | None
    best_at: int | None
    last: float | None
    last_at: int | None
    final: float | None


def metrics(run: SavedRun) -> dict[str, Metric]:
    """The run's metrics by their names in its history: loss, accuracy, val_loss, val_accuracy, lr."""
    return {name: _metric(run, name) for name in run.history.columns}


def _metric(run: SavedRun, name: str) -> Metric:
    values = run.history.columns[name]
    places = [i for i, value in enumerate(values) if math.isfinite(value)]
    final = run.number(f"final_{name}")
    if not places:
        return Metric(None, None, None, None, None, final)
    best = (max if name.endswith("accuracy") else min)(places, key=values.__getitem__)
    return Metric(values[places[0]], values[best], best + 1, values[places[-1]], places[-1] + 1, final)


def summary_lines(run: SavedRun, each: float | None = None, micro: str = "µs") -> list[tuple[str, str]]:
    """The lines, each with its name; `each` is the seconds per iteration of a run that is still running."""
    lines = [("run", f"{safe(run.name)}, {_status(run)}"), ("config", _config(run)), ("engine", _engine(run))]
    lines += [("note", run.text("note"))]
    for name, metric in metrics(run).items():
        what = {"first": metric.first, f"best (at {metric.best_at})": metric.best, "last": metric.last}
        if name == "lr":
            what = {"first": metric.first, "last": metric.last}
        elif metric.best_at == metric.last_at:
            what = {"first": metric.first, "best and last": metric.last}
        texts = [f"{key} {value:.6g}" for key, value in (what | {"final": metric.final}).items() if value is not None]
        if name == "val_loss" and run.config is not None and run.config.average is not None:
            texts.append(f"of the weights {run.config.weights}")
        lines.append((name, ", ".join(texts)))
    lines.append(("folds", fold_line(run.info, "±" if micro == "µs" else "+-")))  # ASCII has neither sign
    lines.append(("time", _time(run, each, micro)))
    return [(name, line) for name, line in lines if line]


def _status(run: SavedRun) -> str:
    """The status, its time, and how many iterations are done."""
    done, planned = len(run.history), run.config.epochs if run.config is not None else None
    unit = run.history.unit + "s" * (done != 1)
    count = f"{done} of {planned} {unit}" if planned is not None and planned != done else f"{done} {unit}"
    count += within(run)
    when = _local(run.info.get("started" if run.status == "running" else "ended"))
    if run.status == "killed":
        try:
            written = datetime.datetime.fromtimestamp((run.path / HISTORY).stat().st_mtime, datetime.UTC)
            when = f"some time after {_local(written.isoformat())}"
        except (OSError, ValueError):
            when = ""
    said = [f"{run.status} {'since ' if run.status == 'running' else ''}{when}".strip(), count]
    if run.info.get("stopped_early") is True and (kept := run.number("kept")) is not None:
        said.append(f"stopped early: best {run.history.unit} {kept:.0f} kept")
    if run.status == "diverged" and (at := run.number("diverged_at")) is not None:
        said.append(f"the loss at {at:.0f} is not finite")
    if run.status == "failed":
        said.append(run.text("error"))
    if run.unsealed and done:
        said.append(f"unsealed after {done - run.unsealed}" if run.unsealed < done else "unsealed")
    return ", ".join(part for part in said if part)


def within(run: SavedRun) -> str:
    """How far a run is in an epoch that has not ended: `, in epoch 3 after 120 of 900 updates`; empty between two."""
    if run.updates is None:
        return ""
    done, count = run.updates
    bound = "at least " if run.status in ("running", "killed") else ""
    return f", in epoch {len(run.history) + 1:,} after {bound}{done:,} of {count:,} updates"


def _local(stamp: object) -> str:
    """A time in run.json as local time."""
    try:
        return datetime.datetime.fromisoformat(str(stamp)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return ""


def config_name(run: SavedRun) -> str:
    """The name of the run's config or table; of an absolute path the last part."""
    given = run.text("config")
    return Path(given).name if Path(given).is_absolute() else given


def _config(run: SavedRun) -> str:
    config = run.config
    said = [config_name(run), config.shape if config is not None else run.text("shape")]
    known = run.values or run.info
    said += [f"{key} {shown(known[key])}" for key in ("lr", "seed") if isinstance(known.get(key), (int, float, str))]
    return ", ".join(part for part in said if part)


def _engine(run: SavedRun) -> str:
    config = run.config
    if config is None:
        return ", ".join(word for word in (run.text("engine"), run.text("form"), run.text("device")) if word)
    threads = f"{config.threads} thread{'s' * (config.threads != 1)}"
    return f"{config.engine_name}, {threads}, {run.texts('device') or config.device}"


def _time(run: SavedRun, each: float | None, micro: str) -> str:
    unit = run.history.unit
    if run.each is not None:
        return f"{duration(run.seconds or 0.0, micro)}, {duration(run.each, micro)} per {unit}"
    if each is None:
        return ""
    left = max(0, (run.config.epochs if run.config is not None else 0) - len(run.history)) * each
    return f"{duration(each, micro)} per {unit}" + (f", {duration(left, micro)} left" if left else "")
