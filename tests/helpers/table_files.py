"""Files of tables as other programs write them: compressed texts and workbooks."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_DOC = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def packed(text: bytes, suffix: str) -> bytes:
    """A text as a file with this suffix holds it: compressed, if the suffix says so."""
    for ending, pack in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstd)):
        if suffix.endswith(ending):
            return pack(text)
    return archive({"some.csv" if suffix == ".zip" else f"some{suffix[:-4]}": text}) if "zip" in suffix else text


def archive(members: Mapping[str, bytes]) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file.getvalue()


def zstd(text: bytes) -> bytes:
    """A frame of zstd, without compression, in blocks of 100 bytes (RFC 8878)."""
    pieces = [text[at : at + 100] for at in range(0, len(text), 100)] or [b""]
    blocks = [
        ((len(piece) << 3) | (number == len(pieces) - 1)).to_bytes(3, "little") + piece
        for number, piece in enumerate(pieces)
    ]
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(blocks)


def zstd_bomb(size: int) -> bytes:
    """A frame of zstd of so many bytes of text, 4 for each 128 KiB: one letter repeated."""
    count = size // 2**17
    block = [((2**17 << 3) | 2 | (number == count - 1)).to_bytes(3, "little") + b"1" for number in range(count)]
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(block)


def workbook(sheets: Mapping[str, Sequence[Sequence[str | float | None]]]) -> bytes:
    """An .xlsx file with these sheets, each a list of rows."""
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    names = "".join(f'<sheet name="{n}" sheetId="{i}" r:id="r{i}"/>' for i, n in enumerate(sheets, 1))
    links = "".join(
        f'<Relationship Id="r{i}" Type="{_DOC}/worksheet" Target="worksheets/sheet{i}.xml"/>'
        for i in range(1, len(sheets) + 1)
    )
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = "".join(
        f'<Override PartName="/xl/worksheets/sheet{i}.xml" ContentType="{kind}.worksheet+xml"/>'
        for i in range(1, len(sheets) + 1)
    )
    members = {
        "[Content_Types].xml": f'{head}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
        f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override '
        f'PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>{parts}</Types>',
        "_rels/.rels": f'{head}<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r1" '
        f'Type="{_DOC}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'{head}<workbook xmlns="{_MAIN}" xmlns:r="{_DOC}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'{head}<Relationships xmlns="{_PACKAGE}/relationships">{links}</Relationships>',
    }
    for number, rows in enumerate(sheets.values(), 1):
        cells = "".join(f'<row r="{r}">{_row(r, row)}</row>' for r, row in enumerate(rows, 1))
        members[f"xl/worksheets/sheet{number}.xml"] = (
            f'{head}<worksheet xmlns="{_MAIN}"><sheetData>{cells}</sheetData></worksheet>'
        )
    return archive({name: text.encode() for name, text in members.items()})


def _row(number: int, row: Sequence[str | float | None]) -> str:
    found = []
    for place, cell in zip("ABCDEFGHIJ", row, strict=False):
        if isinstance(cell, str):
            found.append(f'<c r="{place}{number}" t="inlineStr"><is><t>{escape(cell)}</t></is></c>')
        elif cell is not None:
            found.append(f'<c r="{place}{number}"><v>{cell}</v></c>')
    return "".join(found)
