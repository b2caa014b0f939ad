"""Compressed tables, unpacked into memory; what they need is counted before any of it is kept."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl

from twolayer.errors import DataError
from twolayer.formatting import size
from twolayer.system import available_memory
from twolayer.tables.file_checks import check_size, reworded
from twolayer.tables.file_kind import Kind
from twolayer.tables.options import table_suffix
from twolayer.tables.row_errors import opened

DEFLATED = 1032  # bytes that one deflated byte unpacks to, at most
_PART = 2**20  # bytes that are read at a time
_ENCRYPTED = 1  # among a zip member's flags
_XZ_MEMORY = 2**28  # for the dictionary of an xz file, which the file itself chooses
_BLOCK = 2**17  # bytes that a block of zstd unpacks to, at most
_SKIPPED = b"\x2a\x4d\x18"  # how a frame of zstd begins that holds no data, behind one byte
_NO_TABLES = ("__MACOSX/", ".DS_Store", "Thumbs.db")  # what systems add to archives


def unpacked(raw: Path | bytes, kind: Kind, name: str, suffix: str | None) -> tuple[bytes, str]:
    """The content of a compressed table, and the suffix of what it is. Raises DataError.

    It is refused, with both sizes, if it does not fit into memory.
    """
    with reworded(name):
        if kind == "zip":
            return _of_archive(raw, name)
        if kind == "zstd":
            return _of_zstd(raw, name), suffix or ".csv"
        count_parts(raw, kind, name)
        return b"".join(_parts(raw, kind)), suffix or ".csv"


def count_parts(raw: Path | bytes, kind: Kind, name: str) -> None:
    """Raise DataError if a gzip, bz2 or xz file unpacks to more than there is memory for; nothing is kept."""
    free = available_memory.available()
    length = raw.stat().st_size if isinstance(raw, Path) else len(raw)
    if free is None or (kind == "gzip" and 2 * length * DEFLATED <= free):
        return
    total = 0
    for part in _parts(raw, kind):
        total += len(part)
        check_size(2 * total, name, free)  # the parts, and the whole


def _parts(raw: Path | bytes, kind: Kind) -> Iterator[bytes]:
    with opened(raw) as packed:
        if kind == "xz":
            yield from _parts_of_xz(packed)
            return
        with cast(BinaryIO, gzip.open(packed) if kind == "gzip" else bz2.open(packed)) as file:
            while part := file.read(_PART):
                yield part


def _parts_of_xz(packed: BinaryIO) -> Iterator[bytes]:
    """As `lzma.open`, but with a limit for the memory of the dictionary."""
    rest = packed.read(_PART)
    while rest.strip(b"\x00"):  # streams may be padded
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not stream.eof:
            if stream.needs_input and not rest and not (rest := packed.read(_PART)):
                raise EOFError("the file ends before its compressed data do")
            part = stream.decompress(rest, _PART)
            rest = b""
            if part:
                yield part
        rest = stream.unused_data.lstrip(b"\x00") or packed.read(_PART)


# --- zip


def _of_archive(raw: Path | bytes, name: str) -> tuple[bytes, str]:
    """The only table in a zip archive, and its suffix."""
    length = raw.stat().st_size if isinstance(raw, Path) else len(raw)
    with opened(raw) as file, zipfile.ZipFile(file) as archive:
        files = [m for m in archive.infolist() if not m.is_dir() and not _is_added(m.filename)]
        members = [m for m in files if table_suffix(m.filename)] or files
        if len(members) != 1:
            held = ", ".join(m.filename for m in islice(members, 5)) + (", ..." if len(members) > 5 else "")
            what = f"holds {len(members)} files ({held}); unpack it and name the one" if members else "holds no file"
            raise DataError(f"{name}: is a zip archive that {what}")
        (member,) = members
        if member.flag_bits & _ENCRYPTED:
            raise DataError(f"{name}: {member.filename} in it is encrypted; unpack it")
        if member.compress_size > length:
            raise DataError(f"{name}: is damaged: {member.filename} is larger than the file can hold")
        free = available_memory.available()
        if free is not None and 2 * member.file_size > free:  # which it may only claim
            total = 0
            with archive.open(member) as content:
                while part := content.read(_PART):
                    total += len(part)
                    check_size(2 * total, name, free)
        try:
            with archive.open(member) as content:
                return content.read(), table_suffix(member.filename) or ".csv"
        except NotImplementedError as error:  # a compression that Python does not have
            raise DataError(f"{name}: {error}; unpack it") from None


def _is_added(name: str) -> bool:
    return name.startswith(_NO_TABLES[0]) or name.rpartition("/")[2] in _NO_TABLES


# --- zstd


def _of_zstd(raw: Path | bytes, name: str) -> bytes:
    """The text in a zstd file; polars unpacks it, and Python has no zstd before 3.14, so its line ends become LF."""
    free, most = available_memory.available(), zstd_bytes(raw)
    if free is not None and 3 * most > free:  # the text as lines, joined, and as bytes
        need = f"may need {size(3 * most)} of memory, and {size(free)} is available"
        raise DataError(f"{name}: {need}; unpack it with zstd -d")
    with opened(raw) as file:
        while file.read(4)[1:] == _SKIPPED:
            file.seek(int.from_bytes(_exactly(file, 4), "little"), io.SEEK_CUR)
        if start := file.tell() - 4:  # polars knows a frame by the first bytes of the file
            file.seek(start)
            raw = file.read()
    lines = pl.read_csv(
        raw, has_header=False, separator="\x1f", quote_char=None, schema={"line": pl.String}, glob=False
    )["line"].fill_null("")  # fmt: skip
    return "".join(f"{line}\n" for line in lines).encode()


def zstd_bytes(raw: Path | bytes) -> int:
    """What a zstd file unpacks to, at most, by the headers of its blocks: each has its size or 128 KiB at most.

    Raises EOFError if the file is cut off, and DataError is left to those who unpack it.
    """
    total = 0
    with opened(raw) as file:
        while magic := file.read(4):
            if magic[1:] == _SKIPPED:
                file.seek(int.from_bytes(_exactly(file, 4), "little"), io.SEEK_CUR)
                continue
            if magic != b"\x28\xb5\x2f\xfd":
                raise EOFError("its zstd data are damaged")
            total += _bytes_of_frame(file)
    return total


def _bytes_of_frame(file: BinaryIO) -> int:
    """What a frame of zstd unpacks to, at most (RFC 8878, section 3.1.1); the file stands behind it then."""
    (descriptor,) = _exactly(file, 1)
    is_single = bool(descriptor & 0x20)
    _exactly(file, (not is_single) + (0, 1, 2, 4)[descriptor & 3] + (int(is_single), 2, 4, 8)[descriptor >> 6])
    total, is_last = 0, False
    while not is_last:
        header = int.from_bytes(_exactly(file, 3), "little")
        is_last, kind, length = bool(header & 1), header >> 1 & 3, header >> 3
        total += _BLOCK if kind == 2 else length  # compressed; else stored, or one byte repeated
        file.seek(1 if kind == 1 else length, io.SEEK_CUR)
    _exactly(file, 4 if descriptor & 4 else 0)
    return total


def _exactly(file: BinaryIO, count: int) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise EOFError("its zstd data are cut off or damaged")
    return found
