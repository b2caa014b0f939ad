"""The report's section on one run: its texts, every one safe to show."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twolayer.config.schema import SOURCES, Config
from twolayer.errors import RunError
from twolayer.formatting import counted, duration, safe, shown
from twolayer.reporting import comparison
from twolayer.reporting.fold_scores import FoldTable, fold_table
from twolayer.reporting.html import weight_images
from twolayer.reporting.html.weight_images import LayerSection
from twolayer.reporting.summary import config_name, metrics, within
from twolayer.runs import model_file
from twolayer.runs.saved_run import SavedRun
from twolayer.system.console import shell_words

LONGEST = 4000  # characters of a value that are shown
SIGNS = {ord("x"): "\u00d7", ord(">"): "\u2192", ord("-"): ""}  # of a shape: 64 x 1000 -> 100 -> 10

# The keys of run.json in the order of the page, and their names there; other keys come after these.
LABELS = {
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
    "row_sums": "rows, sums of hashes",
}
SHOWN_ELSEWHERE = {  # on the page
    *("format", "status", "note", "resumed", "iterations", "epochs", "shape", "lr", "seed", "kept", "stopped_early"),
    *("updates", "updates_per_epoch"),
    *("first_loss", "best_loss", "last_loss", "diverged_at", "error"),
    *("final_loss", "final_accuracy", "final_val_loss", "final_val_accuracy"),
    *("history_bytes", "history_sha256", "model_sha256", "folds"),
}


@dataclass(frozen=True)
class Figure:
    """One number of the summary: its name, its value, and a remark."""

    name: str
    value: str
    remark: str


@dataclass(frozen=True)
class ConfigKey:
    """A key of the config, its value, and what it means."""

    key: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Resumed:
    """When a run was resumed, after how many iterations, and what was different from the start."""

    at: str
    after: str
    changes: str


@dataclass(frozen=True)
class RunSection:
    """All that the page shows of a run, except its rows; `colour` is that of its curve, empty without one."""

    name: str
    status: str
    colour: str
    note: str
    facts: list[str]
    ending: str
    problems: list[str]
    figures: list[Figure]
    folds: FoldTable | None
    layers: list[LayerSection]
    weights: str  # what the images of the weights show, or why there are none
    config: list[ConfigKey]
    provenance: list[tuple[str, str]]
    resumed: list[Resumed]


def run_section(run: SavedRun, name: str, colour: str) -> RunSection:
    """The section on a run, which has this name and colour on the page."""
    problems, model = list(run.problems), None
    weights = "There are no weights yet: the model is written when the training ends."
    try:
        model = model_file.read(run)
        if model is not None:
            after = f"The weights after {counted(model.iterations, run.history.unit)}."
            weights = after if model.iterations >= 0 else ""
    except RunError as error:
        weights = "The weights cannot be shown."
        if (problem := safe(error)) not in problems:
            problems.append(problem)
    known = {key: value for key, value in run.info.items() if key != "seconds" or run.seconds is not None}
    return RunSection(
        name=name,
        status=run.status,
        colour=colour,
        note=run.text("note"),
        facts=_facts(run),
        ending=_ending(run),
        problems=problems,
        figures=_figures(run),
        folds=fold_table(run.info),
        layers=weight_images.layers(run, model),
        weights=weights,
        config=_config(run),
        provenance=[*_provenance(known), *([("checksums", _checksums(run, problems))] if run.info else [])],
        resumed=_resumed(run.info.get("resumed")),
    )


def differences(runs: Sequence[SavedRun]) -> list[tuple[str, list[str]]]:
    """What differs in configs and environments: a name, and a value for each run.

    The value is "?" where it is unknown, and empty where the run does not have the key.
    """
    all_values, differ = [run.values for run in runs], comparison.differences(runs)
    found = []
    for key in differ:
        cells = [_value(values[key]) if key in values else "" if values else "?" for values in all_values]
        found.append((safe(key), cells))
    for key, texts in comparison.environment(runs, set(differ)):
        found.append((LABELS[key], [_value(text or "?") for text in texts]))
    return found


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
    """The line below the name: config, shape, engine, device, start and duration."""
    form, seconds = run.text("form"), run.seconds
    return [
        _value(fact)
        for fact in (
            config_name(run),
            run.config.shape.translate(SIGNS) if run.config else run.text("shape"),
            run.text("engine") + (f" ({form})" if form not in ("", "auto") else ""),
            run.texts("device"),
            _time(run.info["started"]) if "started" in run.info else "",
            duration(seconds) if seconds else "",
        )
        if fact
    ]


def _ending(run: SavedRun) -> str:
    """How the run ended, where it did not simply complete."""
    unit, epochs = run.history.unit, run.number("epochs")
    done = counted(len(run.history), unit) + (f" of {epochs:,.0f}" if epochs else "") + within(run)
    again = f"twolayer train --resume {safe(shell_words([str(run.path)]))}"
    at, kept = run.number("diverged_at"), run.number("kept")
    if run.status == "completed" and run.info.get("stopped_early") is True and kept:
        return (
            f"Stopped early, after {done}: the weights of the best validation loss, after epoch {kept:,.0f}, are kept."
        )
    return {
        "running": f"Was still running when this report was written, after {done}.",
        "killed": f"Was killed after {done}. Resume it with: {again}",
        "interrupted": f"Was interrupted after {done}. Resume it with: {again}",
        "diverged": f"The loss was not finite{f' in {unit} {at:,.0f}' if at else ''}. "
        "The model holds the last weights that gave a finite loss.",
        "failed": f"Failed after {done}: {run.text('error') or 'run.json does not say why'}",
    }.get(run.status, "")


def _figures(run: SavedRun) -> list[Figure]:
    """The numbers of the summary."""
    unit, rows = run.history.unit, len(run.history)
    epochs, kept = run.number("epochs"), run.number("kept")
    found = [(f"{unit}s", f"{rows:,}", f"of {epochs:,.0f}" if epochs else "")]
    for column, measure in metrics(run).items():
        first, best, at, last = measure.first, measure.best, measure.best_at, measure.last
        if column not in ("loss", "val_loss") or first is None or best is None or last is None:
            continue
        before = (
            "before " if column == "val_loss" else ""
        )  # a row's is that of the weights, or their average, before it
        some = [(f"best {_words(column)}", number(best), f"{before}{unit} {at:,}")]
        if column == "loss":
            some = [
                ("first loss", number(first), f"{unit} 1"),
                *some,
                ("last loss", number(last), f"{unit} {measure.last_at:,}"),
            ]
        found += some
    is_averaged = run.config is not None and run.config.average is not None
    end = "weights averaged over epochs" if is_averaged else "after the last update"
    where = end if kept in (None, float(rows)) else f"after {unit} {kept:,.0f}, the best"
    for column in ("loss", "accuracy", "val_loss", "val_accuracy"):
        if (value := run.number(f"final_{column}")) is not None:
            found.append((f"final {_words(column)}", number(value), where))
    if each := run.each:
        found.append((f"time per {unit}", duration(each), ""))
    return [Figure(*figure) for figure in found]


def _config(run: SavedRun) -> list[ConfigKey]:
    """Every key of the config."""
    source = SOURCES.get(str(run.values.get("data.source")))
    found = []
    for key, value in run.values.items():
        fields = source.model_fields if source and key.startswith("data.") else Config.model_fields
        field = fields.get(key.removeprefix("data."))
        meaning = (field.description or "").replace("`", "") if field is not None else ""
        found.append(ConfigKey(safe(key), _value(value), meaning))
    return found


def _provenance(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The entries of run.json that the page does not show elsewhere."""
    keys = [key for key in LABELS if key in info]
    keys += [key for key in info if key not in LABELS and key not in SHOWN_ELSEWHERE]
    return [(LABELS.get(key, _value(key)), _entry(key, info[key])) for key in keys]


