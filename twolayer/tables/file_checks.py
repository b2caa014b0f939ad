"""Checks of a table file that hold for every format: errors in one line, and the memory that it needs."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError

import polars as pl

from twolayer.errors import DataError
from twolayer.files import unreadable
from twolayer.formatting import size
from twolayer.system import available_memory

_DAMAGE = (OSError, EOFError, zlib.error, LZMAError, zipfile.BadZipFile, pl.exceptions.PolarsError)


@contextmanager
def reworded(name: str) -> Iterator[None]:
    """Inside, errors of polars, of a compression and of the system become a DataError of one line."""
    try:
        yield
    except _DAMAGE as error:
        raise DataError(f"{name}: {unreadable(error)}") from None
    except pl.exceptions.PanicException as error:
        raise DataError(f"{name}: is damaged: {str(error).partition(chr(10))[0][:200]}") from None


def check_size(need: int, name: str, free: int | None = None) -> None:
    """Raise DataError, with both sizes, if a table that needs at least `need` bytes does not fit into memory."""
    free = available_memory.available() if free is None else free
    if free is not None and need > free:
        raise DataError(f"{name}: needs at least {size(need)} of memory, and {size(free)} is available")
