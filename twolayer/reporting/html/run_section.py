"""What a report tells of a run, in words and numbers: plain data, every text safe to show."""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from twolayer.config.schema import SOURCES, Config
from twolayer.errors import RunError
from twolayer.formatting import counted, duration, safe, shown
from twolayer.reporting import comparison
from twolayer.reporting.comparison import environment
from twolayer.reporting.html import weight_images
from twolayer.reporting.summary import metrics
from twolayer.runs import model_file
from twolayer.runs.saved_run import SavedRun

LONGEST = 4000  # characters of a value that are shown
SIGNS = {ord("x"): "\u00d7", ord(">"): "\u2192", ord("-"): ""}  # of a shape: 64 x 1000 -> 100 -> 10

# The order in which run.json's keys are told, and what they are called; those not known here come after.
CALLED = {
    "started": "started",
    "ended": "ended",
    "seconds": "training time",
    "exit_code": "exit code",
    "checkpoint_every": "checkpoint every",
    "device": "device",
    "engine": "engine",
    "form": "form",
    "threads": "threads",
    "twolayer": "twolayer",
    "torch": "PyTorch",
    "python": "Python",
    "platform": "platform",
    "cpu_capability": "CPU capability",
    "config": "config file",
    "config_sha256": "config, SHA-256",
    "data_sha256": "data, SHA-256",
    "validation_sha256": "validation data, SHA-256",
    "initial_sha256": "initial weights, SHA-256",
}
ELSEWHERE = {  # on the page
    *("format", "status", "note", "resumed", "iterations", "epochs", "shape", "lr", "seed", "kept", "stopped_early"),
    *("first_loss", "best_loss", "last_loss", "diverged_at", "error"),
    *("final_loss", "final_accuracy", "final_val_loss", "final_val_accuracy"),
    *("history_bytes", "history_sha256", "model_sha256"),
}


def run_section(run: SavedRun, name: str) -> dict[str, Any]:
    """All there is to tell of a run, but its curve and its table."""
    problems, model = list(run.problems), None
    when = "The weights are not there yet: the model is written when the training has come to its end."
    try:
        model = model_file.read(run)
        if model is not None:
            when = f"The weights after {counted(model.iterations, run.history.unit)}." if model.iterations >= 0 else ""
    except RunError as error:
        when = "The weights cannot be shown."
        if (problem := safe(error)) not in problems:
            problems.append(problem)
    return {
        "name": name,
        "status": run.status,
        "note": run.text("note"),
        "facts": _facts(run),
        "ending": _ending(run),
        "problems": problems,
        "figures": _figures(run),
        "layers": weight_images.layers(run, model),
        "when": when,
        "config": _config(run),
        "provenance": [
            *_provenance({k: v for k, v in run.info.items() if k != "seconds" or run.seconds is not None}),
            *([("checksums", _checksums(run, problems))] if run.info else []),
        ],
        "resumed": _resumed(run.info.get("resumed")),
    }


def differences(runs: Sequence[SavedRun]) -> list[tuple[str, list[str]]]:
    """What is not the same in all runs, of the configs and of what computed: a name, and a value a run.

    "?" stands where a run does not tell, and nothing where it does not have the key.
    """
    known, differ = [run.values for run in runs], comparison.differences(runs)
    found = [
        (safe(key), [_value(values[key]) if key in values else "" if values else "?" for values in known])
        for key in differ
    ]
    other = [
        (CALLED[key], [_value(value or "?") for value in values]) for key, values in environment(runs, set(differ))
    ]
    return found + other


def moment(time: datetime.datetime) -> str:
    """A time, to the second."""
    return f"{time.day} {time:%B %Y, %H:%M:%S} UTC"


def number(value: float) -> str:
    """A number to six digits."""
    return f"{value:.6g}"


def _value(value: Any) -> str:
    try:
        text = shown(value)
    except RecursionError:
        return "..."
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"


def _time(value: Any) -> str:
    try:
        return moment(datetime.datetime.fromisoformat(value).astimezone(datetime.UTC))
    except (TypeError, ValueError, OverflowError):
        return _value(value)


def _words(column: str) -> str:
    return column.replace("val_", "validation ")


def _facts(run: SavedRun) -> list[str]:
    """What the run is, in a line: config, sizes, engine, device, when, and how long."""
    form, seconds = run.text("form"), run.seconds
    return [
        _value(fact)
        for fact in (
            run.text("config"),
            run.config.shape.translate(SIGNS) if run.config else run.text("shape"),
            run.text("engine") + (f" ({form})" if form not in ("", "auto") else ""),
            run.texts("device"),
            _time(run.info["started"]) if "started" in run.info else "",
            duration(seconds) if seconds else "",
        )
        if fact
    ]