def _checksums(run: SavedRun, problems: Sequence[str]) -> str:
    """What is known of the checksums of the run's files."""
    if problems:
        return "see the messages above"
    if run.info.get("format") == 1:
        return "unsealed: this version of twolayer kept no checksums of run.json, history.csv and model.safetensors"
    if not run.unsealed:
        return "all files match"
    rows = f"row {len(run.history) - run.unsealed + 1}" if run.unsealed < len(run.history) else "the first row"
    return f"the history is unsealed from {rows} on: no checkpoint has a checksum of it yet"


def _entry(key: str, value: Any) -> str:
    if key in ("started", "ended"):
        return _time(value)
    if key == "seconds" and isinstance(value, float) and math.isfinite(value):
        return duration(value)
    if key == "row_sums" and isinstance(value, dict):
        return ", ".join(f"{_value(name)} {_value(part['sum'])}" for name, part in value.items() if _has_sum(part))
    if key == "config_sha256" and isinstance(value, list):
        return " ".join(map(_value, value))[:LONGEST]
    return _value(value)


def _has_sum(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("sum"), str)


def _resumed(entries: Any) -> list[Resumed]:
    """The entries of `resumed` in run.json."""
    found = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            changes = [(key, value) for key, value in entry.items() if key not in ("at", "iteration")]
            text = ", ".join(f"{LABELS.get(key, _value(key))} {_value(value)}" for key, value in changes)
            found.append(Resumed(_time(entry.get("at")), _value(entry.get("iteration")), text))
    return found
