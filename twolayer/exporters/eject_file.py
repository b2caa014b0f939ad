"""How a script opens the file of its table: the lines of polars or numpy that do it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from twolayer.errors import DataError
from twolayer.exporters.eject_source import call, constant, literal
from twolayer.tables.file_kind import PACKED, format_of, kind_of
from twolayer.tables.options import FileData, table_suffix
from twolayer.tables.sources import Source

_READERS = {"csv": "read_csv", "parquet": "read_parquet", "arrow": "read_ipc", "ndjson": "read_ndjson"}
_READERS |= {"json": "read_json", "excel": "read_excel"}
_SUFFIXES = {".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson"}  # of packed tables; all others are CSV
_OPENERS = {"gzip": "gzip", "bz2": "bz2", "xz": "lzma"}  # modules whose `open` unpacks
_UNPACKED = ("gzip", "zstd")  # what polars unpacks itself, of CSV

_ARRAYS = """    columns = {}
    for key, array in $load(path).items():
        shape = array.shape
        names = [key] if array.ndim == 1 else [f"{key}.{j}" for j in range(shape[1])]
        columns |= zip(names, array.reshape(len(array), -1).T)
    table = pl.DataFrame(columns)"""


@dataclass(frozen=True)
class Opening:
    """The lines of a function that make `table` of `path`; imports of the standard library and others; constants."""

    lines: str
    standard: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()


def opening(source: Source, data: FileData) -> Opening:
    """The lines that open this file. Raises DataError for a file that would take more than some lines."""
    path = Path(data.path)
    with path.open("rb") as file:
        start = file.read(4096)
    kind, suffix = kind_of(start), table_suffix(path.name)
    form = format_of(path, kind, suffix, start)
    if form == "arrays":
        return _arrays(path, kind, source)
    if form is None:
        form = "csv" if source.csv is not None else _SUFFIXES.get(suffix or "", "")
    if source.csv is not None:
        form = "csv"
    if form not in _READERS:
        raise _refused(data.path)
    if kind not in PACKED or form == "excel" or (form == "csv" and kind in _UNPACKED):
        return _polars(form, "path", source, data, encoding=kind if kind.startswith("utf-1") else "")
    if kind not in _OPENERS:
        raise _refused(data.path)
    module = _OPENERS[kind]
    found = _polars(form, f"{module}.open(path)", source, data)
    return Opening(found.lines, (module,), constants=found.constants)


def _refused(name: str) -> DataError:
    return DataError(
        f"{name}: a plain script has no line that opens such a file; unpack it, or save it as CSV or Parquet"
    )


def _polars(form: str, file: str, source: Source, data: FileData, encoding: str = "") -> Opening:
    """A call of polars' reader of this format."""
    arguments, constants = [file], []
    if form == "csv" and (layout := source.csv) is not None:
        arguments.append("infer_schema=False")
        if layout.delimiter != ",":
            arguments.append(f"separator={literal(layout.delimiter)}")
        if encoding:
            arguments.append(f"encoding={literal(encoding)}")
        if layout.skipped:
            arguments.append(f"skip_lines={layout.skipped}")
        if not layout.has_header:
            arguments += ["has_header=False", "new_columns=NAMES"]
            constants.append(constant("NAMES", list(layout.names)))
    if form == "excel":
        if data.sheet is not None:
            arguments.append(f"sheet_name={literal(data.sheet)}")
        if data.header == "none":
            raise _refused(data.path)
    reader = call(f"table = pl.{_READERS[form]}", arguments, 4)
    return Opening(f"    {reader}", constants=tuple(constants))


def _arrays(path: Path, kind: str, source: Source) -> Opening:
    """The arrays of an .npy, .npz or .safetensors as columns."""
    if kind == "npy":
        names = f"[str(j) for j in range({len(source.names)})]" if len(source.names) > 1 else '["0"]'
        return Opening("    " + call("table = pl.DataFrame", ["np.load(path)", f"schema={names}", 'orient="row"'], 4))
    is_numpy = path.suffix.lower() == ".npz"
    imports = () if is_numpy else ("from safetensors.numpy import load_file",)
    return Opening(_ARRAYS.replace("$load", "np.load" if is_numpy else "load_file"), others=imports)


def has_nan(frame: pl.DataFrame) -> bool:
    """Whether a column of the frame has NaN, which is a missing value here."""
    return any(cells.dtype.is_float() and bool(cells.is_nan().any()) for cells in frame.get_columns())
