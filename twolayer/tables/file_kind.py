"""What a file is, by its first bytes; no polars, because it also decides what is a config."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias
from zipfile import ZipFile

from twolayer.tables.options import ARRAYS, EXCEL, SEPARATORS
from twolayer.tables.row_errors import opened

Kind: TypeAlias = Literal[
    "", "gzip", "zstd", "bz2", "xz", "zip", "parquet", "arrow", "npy", "xls", "utf-8", "utf-16", "utf-32",
    "utf-16-le", "utf-16-be", "html", "xml", "pdf", "sqlite", "hdf5", "pickle", "zlib",
]  # fmt: skip

# The first that fits counts.
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # an empty one
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\x93NUMPY", "npy"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "xls"),
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"%PDF-", "pdf"),
    (b"SQLite format 3\x00", "sqlite"),
    (b"\x89HDF\r\n", "hdf5"),
    (b"x\x01", "zlib"),
    (b"x\x9c", "zlib"),
    (b"x\xda", "zlib"),
)
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_BZ2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")  # a name may begin with BZh, too
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_MARKUP: tuple[tuple[bytes, Kind], ...] = ((b"<!doctype html", "html"), (b"<html", "html"), (b"<?xml", "xml"))

PACKED: frozenset[Kind] = frozenset({"gzip", "zstd", "bz2", "xz", "zip"})
_EXPORT = "save its table as CSV or Parquet"
# What is never read, and the way out.
REFUSED: dict[Kind, str] = {
    "html": "is a web page (HTML), not a table: download the file itself",
    "xml": f"is XML, not a table: {_EXPORT}",
    "pdf": f"is a PDF, not a table: {_EXPORT}",
    "sqlite": f"is an SQLite database: {_EXPORT}",
    "hdf5": f"is an HDF5 file: {_EXPORT}",
    "pickle": "is a Python pickle, which can run any program and is never read: save its table as CSV or Parquet",
    "zlib": "is compressed by zlib alone, without a format around it: unpack it, or pack it with gzip",
}
_CALLED = {"xls": "an Excel file", "npy": "a NumPy array", "zip": "a zip archive", "arrow": "an Arrow file"}
_CALLED |= {"parquet": "a Parquet file"}

_FORMATS: dict[str, str] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".ndjson", ".jsonl"), "ndjson"),
    ".json": "json",
    ".parquet": "parquet",
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "arrow"),
    **dict.fromkeys(EXCEL, "excel"),
    **dict.fromkeys(ARRAYS, "arrays"),
}  # by suffix

_SHORT = 4096  # bytes of the text in which a workbook names its type, at most

_URL = re.compile(r"(https?|ftps?|s3|gs|gcs|abfss?|az|hf|file):/+", re.IGNORECASE)


def kind_of(start: bytes) -> Kind:
    """The kind of a file that begins with these bytes (some hundred are enough); "" for text."""
    for magic, kind in _MAGIC:
        if start.startswith(magic) and (kind != "bz2" or _BZ2.match(start)):
            # zlib's first bytes are letters: they may also begin a name.
            return kind if kind != "zlib" or _is_binary(start) else ""
    if _ZSTD_SKIPPABLE.match(start):
        return "zstd"
    if _PICKLE.match(start):
        return "pickle"
    text = start.lstrip().lower()
    for markup, kind in _MARKUP:
        if text.startswith(markup):
            return kind
    # Text in UTF-16 without a byte-order mark: every second byte of its first letters is 0.
    even, odd = start[0:64:2], start[1:64:2]
    if len(odd) > 3 and all(even) != all(odd) and not (any(even) and any(odd)):
        return "utf-16-le" if all(even) else "utf-16-be"
    return ""


def _is_binary(start: bytes) -> bool:
    """Whether there are control characters or other bytes that text does not have."""
    return any(byte < 9 or 13 < byte < 32 for byte in start[:512]) or not _is_utf8(start[:512])


def _is_utf8(start: bytes) -> bool:
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


def url_of(text: str) -> str | None:
    """The URL that a path is, with both its slashes; None if it is none, or a file of that name is there."""
    if not _URL.match(text) or Path(text).exists():
        return None
    return re.sub(r":/+", "://", text, count=1)


def about_url(url: str) -> str:
    """What to do about a URL in the place of a file."""
    if url.lower().startswith("file:"):
        return "is a URL: give the path alone, without file://"
    return "is a URL, and twolayer reads files only: download it first, such as with curl -LO"


def instead_of_config(path: Path, raw: bytes) -> str:
    """What a file with neither a config's suffix nor a table's is, and what to do; "" if it may be a config.

    `raw` is its content, at least the first MiB of it.
    """
    suffix = path.suffix.lower()
    if suffix in ("", ".yaml", ".yml", ".json"):
        return ""
    kind = kind_of(raw[:4096])
    formats = "it reads CSV, Excel, Parquet, Arrow, JSON, npy, npz and safetensors, each by its suffix"
    if kind in REFUSED:
        return f"is no table that twolayer reads, and no config: it {REFUSED[kind]}"
    if kind in PACKED and kind != "zip":
        return f"is packed with {kind}: name it as the table in it, with its suffix, such as {path.stem}.csv{_of(kind)}"
    if kind in _CALLED:
        return f"is no config, and has no suffix of a table that twolayer reads; it is {_CALLED[kind]}; {formats}"
    if looks_like_table(raw):
        return f"looks like a table, but its suffix is not one of a table: name it {path.stem}.csv"
    return ""


def _of(kind: Kind) -> str:
    return {"gzip": ".gz", "zstd": ".zst", "bz2": ".bz2", "xz": ".xz"}[kind]


def looks_like_table(raw: bytes) -> bool:
    """Whether the first lines all have the same number of cells, two or more, by one separator or by blanks."""
    text = raw[: 1 << 16].decode("utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines()[:-1][:20] or text.splitlines() if line.strip()]
    if len(lines) < 2:
        return False
    ways = [[len(line.split()) for line in lines if not line.lstrip().startswith("#")]]
    try:
        ways += [[len(row) for row in csv.reader(lines, delimiter=separator)] for separator in SEPARATORS]
    except csv.Error:
        return False
    is_yaml = any(re.match(r"\s*(- |[\w.]+:(\s|$))", line) for line in lines)
    return not is_yaml and any(len(set(way)) == 1 and way[0] > 1 for way in ways)


def format_of(raw: Path | bytes, kind: Kind, suffix: str | None, start: bytes) -> str | None:
    """The format of a file: by its first bytes where they say it, else by its suffix; None if neither does."""
    by_suffix = _FORMATS.get(suffix or "")
    if kind == "zip":
        if by_suffix == "arrays":
            return by_suffix
        with opened(raw) as file, ZipFile(file) as archive:
            return _kind_of_archive(archive.namelist(), archive)
    if kind in ("parquet", "arrow"):
        return kind
    if kind in ("npy", "xls"):
        return "arrays" if kind == "npy" else "excel"
    if kind in PACKED:
        return None
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if by_suffix in (None, "csv", "json", "ndjson") and kind in ("", "utf-8"):
        if text.startswith(b"[") and (by_suffix != "csv" or text[1:].lstrip().startswith(b"{")):
            return "json"
        if text.startswith((b'{"', b"{ ", b"{}", b"{\n")) or by_suffix == "json":
            return "ndjson"
    return "csv" if by_suffix == "excel" and text else by_suffix  # many programs call their text .xls


def _kind_of_archive(names: Sequence[str], archive: ZipFile) -> str | None:
    """Whether a zip archive is a workbook, or holds arrays."""
    if "[Content_Types].xml" in names and any(name.startswith("xl/") for name in names):
        return "excel"
    if "mimetype" in names and archive.getinfo("mimetype").file_size < _SHORT:
        with archive.open("mimetype") as file:
            return "excel" if b"spreadsheet" in file.read(_SHORT) else None
    return "arrays" if names and all(name.endswith(".npy") for name in names) else None
