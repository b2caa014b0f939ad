"""The rows of a table: all of them in memory, or in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from twolayer.errors import DataError
from twolayer.system import available_memory
from twolayer.tables import codes, notation, unpacked_size
from twolayer.tables.array_files import Array
from twolayer.tables.csv_layout import CsvLayout, scan_csv
from twolayer.tables.file_checks import check_size, reworded
from twolayer.tables.formulas import unquoted
from twolayer.tables.row_errors import check_csv, opened
from twolayer.tables.sources import MISSING, Source

_SAMPLED = 100  # rows that a CSV's types are guessed from
_PART = 2**20  # bytes that are looked at at a time
_NONE: Array = np.array([], dtype=np.int64)


def collect(source: Source, columns: Sequence[str]) -> pl.DataFrame:
    """The columns, in memory, without blank lines; a CSV's types are found from all its rows. Raises DataError."""
    _check_memory(source, columns)
    if source.raw is None:
        with reworded(source.name):
            return source.frame.select(columns).collect()
    problem = None
    for way in _ways(source, columns):
        try:
            with reworded(source.name):
                # All columns: polars counts a row's cells only where it reads them all.
                frame = way.collect()
            break
        except DataError as error:
            problem = error
    else:
        raise _explained(source, problem)
    # Polars fills up short rows, and a blank line is one to it: such a row has no value in the last column.
    blank = _blank_lines(source) if frame[source.names[-1]].null_count() else _NONE
    frame = _without(frame, blank).select(columns)
    if (doubtful := _doubtful(source, frame)) and way is not source.frame:
        with reworded(source.name):
            texts = _without(source.frame.select(doubtful).collect(), blank)
        frame = frame.with_columns(cells for cells in texts if _says_more(cells))
    return _cells(frame, source)


def _says_more(cells: pl.Series) -> bool:
    """Whether text that is all plain numbers says more than these: it is a code, or has points between thousands."""
    distinct = cells.drop_nulls().unique(maintain_order=True).str.strip_chars()
    return codes.find(distinct) is not None or notation.find(distinct).unclear


def _doubtful(source: Source, frame: pl.DataFrame) -> list[str]:
    """The columns of numbers whose text may say more: a zero or a plus in front, or points between thousands."""
    whole = [name for name, dtype in frame.schema.items() if dtype.is_integer()]
    found = whole if whole and _has_codes(source) else []
    return found + [cells.name for cells in frame.get_columns() if cells.dtype.is_float() and _may_be_thousands(cells)]


def _may_be_thousands(cells: pl.Series) -> bool:
    """Whether numbers may be such as 2.542 beside 776: all below 1000, some whole, the others with three decimals."""
    some, every = _of_thousands(cells.head(_SAMPLED)), len(cells) <= _SAMPLED
    return some is not None and (some if every else bool(_of_thousands(cells)))


def _of_thousands(cells: pl.Series) -> bool | None:
    """Whether some are whole; None if one cannot be such a number. In numpy, which takes a column in microseconds."""
    size = np.abs(cells.to_numpy())
    size = size[~np.isnan(size)]
    if not (size < 1000).all():
        return None
    thousandths = size * 1000
    whole = size == np.floor(size)
    three_decimals = np.abs(thousandths - np.rint(thousandths)) < 1e-6  # they round
    return bool(whole.any()) if (three_decimals & (whole | (size >= 1))).all() else None


def _has_codes(source: Source) -> bool:
    """Whether a cell of a CSV begins with a zero before another digit, or with a plus before a digit."""
    if source.csv is None:
        return False
    before = np.zeros(256, dtype=bool)
    before[list(b'\r\n"+- ' + source.csv.delimiter.encode())] = True
    with opened(source.csv.raw) as file:
        end = b"\n"
        while part := file.read(_PART):
            letters = np.frombuffer(end + part, dtype=np.uint8)
            inner = letters[1:-1]
            signs = np.flatnonzero((inner == ord("0")) | (inner == ord("+"))) + 1
            signs = signs[letters[signs + 1] - np.uint8(ord("0")) < 10]
            if before[letters[signs - 1]].any():
                return True
            end = letters[-2:].tobytes()
    return False


def _cells(frame: pl.DataFrame, source: Source) -> pl.DataFrame:
    return unquoted(frame) if source.is_quoted else frame


