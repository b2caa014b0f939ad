"""How version 0.1.0 read a table: with these keys this version reads it so, too."""

from __future__ import annotations

import polars as pl

from twolayer.tables.encoding import by_name
from twolayer.tables.options import FileData
from twolayer.tables.readers import collect
from twolayer.tables.roles import select_columns
from twolayer.tables.sources import open_table
from twolayer.tables.survey import read_columns


def keys_of_0_1_0(data: FileData) -> dict[str, str | list[str]]:
    """The keys of `data` with which a table is read as version 0.1.0 read it. Raises DataError.

    That version took the first line for the names, left no column out, knew no dates and no notation but the decimal
    comma, and took text of a CSV that is a plain number for one, also with zeros in front; all other text was
    categories.
    """
    source = open_table(data.path, data.path, separator=data.separator, decimal=data.decimal, header="first")
    inputs, targets = select_columns(source, data)
    frame = collect(source, [*inputs, *targets])
    given = by_name(frame)
    texts = [name for name, cells in given.items() if cells.dtype == pl.String]
    columns = read_columns(frame, texts, data)
    plain = [name for name in texts if source.csv is not None and _are_plain(given[name])]
    others = [name for name in texts if name not in plain and columns[name].kind != "category"]
    numbers = [name for name in plain if columns[name].code]
    found: dict[str, str | list[str]] = {"inputs": inputs, "numbers": numbers, "thousands": "none"}
    if source.csv is not None:
        found["header"] = "first"
    return found | ({} if data.decimal == "," else {"categories": others})


def _are_plain(cells: pl.Series) -> bool:
    return cells.cast(pl.Float64, strict=False).null_count() == cells.null_count()
