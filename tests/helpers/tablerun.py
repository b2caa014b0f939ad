"""A run of a table, made by hand: a network with random weights in a run folder as `train` leaves it."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from twolayer.evaluation.baselines import linear_baseline
from twolayer.evaluation.predictor import Predictor, bundle
from twolayer.runs import checkpoint, folder
from twolayer.runs.checksum import digest
from twolayer.runs.run_files import CONFIG, MODEL
from twolayer.tables.dataset import Table, read
from twolayer.tables.encoding import encode
from twolayer.tables.options import FileData
from twolayer.tables.target_encoding import encode_targets

Numbers = np.ndarray[Any, np.dtype[np.float64]]
CSV = "id,size,colour,weight,price\n" + "".join(
    f"{i:03d},{i * 37 % 101 / 4 - 9},{('red', 'green', 'blue')[i * i % 3 + i % 2]},"
    f"{i * 53 % 97},{100 + i * 37 % 101 / 4 - (i * 53 % 97) / 3 + i * 29 % 13}\n"
    for i in range(60)
)
NEW = "size,colour,weight\n1.5,red,3\n-2,blue,4e1\n0,green,-5\n"


def make_run(
    path: Path,
    text: str = CSV,
    *,
    target: str | list[str] = "price",
    status: str = "completed",
    dtype: str = "float32",
    **data: Any,
) -> Table:
    """Write the run folder; the table that its model is of."""
    file = path.with_name(path.name + ".csv")
    file.write_text(text)
    given = {"source": "file", "path": file.name, "target": target, "exclude": ["id"], **data}
    with chdir(file.parent):
        table = read(FileData(**given), validation=None, seed=0, loss=None, dtype=dtype)
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(table.x.shape[1], 5), nn.ReLU(), nn.Linear(5, table.y.shape[1]))
    model.to(getattr(torch, dtype))
    x, y = torch.from_numpy(table.x), torch.from_numpy(table.y)
    baseline = linear_baseline(x, y, table.columns.classes is not None)
    with folder.create(path, "x") as run:
        run.write(CONFIG, b"")
        run.start_history(("iteration", "loss"))
        if status == "completed":
            tensors = bundle(model, table.columns, baseline)
            columns = table.columns.document()
            model_file = b"".join(checkpoint.pack(tensors, {"iteration": "1", "columns": columns}))
            run.write(MODEL, model_file)
            run.update_info(status=status, model_sha256=digest(model_file))
        else:
            run.update_info(status=status)
    run.close()
    return table


def numbers_of(path: Path, model: Predictor) -> tuple[Numbers, Numbers]:
    """The inputs and the targets of a file, encoded as the model has them."""
    frame = pl.read_csv(path, infer_schema=False)
    return encode(frame, model.columns, path.name), encode_targets(frame, model.columns, path.name)