def batches(source: Source, columns: Sequence[str], size: int) -> Iterator[pl.DataFrame]:
    """The columns, up to `size` rows at a time, without blank lines; a CSV's are text. Raises DataError."""
    frame = source.frame if source.raw is not None else source.frame.select(columns)
    blank: Array | None = None
    first = 0
    parts = frame.collect_batches(chunk_size=size, maintain_order=True)
    while True:
        try:
            with reworded(source.name):
                part = next(parts, None)
        except DataError as error:
            raise _explained(source, error) from None
        if part is None:
            break
        end = first + part.height
        if source.raw is not None and part[source.names[-1]].null_count():
            blank = _blank_lines(source) if blank is None else blank
            part = _without(part, blank[(blank >= first) & (blank < end)] - first)
        first = end
        part = part.select(columns)
        yield _cells(part, source) if source.raw is not None else part
    # If polars fails inside one of its threads, the parts end as if there were no more.
    if source.binary is not None and first != (rows := _rows(source)):
        raise DataError(f"{source.name}: is damaged: only {first} of its {rows} rows can be read")


def _rows(source: Source) -> int:
    """How many rows a Parquet or an Arrow file has, by its metadata. Raises DataError."""
    with reworded(source.name):
        return int(source.frame.select(pl.len()).collect().item())


def _check_memory(source: Source, columns: Sequence[str]) -> None:
    """Raise DataError if the columns cannot fit into memory, before any is read. (Arrays are checked when opened.)"""
    free = available_memory.available()
    if free is None:
        return
    need = 0
    with reworded(source.name):
        if source.raw is not None:
            need = unpacked_size.csv_bytes(source.raw, len(source.names), free)
        elif source.ndjson is not None:
            need = unpacked_size.ndjson_bytes(source.ndjson, len(columns), free)
        elif source.binary is not None:
            schema = source.frame.collect_schema()
            need = _rows(source) * sum(
                count * _width(dtype) for dtype, count in Counter(schema[c] for c in columns).items()
            )
    check_size(need, source.name, free)


def _width(dtype: pl.DataType) -> int:
    """The bytes of a cell in a frame, at least; for text without its letters, which cells may share."""
    if dtype in (pl.String, pl.Binary):
        return 16
    return int(pl.Series([None] * 64, dtype=dtype).estimated_size()) // 64


def _without(frame: pl.DataFrame, rows: Array) -> pl.DataFrame:
    """The frame without these rows, counted from 0."""
    if not len(rows):
        return frame
    kept = np.ones(frame.height, dtype=bool)
    kept[rows] = False
    return frame.filter(pl.Series(kept))


def _explained(source: Source, problem: DataError | None) -> DataError:
    """What to raise when polars has failed: the place of the damage, if that is found."""
    damage = "" if source.csv is None else _check(source.csv, failed=True)[0]
    return DataError(f"{source.name}: {damage or 'cannot be read'}") if damage or problem is None else problem


def _blank_lines(source: Source) -> Array:
    """Which rows of a CSV, as polars counts them from 0, are blank lines. Raises DataError for a damaged row."""
    if source.csv is None:
        return np.array([], dtype=np.int64)
    damage, blank = _check(source.csv)
    if damage:
        raise DataError(f"{source.name}: {damage}")
    return np.array(blank, dtype=np.int64)


def _check(layout: CsvLayout, *, failed: bool = False) -> tuple[str, list[int]]:
    return check_csv(
        layout.raw, layout.delimiter, layout.names,
        failed=failed, skipped=layout.skipped, has_header=layout.has_header,
    )  # fmt: skip


def _ways(source: Source, columns: Sequence[str]) -> Iterator[pl.LazyFrame]:
    """Ways to read a CSV, each to be tried when the ones before it have failed."""
    if source.csv is not None and source.guessed:
        # The first rows show the types. That fails if there is other text further down, most often for a missing
        # value. To look for those from the start would take a quarter longer.
        chosen = set(columns)
        others = {column: pl.String for column in source.names if column not in chosen}
        for marks in (None, list(MISSING)):
            yield scan_csv(
                source.csv,
                infer_schema_length=_SAMPLED,
                schema_overrides=others or None,
                null_values=marks,
            )
    yield source.frame
