"""Files of arrays as frames, with nothing believed of what their headers claim. Never imports torch."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

SUFFIXES = (".npy", ".npz", ".safetensors")
_DAMAGE = (zlib.error, zipfile.BadZipFile, SafetensorError)
_DEFLATED = 1032  # bytes that a deflated byte holds at most
_MOST_COLUMNS = 200_000  # each is made one by one


def frames(path: Path, suffix: str) -> dict[str, pl.DataFrame]:
    """The columns of each array, by its name, "" for that of an .npy. Raises ValueError, and OSError."""
    try:
        arrays = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}[suffix](path)
        _check_shapes(arrays)
        return {key: _as_frame(key, array) for key, array in arrays.items()}
    except (TypeError, KeyError, EOFError, SyntaxError, NotImplementedError, *_DAMAGE) as error:
        raise ValueError(str(error)) from None


def _check_shapes(arrays: dict[str, Array]) -> None:
    """Raise ValueError where the arrays are no columns of numbers, or so many that to make them takes minutes."""
    if not arrays:
        raise ValueError("it holds no arrays")
    for key, array in arrays.items():
        what = f"the array {key}" if key else "the array"
        if array.dtype.kind not in "biufUM":
            raise ValueError(f"{what} holds {array.dtype}, not numbers")
        if array.ndim not in (1, 2):
            raise ValueError(f"{what} has the shape {array.shape}, and must have rows, or rows and columns")
        if not array.size:
            raise ValueError(f"{what} is empty: its shape is {array.shape}")
    columns = sum(array.shape[1] if array.ndim == 2 else 1 for array in arrays.values())
    if columns > _MOST_COLUMNS:
        raise ValueError(f"it has {columns} columns, more than {_MOST_COLUMNS}")


def _as_frame(key: str, array: Array) -> pl.DataFrame:
    """An array's columns: its own name where it is 1-D, `name.0`, `name.1`, ... where it is 2-D."""
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype("float32" if array.dtype.itemsize < 4 else "float64")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 1:
        return pl.DataFrame({key or "0": array})
    prefix = f"{key}." if key else ""
    return pl.DataFrame({f"{prefix}{j}": array[:, j] for j in range(array.shape[1])})


def _npy(path: Path) -> dict[str, Array]:
    with path.open("rb") as file:
        _check_npy(file, path.stat().st_size)
    return {"": np.load(path, mmap_mode="r", allow_pickle=False)}


def _npz(path: Path) -> dict[str, Array]:
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
    try:
        shape, _, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError("its header is damaged") from None
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read: save numbers")
    claimed, there = dtype.itemsize, size - file.tell()
    for length in shape:
        claimed *= length
    if claimed != there:
        raise ValueError(f"its header claims {claimed} bytes of numbers, and there are {there}")


def _safetensors(path: Path) -> dict[str, Array]:
    try:
        with safe_open(path, framework="np") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
    except TypeError as error:  # bfloat16 and the like, which numpy does not have
        raise ValueError(f"{error}; save float32") from None
