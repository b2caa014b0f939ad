"""Files of tables as polars frames: CSV, Parquet, Arrow, NDJSON and arrays. Never imports torch."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open

from twolayer.errors import DataError

# The texts that stand for a missing value, in every format, blanks around them aside.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null")

SEPARATORS = (",", ";", "\t", "|")
_CSV = (".csv", ".tsv", ".txt")
_ARROW = (".arrow", ".feather", ".ipc")
_JSON = (".ndjson", ".jsonl")
_ARRAYS = (".npy", ".npz", ".safetensors")
SUFFIXES = (*_CSV, ".parquet", *_ARROW, *_JSON, *_ARRAYS)

_SAMPLED = 100  # rows that a CSV's types are guessed from
_DEFLATED = 1032  # bytes that a deflated byte holds at most


@dataclass(frozen=True)
class Source:
    """A file that can be read: `frame` reads it when collected, `groups` are the arrays that hold several columns.

    `retries` are other frames of the same, for where `frame` fails; `raw` is set for a CSV, whose types are guessed.
    """

    name: str
    frame: pl.LazyFrame
    names: tuple[str, ...]
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    retries: tuple[pl.LazyFrame, ...] = ()
    raw: Path | bytes | None = None
    separator: str = ","


def open_table(
    path: Path | str, name: str, *, separator: str = "auto", decimal: str = ".", text: bool = False
) -> Source:
    """The file as a frame that is read when it is collected (within `reworded`).

    The suffix says what it is; "-" is a CSV on stdin. The columns of a CSV have the types that its first rows show, or
    with `text` are all text, exactly as it stands there. Raises DataError.
    """
    raw: Path | bytes = sys.stdin.buffer.read() if path == "-" else Path(path)
    if isinstance(raw, Path) and not raw.is_file():
        raise DataError(f"{name}: {'is a folder' if raw.is_dir() else 'no such file'}")
    suffix = ".csv" if isinstance(raw, bytes) else _suffix(raw, name)
    with reworded(name):
        if suffix in _CSV:
            return _open_csv(raw, name, separator, decimal, text=text)
        path = Path(path)
        if suffix in _ARRAYS:
            return _open_arrays(path, name, suffix)
        if suffix in _JSON:
            frame = pl.scan_ndjson(path, infer_schema_length=None)
        else:
            frame = pl.scan_parquet(path, glob=False) if suffix == ".parquet" else pl.scan_ipc(path, glob=False)
        return Source(name, frame, tuple(frame.collect_schema().names()))


def _suffix(path: Path, name: str) -> str:
    *rest, suffix = ["", *(suffix.lower() for suffix in path.suffixes)]
    if suffix == ".gz" and rest[-1] in _CSV:
        return rest[-1]
    if suffix not in SUFFIXES:
        raise DataError(f"{name}: the format is told by the suffix, one of {' '.join(SUFFIXES)}, or .csv.gz")
    return suffix


@contextmanager
def reworded(name: str) -> Iterator[None]:
    """Tell what polars and the system raise as a DataError of one line."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: cannot be read: {getattr(error, 'strerror', '') or _first_line(error)}") from None
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{name}: cannot be read: {_first_line(error)}") from None
    except pl.exceptions.PanicException as error:
        raise DataError(f"{name}: is damaged: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def collect(source: Source, columns: list[str]) -> pl.DataFrame:
    """The columns, in memory; the types of a CSV come of all its rows. Raises DataError."""
    problem = ""
    for way in (source.frame, *source.retries):
        try:
            with reworded(source.name):
                frame = way.select(columns).collect()
            break
        except DataError as error:
            problem = str(error)
    else:
        damage = _damage(source)
        raise DataError(f"{source.name}: {damage}" if damage else problem)
    # Polars fills up short rows; their last columns are what tells them.
    chosen = set(columns)
    last = next(column for column in reversed(source.names) if column in chosen)
    if source.raw is not None and frame[last].null_count() and (damage := _damage(source)):
        raise DataError(f"{source.name}: {damage}")
    return frame


# --- CSV


def _open_csv(raw: Path | bytes, name: str, separator: str, decimal: str, *, text: bool) -> Source:
    with _text(raw) as file:
        start = file.read(1 << 16)
        if not start.strip():
            raise DataError(f"{name}: is empty")
        if separator == "auto":
            separator = _separator(start, decimal)
        file.seek(0)
        try:
            header = next(csv.reader(file, delimiter=separator))
        except (csv.Error, StopIteration):
            raise DataError(f"{name}: the first line holds no columns' names") from None
    if any("\udc80" <= letter <= "\udcff" for letter in "".join(header)):
        raise DataError(f"{name}: is not UTF-8, in its first line")
    _refuse_twice(name, header)
    if decimal == "," and separator == ",":
        raise DataError(f'{name}: the separator cannot be "," where the decimal is')
    everything = _scan_csv(raw, separator, infer_schema=False)
    if text or decimal == ",":
        return Source(name, everything, tuple(header), raw=raw, separator=separator)
    # The first rows tell the types, and mislead where there is other text further down, which most often stands for a
    # missing value. To look for those from the start would take a quarter longer.
    frame = _scan_csv(raw, separator, infer_schema_length=_SAMPLED)
    marked = _scan_csv(raw, separator, infer_schema_length=_SAMPLED, null_values=list(MISSING))
    return Source(name, frame, tuple(header), retries=(marked, everything), raw=raw, separator=separator)


def _refuse_twice(name: str, columns: Sequence[str]) -> None:
    if twice := [column for column, count in Counter(columns).items() if count > 1]:
        shown = ", ".join(twice[:10]) + (f" and {len(twice) - 10} more" if len(twice) > 10 else "")
        raise DataError(f"{name}: every column needs a name of its own, and there are several of: {shown}")


def _scan_csv(raw: Path | bytes, separator: str, **options: Any) -> pl.LazyFrame:
    source = raw if isinstance(raw, Path) else io.BytesIO(raw)
    return pl.scan_csv(source, separator=separator, glob=False, **options)


@contextmanager
def _text(raw: Path | bytes) -> Iterator[IO[str]]:
    """The file as text, a byte-order mark left out, bytes that are not UTF-8 as surrogates."""
    if isinstance(raw, bytes):
        file: Any = io.BytesIO(raw)
    else:
        file = gzip.open(raw) if raw.suffix.lower() == ".gz" else raw.open("rb")  # noqa: SIM115 (closed by what wraps it)
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield text


def _separator(start: str, decimal: str) -> str:
    """The separator that stands most often in the first line, outside of quotes; the comma where there is none."""
    line: list[str] = []
    quoted = False
    for letter in start:
        if letter == '"':
            quoted = not quoted
        elif not quoted:
            if letter in "\r\n" and line:
                break
            line.append(letter)
    return max((s for s in SEPARATORS if s != decimal), key=line.count)


def _damage(source: Source) -> str:
    """What is wrong with the rows of a CSV, the first of it; empty where nothing is."""
    if source.raw is None:
        return ""
    with _text(source.raw) as file:
        rows = csv.reader(file, delimiter=source.separator, strict=True)
        width = len(next(rows))
        number = 0
        try:
            for row in rows:
                if not row:
                    continue  # an empty line is no row
                number += 1
                if len(row) != width:
                    return f"row {number} has {len(row)} cells, and the first line {width}"
                for column, cell in zip(source.names, row, strict=True):
                    if not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell):
                        return f"row {number}, column {column}: is not UTF-8; save the file as UTF-8"
        except csv.Error as error:
            return f"row {number + 1}: {_csv_error(error)}"
    return ""


