"""Opens a table as the file that a model was trained on was read; where that does not fit, in the way that does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from twolayer.errors import DataError
from twolayer.formatting import setting
from twolayer.tables.encoding import require_columns
from twolayer.tables.features import Encoding
from twolayer.tables.formulas import unquoted_names
from twolayer.tables.headers import UndecidedError
from twolayer.tables.options import SEPARATORS
from twolayer.tables.sources import Reading, Source, open_table

READING_KEYS = ("separator", "decimal", "header", "sheet")


@dataclass(frozen=True)
class Opened:
    """A table opened for a model; `columns` is the encoding with the decimal point that this file has.

    `remarks` say where it is read in another way than in training, a sentence each.
    """

    source: Source
    columns: Encoding
    remarks: tuple[str, ...] = ()


def read_so(columns: Encoding, reading: Reading) -> Encoding:
    """The encoding of a table that was read in this way."""
    header = "auto" if reading.header == "none" else reading.header  # of arrays and the like, which have names
    return replace(columns, separator=reading.separator, header=header, sheet=reading.sheet)


def refuse_unused(source: Source, given: Mapping[str, Any]) -> None:
    """Raise DataError for a key, by its name in `READING_KEYS`, that the format of a table has no use for."""
    for key, formats in (("header", "CSV and Excel files"), ("sheet", "Excel files")):
        if given.get(key, "auto") not in ("auto", None) and key not in source.takes:
            raise DataError(f"{source.name}: data.{key} is for {formats} alone; leave it out")


def open_for_model(
    path: Path | str,
    name: str,
    columns: Encoding,
    needed: Sequence[str] | None = None,
    given: Mapping[str, Any] | None = None,
) -> Opened:
    """Open a table that must have the columns `needed`, by default the inputs.

    Each way of reading is tried in turn until one gives these columns: the model's own; other separators; names in the
    first line, where the training's file had none. What is `given`, by the names of `READING_KEYS`, is never changed.
    Raises DataError, about the first way.
    """
    needed = columns.inputs if needed is None else needed
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in (given or {}).items()}
    own = replace(Reading(columns.separator, columns.decimal, columns.header, columns.sheet), **given)
    opened: list[Source] = []

    def attempt(reading: Reading) -> Opened:
        opened.append(source := _open(path, name, reading, columns))
        refuse_unused(source, given)
        targets = [column for column in needed if column not in columns.inputs]
        require_columns(source.names, [column for column in needed if column in columns.inputs], name, targets=targets)
        return Opened(source, _with_decimal(columns, reading.decimal), tuple(_remarks(own, source, reading)))

    try:
        return attempt(own)
    except UndecidedError:
        raise
    except DataError as problem:
        if not Path(path).is_file():
            raise
        for reading in _others(own, columns, needed, given, opened[0] if opened else None):
            try:
                return attempt(reading)
            except UndecidedError:
                raise
            except DataError:
                continue
        raise problem from None


def _with_decimal(columns: Encoding, decimal: str) -> Encoding:
    """The encoding for a file whose numbers have this decimal point."""
    if decimal == columns.decimal:
        return columns
    notations = {
        column: replace(form, decimal=decimal, thousands="" if form.thousands == decimal else form.thousands)
        for column, form in columns.notations.items()
    }
    return replace(columns, decimal=decimal, notations=notations)


def _open(path: Path | str, name: str, reading: Reading, columns: Encoding) -> Source:
    # A model of version 0.1.0 may know such text with its quote.
    known = [feature.category for feature in columns.features if feature.category is not None]
    names = [*columns.inputs, *(target.column for target in columns.targets)]
    return open_table(path, name, **asdict(reading), text=True, named=names, keep_quotes=unquoted_names(known) != known)


def _others(
    own: Reading, columns: Encoding, needed: Sequence[str], given: Mapping[str, Any], source: Source | None
) -> Iterator[Reading]:
    """Other ways of reading than the model's own, but for what is given. `source` is what that own way gave."""
    if source is not None and source.csv is None:
        return  # its columns have names and types of their own
    headers = [own.header]
    if "header" not in given and isinstance(own.header, tuple):
        targets = {target.column for target in columns.targets}
        if not targets & set(needed):
            headers.append(tuple(column for column in own.header if column not in targets))
        headers.append("first")
    separators = [own.separator]
    if "separator" not in given:
        text = None if source is None else "".join(source.names)
        separators += [s for s in (*SEPARATORS, " ") if s != own.separator and (text is None or s in text)]
    for separator in separators:
        # Both cannot be a comma; a file with commas between its cells has points in its numbers.
        decimal = "." if separator == "," == own.decimal and "decimal" not in given else own.decimal
        for header in headers:
            other = replace(own, separator=separator, decimal=decimal, header=header)
            if other != own:
                yield other


def _remarks(own: Reading, source: Source, reading: Reading) -> Iterator[str]:
    """What was read in another way than the model's own."""
    found = source.reading
    if own.separator != "auto" and source.csv is not None and found.separator != own.separator:
        yield (
            f"{source.name}: the separator is {_named(found.separator)}, and was {_named(own.separator)} in training; "
            f"set it with {setting('data.separator', '...')}"
        )
    if reading.decimal != own.decimal:
        yield (
            f"{source.name}: the decimal point is read as {_named(reading.decimal)}, and was {_named(own.decimal)} "
            f"in training; set it with {setting('data.decimal', '...')}"
        )
    if isinstance(reading.header, tuple) and reading.header != own.header:
        yield f"{source.name}: has no header and no target; its columns are {', '.join(reading.header[:10])}, in order"
    elif isinstance(own.header, tuple) and (reading.header == "first" or (source.csv and source.csv.has_header)):
        yield f"{source.name}: has its names in the first line; the file of the training had none"


def _named(character: str) -> str:
    return {"\t": "a tab", " ": "blanks"}.get(character, f'"{character}"')
