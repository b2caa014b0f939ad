"""A model card, as Markdown: what a model predicts, from what, how good it is, how to use it, what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twolayer.config.schema import Config
from twolayer.errors import DataError
from twolayer.evaluation.known_rows import KEY, row_sums
from twolayer.evaluation.predictor import load_model
from twolayer.evaluation.remarks import few_rows, noise
from twolayer.evaluation.scores import Row, Scores
from twolayer.exporters.network import Network, may_be_missing
from twolayer.formatting import counted, safe, shown, with_error
from twolayer.runs.run_files import read_info
from twolayer.runs.saved_run import load_config
from twolayer.runs.table_paths import moved
from twolayer.tables import dataset
from twolayer.tables.features import Encoding, Feature
from twolayer.tables.options import FileData

_CATEGORIES, _COLUMNS = 12, 200  # that are listed


@dataclass(frozen=True)
class Measured:
    """The scores of a model on the rows that were held out; or why there are none."""

    rows: int = 0
    table: Sequence[Row] = ()
    why_not: str = ""


def dump(run: Path, network: Network) -> tuple[bytes, list[str]]:
    """The card of a run's network, or of a model file's, and sentences on what could not be said in it."""
    info = read_info(run) if run.is_dir() else {}
    config = load_config(run, info.get("config_sha256")) if info else None
    measured = _measured(run, info, config, network)
    quality = [] if network.columns is None else _quality(measured, config)
    lines = [
        *_what(network),
        *_training(info, config, network),
        *quality,
        *_use(network),
        *_limits(network),
    ]
    notes = [f"no scores in the card: {measured.why_not}"] if measured.why_not and network.columns is not None else []
    return ("\n".join(lines) + "\n").encode(), notes


def _measured(run: Path, info: Mapping[str, Any], config: Config | None, network: Network) -> Measured:
    """The scores on the validation rows, if the table is still the one of the training."""
    if config is None or not isinstance(config.data, FileData):
        return Measured(why_not="a model file alone does not say on which rows it was trained")
    if config.validation is None:
        return Measured(why_not="no rows were held out")
    places = moved(run, info, config)
    data = config.data.model_copy(update={"path": places.get("data.path", config.data.path)})
    validation = places.get("validation", config.validation)
    try:
        table = dataset.read(data, validation=validation, seed=config.seed, loss=config.loss, dtype=config.dtype)
    except DataError:
        return Measured(why_not="the table of the training cannot be read")
    if table.x_validation is None or table.y_validation is None:
        return Measured(why_not="no rows were held out")
    held = table.x_validation, table.y_validation
    sums = row_sums({"training": (table.x, table.y), "validation": held})
    if info.get(KEY) != sums:
        return Measured(why_not="the table is not the one that the run was trained on")
    model = load_model(run)
    x, y = (array.astype("float64") for array in held)
    if model.columns.classes is None:
        y = y * model.target_deviation.numpy() + model.target_mean.numpy()
    scores = Scores(model)
    scores.add(x, y)
    return Measured(scores.rows, scores.table())


# --- the parts of the card


def _what(network: Network) -> Iterator[str]:
    columns, (D_in, H, D_out) = network.columns, network.shape
    if columns is None:
        yield from ("# A two-layer network", "")
        yield f"It maps x (rows, {D_in}) to y (rows, {D_out}), and was trained on data that were drawn, not on a table."
    else:
        names = ", ".join(_cell(target.column) for target in columns.targets[:5])
        yield from (f"# Predictions of {names}{' and others' if len(columns.targets) > 5 else ''}", "")
        yield f"From {counted(len(columns.kinds), 'column')} of a table, by a two-layer network."
    yield ""
    yield f"Linear, ReLU, Linear: D_in {D_in}, H {H}, D_out {D_out}, in {network.dtype}."
    yield f"`model.safetensors` has the SHA-256 `{network.sha256}`."
    if columns is not None:
        yield from ("", "## What it predicts", "")
        yield from _targets(columns)
        yield from ("", "## From which columns", "")
        rows = ((column, *_input(columns, column, features)) for column, features in columns.groups[:_COLUMNS])
        yield from _table(("column", "what it is", "in training", "a missing value"), rows)
        if len(columns.groups) > _COLUMNS:
            yield from ("", f"And {len(columns.groups) - _COLUMNS} more.")


def _targets(columns: Encoding) -> Iterator[str]:
    if columns.classes is not None:
        classes = ", ".join(map(_cell, columns.classes))
        yield f"The class of {_cell(columns.targets[0].column)}, and the probability of each: {classes}."
        return
    rows = []
    for target in columns.targets:
        form = columns.notation(target.column)
        scaled = (target.mean, target.deviation) != (0, 1)
        spread = (f"{target.mean:.6g}", f"{target.deviation:.6g}") if scaled else ("not scaled", "")
        rows.append((target.column, *spread, form.example if form is not None else ""))
    yield from _table(("target", "mean in training", "standard deviation", "written like"), rows)


def _input(columns: Encoding, column: str, features: tuple[Feature, ...]) -> tuple[str, str, str]:
    """What a column is, how it was in training, and what becomes of a missing value."""
    kind, form, first = columns.kinds[column], columns.notation(column), features[0]
    is_scaled = (first.mean, first.deviation) != (0, 1)
    spread = f"mean {first.mean:.6g}, standard deviation {first.deviation:.6g}" if is_scaled else ""
    missing = "the mean takes its place"
    what = kind if form is None else f"number, written like {form.example}"
    if kind == "category":
        names = [str(feature.category) for feature in features if feature.category is not None]
        more = f" and {len(names) - _CATEGORIES} more" if len(names) > _CATEGORIES else ""
        what = f"{len(names)} categories"
        spread, missing = ", ".join(names[:_CATEGORIES]) + more, "no category"
    elif kind == "date":
        what = "time of day" if columns.orders.get(column) == "time" else "date"
        spread = "used: " + ", ".join(dict.fromkeys(str(f.part).partition(" ")[0] for f in features if f.part))
    if not may_be_missing(columns, features):
        missing = "refused"
    elif features[-1].kind == "missing":
        missing += ", and is marked"
    return what, spread, missing


def _training(info: Mapping[str, Any], config: Config | None, network: Network) -> Iterator[str]:
    yield from ("", "## How it was trained", "")
    if config is None:
        yield "The model file alone does not say."
        return
    parts = info.get(KEY)
    if isinstance(parts, dict) and network.columns is not None:
        counts = {name: part.get("rows") for name, part in parts.items() if isinstance(part, dict)}
        held = counts.get("validation")
        yield f"On {counts.get('training')} rows" + (
            f"; {held} more were held out." if held else "; none were held out."
        )
    else:
        yield f"On {counted(config.N, 'row')}."
    rows = [
        ("loss", f"{config.loss}, {config.reduction}"),
        ("learning rate", shown(config.lr)),
        (f"{config.unit}s", shown(info.get("iterations", config.epochs))),
        ("batch size", "all rows" if config.batch_size is None else shown(config.batch_size)),
        ("weights", config.weights),
        ("seed", shown(config.seed)),
        ("engine", config.engine_name),
    ]
    names = {"final_loss": "loss at the end", "final_val_loss": "the same of the rows held out"}
    rows += [(text, f"{info[key]:.6g}") for key, text in names.items() if isinstance(info.get(key), float)]
    versions = ", ".join(f"{name} {info[name]}" for name in ("twolayer", "torch") if isinstance(info.get(name), str))
    yield from ("", *_table(("", ""), [*rows, ("versions", versions)]))


def _quality(measured: Measured, config: Config | None) -> Iterator[str]:
    yield from ("", "## How good it is", "")
    if measured.why_not:
        yield f"Not measured: {measured.why_not}. `twolayer evaluate` measures it on a table."
        return
    chosen = ", by which the epoch of the weights was chosen" if config is not None and config.patience else ""
    yield f"On the {counted(measured.rows, 'row')} that were held out{chosen}, beside a linear model and a constant:"
    names = list(dict.fromkeys(score for row in measured.table for score in row.figures))
    several = len({row.target for row in measured.table}) > 1
    rows = []
    for row in measured.table:
        figures = [row.figures.get(name) for name in names]
        cells = ["" if f is None or f.value is None else with_error(f.value, f.error) for f in figures]
        rows.append((*([row.target or "all"] if several else []), row.model, *cells))
    yield from ("", *_table((*(["target"] if several else []), "model", *names), rows))
    remarks = [*few_rows(measured.rows, list(measured.table)), *noise(list(measured.table))]
    yield from (line for remark in remarks for line in ("", f"{_cell(remark)}."))


def _use(network: Network) -> Iterator[str]:
    yield from ("", "## How to use it", "", "```console")
    if network.columns is not None:
        yield "twolayer predict model.safetensors new.csv -o predicted.csv"
    yield "twolayer export model.safetensors -o model.onnx     # or model.json, or predict.py: without twolayer"
    yield "```"


def _limits(network: Network) -> Iterator[str]:
    yield from ("", "## What it cannot do", "")
    if network.columns is None:
        yield "- It was trained on drawn numbers: it says nothing about anything in the world."
        return
    yield "- Of rows unlike those of its training it knows nothing: other times, places or ways of measuring."
    kinds = set(network.columns.kinds.values())
    if kinds & {"number", "date"}:
        yield "- Beyond the numbers and dates of the training it goes on in straight lines, without a warning."
    if "category" in kinds:
        yield "- A category that it does not know counts as no category."
    yield "- That a column helps to predict does not make it a cause."
    if network.columns.classes is not None:
        yield "- Its probabilities were not calibrated on rows of their own."
    yield "- Whether it is equally good for all groups of people or things was not measured."


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    yield from ("| " + " | ".join(map(_cell, row)) + " |" for row in rows)


def _cell(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"[\\`*{}\[\]<>#|~&]|\b_|_\b", lambda found: f"\\{found[0]}", safe(text))