def _csv_error(error: csv.Error) -> str:
    return "a quote is opened and not closed" if "end of data" in str(error) else str(error)


# --- arrays


def _open_arrays(path: Path, name: str, suffix: str) -> Source:
    try:
        arrays = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}[suffix](path)
        pieces = [_as_frame(key, array) for key, array in arrays.items()]
    except (
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        SyntaxError,
        NotImplementedError,
        zlib.error,
        SafetensorError,
        zipfile.BadZipFile,
    ) as error:
        raise DataError(f"{name}: cannot be read: {_first_line(error)}") from None
    heights = {key: piece.height for key, piece in zip(arrays, pieces, strict=True)}
    if len(set(heights.values())) > 1:
        told = ", ".join(f"{key} has {height}" for key, height in islice(heights.items(), 5))
        raise DataError(f"{name}: the arrays must have the same number of rows: {told}")
    groups = {key: tuple(p.columns) for key, p in zip(arrays, pieces, strict=True) if p.columns != [key]}
    names = [column for piece in pieces for column in piece.columns]
    _refuse_twice(name, names)
    frame = pl.concat(pieces, how="horizontal") if pieces else pl.DataFrame()
    return Source(name, frame.lazy(), tuple(names), groups)


def _as_frame(key: str, array: np.ndarray[Any, Any]) -> pl.DataFrame:
    """An array's columns: its own name where it is 1-D, `name.0`, `name.1`, ... where it is 2-D."""
    what = f"the array {key}" if key else "the array"
    if array.dtype.kind not in "biufUM":
        raise ValueError(f"{what} holds {array.dtype}, not numbers")
    if array.ndim not in (1, 2):
        raise ValueError(f"{what} has the shape {array.shape}, and must have rows, or rows and columns")
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype("float32" if array.dtype.itemsize < 4 else "float64")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 1:
        return pl.DataFrame({key or "0": array})
    prefix = f"{key}." if key else ""
    return pl.DataFrame({f"{prefix}{j}": array[:, j] for j in range(array.shape[1])})


def _npy(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with path.open("rb") as file:
        _check_npy(file, path.stat().st_size)
    return {"": np.load(path, mmap_mode="r", allow_pickle=False)}


def _npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_size > size or member.file_size > _DEFLATED * (member.compress_size + 1):
                raise ValueError(f"{member.filename} claims more than the file holds")
            with archive.open(member) as file:
                _check_npy(file, member.file_size)
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def _check_npy(file: IO[bytes], size: int) -> None:
    """Raise ValueError where the header claims another size than there is: nothing is allocated for it."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read: save numbers")
    claimed, there = dtype.itemsize, size - file.tell()
    for length in shape:
        claimed *= length
    if claimed != there:
        raise ValueError(f"its header claims {claimed} bytes of numbers, and there are {there}")


def _safetensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with safe_open(path, framework="np") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
    except TypeError as error:  # bfloat16 and the like, which numpy does not have
        raise ValueError(f"{error}; save float32") from None
