"""The title and the legend of a chart: what differs between its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twolayer import formatting
from twolayer.reporting import comparison
from twolayer.reporting.summary import config_name
from twolayer.runs.saved_run import SavedRun

LAST = ("device", "engine", "form", "threads", "precision", "cuda_graph", "log_every")  # these hardly change the losses


def title(runs: Sequence[SavedRun]) -> str:
    """The keys that differ between the runs; for one run its name, config, shape and lr."""
    if len(runs) == 1:
        run, values = runs[0], runs[0].values
        name, config, shape = _short(run.name, 40), _short(config_name(run), 40), _short(run.text("shape"), 40)
        parts = [
            *([config] if config and not name.startswith(config) else []),
            *([shape] if shape else []),
            *([f"lr {_value(values['lr'])}"] if "lr" in values else []),
        ]
        return f"{name}: {', '.join(parts)}" if parts else name
    keys = _keys(runs)
    if not keys:
        same = " of the same config" if all(run.config for run in runs) else ""
        return f"Loss of {len(runs)} runs{same}"
    if len(keys) > 4:
        return f"Loss of {len(runs)} runs"
    return "Loss by " + (", ".join(keys[:-1]) + " and " if keys[:-1] else "") + keys[-1]


def labels(runs: Sequence[SavedRun]) -> list[str]:
    """The entries of the legend: the runs' names, and the values that differ; no two are the same."""
    keys = _distinguishing(runs)[:3]
    shown = {key: _endings([run.values.get(key) for run in runs]) for key in keys}
    found: list[str] = []
    for number_of_run, (run, name) in enumerate(zip(runs, comparison.names(runs), strict=True)):
        values = run.values
        differ = ", ".join(f"{key} {_value(shown[key][number_of_run])}" for key in keys if values.get(key) is not None)
        label = whole = _short(name, 40) + (f": {differ}" if differ else "")
        number = 2
        while label in found:
            label, number = f"{whole} ({number})", number + 1
        found.append(label)
    return found


def _keys(runs: Sequence[SavedRun]) -> list[str]:
    """The keys that differ among the configs that can be read, those that matter most first."""
    differ = comparison.differences([run for run in runs if run.config is not None])
    keys = [key for key, values in differ.items() if key != "log_every" or "auto" not in values]
    return sorted((_short(key, 24) for key in keys), key=lambda key: key in LAST)


def _endings(values: Sequence[Any]) -> list[Any]:
    """The values, absolute paths by their last parts: by as many as it takes to tell them apart."""
    paths = {value: Path(value).parts for value in values if isinstance(value, str) and Path(value).is_absolute()}
    for count in range(1, max(map(len, paths.values()), default=0) + 1):
        short = {value: str(Path(*parts[-count:])) for value, parts in paths.items()}
        if len(set(short.values())) == len(paths):
            return [short.get(value, value) if isinstance(value, str) else value for value in values]
    return list(values)


def _distinguishing(runs: Sequence[SavedRun]) -> list[str]:
    """The same keys, first those whose values together differ between the most runs."""
    keys, first = _keys(runs), list[str]()

    def distinct(chosen: Sequence[str]) -> int:
        return len({tuple(formatting.shown(run.values.get(key)) for key in chosen) for run in runs})

    while rest := [key for key in keys if key not in first]:
        best = max(rest, key=lambda key: distinct([*first, key]))
        if distinct([*first, best]) == distinct(first):
            break
        first.append(best)
    return [*first, *(key for key in keys if key not in first)]


def _value(value: Any) -> str:
    return _short(formatting.shown(value), 24)


def _short(text: str, limit: int) -> str:
    """The text, safe to show; a long one without its middle."""
    text = formatting.shown(text)
    return text if len(text) <= limit else f"{text[: limit // 2 - 1]}…{text[-(limit // 2) :]}"
