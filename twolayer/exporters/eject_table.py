"""Scripts for tables: the reading, encoding and scaling of a file in plain polars and numpy, then the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from twolayer.config.schema import Config
from twolayer.errors import DataError
from twolayer.exporters import eject_epochs
from twolayer.exporters.eject_reading import FUNCTIONS, facts
from twolayer.exporters.eject_source import constant, fill, learning_rates, literal, paragraphs, place
from twolayer.tables.dataset import Table
from twolayer.tables.options import FileData

# `conditions|text`: see `eject_source.fill`.
_IMPORTS = """
             |$standard
             |
             |import numpy as np
             |import polars as pl
             |import torch
load         |from safetensors.numpy import load_file
             |from torch import nn
"""

_ROWS = """
             |x, y = read(TABLE)
other        |x_val, y_val = read(VALIDATION)
held         |# The rows that are held out for validation, drawn with the seed.
held         |held = torch.zeros(len(x), dtype=torch.bool)
held         |rng = np.random.default_rng([$seed, 1])
held not-by-class|held[rng.choice(len(x), $count, replace=False, shuffle=False)] = True
by-class     |rng.random(len(CLASSES))  # which decided how shares were rounded
by-class     |for k, count in enumerate(HELD):
by-class     |    held[rng.choice(np.flatnonzero(y == k), count, replace=False, shuffle=False)] = True
held         |x, y, x_val, y_val = x[~held], y[~held], x[held], y[held]
"""

_SIZES = """
             |torch.set_num_threads($threads)  # with another number, sums are rounded otherwise
tf32         |torch.backends.cuda.matmul.fp32_precision = "tf32"
             |torch.manual_seed($seed)
gpu          |x, y = x.to("$device"), y.to("$device")
gpu validation|x_val, y_val = x_val.to("$device"), y_val.to("$device")
             |N, D_in, H, D_out = len(x), x.shape[1], $H, $D_out
not-auto     |lr, epochs = $lr, $epochs
auto         |lr, epochs = LEARNING_RATES[0], $epochs
"""

_MODEL = """
normal       |# The weights start standard normal, the biases at zero.
normal       |start = {"0.weight": torch.randn(H, D_in), "0.bias": torch.zeros(H)}
normal       |start |= {"2.weight": torch.randn(D_out, H), "2.bias": torch.zeros(D_out)}
             |model = nn.Sequential(nn.Linear(D_in, H), nn.ReLU(), nn.Linear(H, D_out))
normal       |model.load_state_dict(start)
moved        |model.to($to)
"""


def script(config: Config, style: str, rates: Mapping[int, float] | None, table: Table) -> str:
    """The script of a training on a table, without its docstring; `rates` as in `eject_drawn.script`.

    Raises DataError where such a script would not read the table as the training does.
    """
    data = config.data
    if not isinstance(data, FileData):
        raise TypeError("the data are drawn")
    known = facts(config, data, table)
    flags, values = _given(config, style, data, table)
    flags, values = flags | known.flags, values | known.values
    values["standard"] = eject_epochs.imports(flags, *known.standard)
    flags |= {"load"} if known.others else set()
    reading = "\n\n\n".join((fill(FUNCTIONS, flags, values), fill(_ROWS, flags, values)))
    imports = fill(_IMPORTS, flags, values)
    if "by-class" in flags and table.y_validation is not None:
        counts = table.y_validation.sum(0).astype(int).tolist()
        known.constants.append(constant("HELD", counts, "rows of each class for validation: its share, rounded"))
    _check(f"{imports}\n" + "\n".join([*known.constants, reading]), data.path, table)
    constants = "\n".join([*known.constants, *([] if rates is None else [learning_rates(rates)])])
    rest = [fill(_SIZES, flags, values), fill(_MODEL, flags, values)]
    functions = f"\n{eject_epochs.functions(config, style)}\n"
    return paragraphs(imports, constants + "\n", reading, *rest, functions, eject_epochs.loop(config, style))


def _given(config: Config, style: str, data: FileData, table: Table) -> tuple[set[str], dict[str, object]]:
    is_held = isinstance(config.validation, float)
    is_by_class = is_held and table.columns.classes is not None and data.stratify
    given = {
        "other": isinstance(config.validation, str),
        "held": is_held,
        "by-class": is_by_class,
        "normal": config.init == "normal",
        "moved": config.device != "cpu" or config.dtype != "float32",
        "gpu": config.device != "cpu",
        "tf32": config.precision == "tf32" and config.device.startswith("cuda"),
    }
    flags = eject_epochs.flags_of(config, style) | {name for name, is_set in given.items() if is_set}
    count = max(1, round(config.validation * table.rows)) if isinstance(config.validation, float) else 0
    return flags, {
        **{key: getattr(config, key) for key in ("H", "D_out", "epochs", "seed", "threads", "device")},
        "lr": literal(config.lr),
        "count": count,
        "to": place(config),
    }


def _check(source: str, name: str, table: Table) -> None:
    """Raise DataError unless this source, the first part of a script, makes of the file what was trained on.

    The rules by which twolayer reads tables are more than a script can show: this finds the tables that need others.
    """
    found: dict[str, Any] = {}
    try:
        exec(compile(source, "script", "exec"), found)  # noqa: S102 our own source, whose constants are literals
    except Exception as error:  # noqa: BLE001 polars and numpy raise errors of many types
        raise _unlike(name, str(error).split("\n")[0]) from None
    pairs = [(found["x"], table.x), (found["y"], table.y)]
    if table.x_validation is not None and table.y_validation is not None:
        pairs += [(found["x_val"], table.x_validation), (found["y_val"], table.y_validation)]
    for ours, theirs in pairs:
        expected = torch.from_numpy(theirs)
        if ours.dtype == torch.int64:
            expected = expected.argmax(1)
        if ours.shape != expected.shape or not torch.equal(ours, expected):
            raise _unlike(name, "it would read other numbers")


def _unlike(name: str, reason: str) -> DataError:
    return DataError(
        f"{name}: a plain script cannot read this table as the training does ({reason}); save it as Parquet, with its "
        "numbers as numbers, and train on that"
    )
