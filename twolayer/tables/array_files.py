"""npy, npz and safetensors files -> frames; their headers are checked against the size of the file."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open

from twolayer.tables.unpacking import DEFLATED

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_DAMAGE = (zlib.error, zipfile.BadZipFile, SafetensorError)
_MAX_COLUMNS = 200_000  # each is made one by one
_MAX_HEADER = 2**16  # bytes of an array's header
_ENCRYPTED = 1  # among a zip member's flags


def frames(
    path: Path, suffix: str, check_memory: Callable[[int], None], rows: slice | None = None
) -> dict[str, pl.DataFrame]:
    """The columns of each array, by its name ("" in an .npy), or of these `rows`. Raises ValueError and OSError.

    `check_memory` is called with the number of bytes that they need, before any is allocated; it may raise.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # numpy warns of unusual headers
            arrays = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}[suffix](path, check_memory, rows)
        _check_shapes(arrays)
        return {key: _as_frame(key, array) for key, array in arrays.items()}
    except (TypeError, KeyError, IndexError, EOFError, SyntaxError, NotImplementedError, *_DAMAGE) as error:
        raise ValueError(str(error)) from None


def _check_shapes(arrays: dict[str, Array]) -> None:
    """Raise ValueError if the arrays are not columns of numbers, or are so many that creating them takes minutes."""
    if not arrays:
        raise ValueError("it holds no arrays")
    for key, array in arrays.items():
        what = f"the array {key}" if key else "the array"
        if array.dtype.kind not in "biufUM":
            raise ValueError(f"{what} has the dtype {array.dtype}, not numbers")
        if array.ndim not in (1, 2):
            raise ValueError(f"{what} has the shape {array.shape}; it must be 1-D (rows) or 2-D (rows, columns)")
        if not array.size:
            raise ValueError(f"{what} is empty: its shape is {array.shape}")
    columns = sum(array.shape[1] if array.ndim == 2 else 1 for array in arrays.values())
    if columns > _MAX_COLUMNS:
        raise ValueError(f"it has {columns} columns, more than {_MAX_COLUMNS}")


def _as_frame(key: str, array: Array) -> pl.DataFrame:
    """The columns of an array: `name` if it is 1-D, `name.0`, `name.1`, ... if it is 2-D."""
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype("float32" if array.dtype.itemsize < 4 else "float64")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 1:
        return pl.DataFrame({key or "0": array})
    prefix = f"{key}." if key else ""
    return pl.DataFrame({f"{prefix}{j}": array[:, j] for j in range(array.shape[1])})


def _npy(path: Path, check_memory: Callable[[int], None], rows: slice | None) -> dict[str, Array]:
    size = path.stat().st_size
    with path.open("rb") as file:
        _check_npy(file, size)
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    array = array if rows is None else array[rows]
    check_memory(array.nbytes)  # the file is mapped, and its columns are copies
    return {"": array}


def _npz(path: Path, check_memory: Callable[[int], None], rows: slice | None) -> dict[str, Array]:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.flag_bits & _ENCRYPTED:
                raise ValueError(f"{member.filename} is encrypted")
            if member.compress_size > size or member.file_size > DEFLATED * (member.compress_size + 1):
                raise ValueError(f"{member.filename}: its size is larger than the file can hold")
            with archive.open(member) as file:
                _check_npy(file, member.file_size)
        check_memory(2 * sum(member.file_size for member in archive.infolist()))  # the arrays, and their columns
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] if rows is None else arrays[key][rows] for key in arrays.files}


def _check_npy(file: IO[bytes], size: int) -> None:
    """Raise ValueError if the header gives another size than the file has: nothing is allocated for it."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):  # numpy reads as many bytes as these four say
        start = file.tell()
        if int.from_bytes(file.read(4), "little") > _MAX_HEADER:
            raise ValueError("its header is damaged")
        file.seek(start)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(file)
    except OSError:
        raise
    except Exception:  # noqa: BLE001 the header is Python source, and its parser may raise anything
        raise ValueError("its header is damaged") from None
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read; save numbers")
    claimed, there = dtype.itemsize, size - file.tell()
    for length in shape:
        claimed *= length
    if claimed != there:
        raise ValueError(f"its header gives {claimed} bytes of numbers, and the file has {there}")


def _safetensors(path: Path, check_memory: Callable[[int], None], rows: slice | None) -> dict[str, Array]:
    if rows is None:
        check_memory(2 * path.stat().st_size)  # the arrays, and their columns
    try:
        with safe_open(path, framework="np") as file:
            read = file.get_tensor if rows is None else lambda key: file.get_slice(key)[rows]
            return {key: read(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
    except TypeError as error:  # bfloat16 and the like, which numpy does not have
        raise ValueError(f"{error}; save float32") from None