def _ending(run: SavedRun) -> str:
    """How the run has ended, where there is more to say than that it came to its end."""
    unit, epochs = run.history.unit, run.number("epochs")
    done = counted(len(run.history), unit) + (f" of {epochs:,.0f}" if epochs else "")
    again = f"twolayer train --resume {safe(shlex.quote(str(run.path)))}"
    at, kept = run.number("diverged_at"), run.number("kept")
    if run.status == "completed" and run.info.get("stopped_early") is True and kept:
        return (
            f"Stopped early, after {done}: the weights of the best validation loss, after epoch {kept:,.0f}, are kept."
        )
    return {
        "running": f"Was still going on when this report was written, after {done}.",
        "killed": f"Was killed after {done}. Go on with it by: {again}",
        "interrupted": f"Was interrupted after {done}. Go on with it by: {again}",
        "diverged": f"The loss was no finite number any more{f' in {unit} {at:,.0f}' if at else ''}. "
        "The model holds the last weights that gave a finite one.",
        "failed": f"Failed after {done}: {run.text('error') or 'run.json does not say why'}",
    }.get(run.status, "")


def _figures(run: SavedRun) -> list[dict[str, str]]:
    """The figures in brief: what each is called, its value, and a word on it."""
    unit, rows = run.history.unit, len(run.history)
    epochs, kept = run.number("epochs"), run.number("kept")
    found = [(f"{unit}s", f"{rows:,}", f"of {epochs:,.0f}" if epochs else "")]
    for column, measure in metrics(run).items():
        first, best, at, last = measure.first, measure.best, measure.best_at, measure.last
        if column not in ("loss", "val_loss") or first is None or best is None or last is None:
            continue
        before = "before " if column == "val_loss" else ""  # a row's is that of the weights before it
        some = [(f"best {_words(column)}", number(best), f"{before}{unit} {at:,}")]
        if column == "loss":
            some = [
                ("first loss", number(first), f"{unit} 1"),
                *some,
                ("last loss", number(last), f"{unit} {measure.last_at:,}"),
            ]
        found += some
    where = "after the last update" if kept in (None, float(rows)) else f"after {unit} {kept:,.0f}, the best"
    for column in ("loss", "accuracy", "val_loss", "val_accuracy"):
        if (value := run.number(f"final_{column}")) is not None:
            found.append((f"final {_words(column)}", number(value), where))
    if each := run.each:
        found.append((f"time an {unit}", duration(each), ""))
    return [{"name": name, "value": value, "more": more} for name, value, more in found]


def _config(run: SavedRun) -> list[tuple[str, str, str]]:
    """Every key of the config, its value, and what it means."""
    source = SOURCES.get(str(run.values.get("data.source")))
    return [
        (
            safe(key),
            _value(value),
            (fields[name].description or "").replace("`", "") if (name := key.removeprefix("data.")) in fields else "",
        )
        for key, value in run.values.items()
        for fields in [source.model_fields if source and key.startswith("data.") else Config.model_fields]
    ]


def _provenance(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What run.json says that stands nowhere else on the page."""
    keys = [key for key in CALLED if key in info] + [key for key in info if key not in CALLED and key not in ELSEWHERE]
    return [(CALLED.get(key, _value(key)), _entry(key, info[key])) for key in keys]


def _checksums(run: SavedRun, problems: Sequence[str]) -> str:
    """Which of the run's files are known to be as they were written."""
    if problems:
        return "see the messages above"
    if run.info.get("format") == 1:
        return "unsealed: this version of twolayer kept no checksums of run.json, history.csv and model.safetensors"
    if not run.unsealed:
        return "every file is as it was written"
    rows = f"row {len(run.history) - run.unsealed + 1}" if run.unsealed < len(run.history) else "the first row"
    return f"the history is unsealed from {rows} on: no checkpoint holds a checksum of it yet"


def _entry(key: str, value: Any) -> str:
    if key in ("started", "ended"):
        return _time(value)
    if key == "seconds" and isinstance(value, float) and math.isfinite(value):
        return duration(value)
    if key == "config_sha256" and isinstance(value, list):
        return " ".join(map(_value, value))[:LONGEST]
    return _value(value)


def _resumed(entries: Any) -> list[tuple[str, str, str]]:
    """The continuations: when, after how many iterations, and what was other than at the start."""
    if not isinstance(entries, list):
        return []
    found = []
    for entry in entries:
        if isinstance(entry, dict):
            other = ", ".join(
                f"{CALLED.get(k, _value(k))} {_value(v)}" for k, v in entry.items() if k not in ("at", "iteration")
            )
            found.append((_time(entry.get("at")), _value(entry.get("iteration")), other))
    return found
