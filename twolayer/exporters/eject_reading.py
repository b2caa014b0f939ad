"""How scripts read a table: what the script must know of its file and its columns, and the functions that do it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from twolayer.config.schema import Config
from twolayer.errors import DataError
from twolayer.exporters.eject_source import constant, literal
from twolayer.tables import dates
from twolayer.tables.dataset import Table, scan
from twolayer.tables.encoding import MARKS, shown
from twolayer.tables.features import Encoding, safe_deviation
from twolayer.tables.options import FileData, table_suffix
from twolayer.tables.readers import collect
from twolayer.tables.sources import MISSING, Source

# `conditions|text`: see `eject_source.fill`.
FUNCTIONS = """
             |def read(path):
text         |    \"\"\"The rows of a table: all cells as text, null where they are missing.\"\"\"
text         |    table = pl.read_csv(path, infer_schema=False$options)
text         |    cell = pl.all().str.strip_chars()
text         |    cell = pl.when(~cell.is_in(MISSING)).then(cell)
text not-marks|    return table.select(cell)$drop
text marks   |    table, cell = table.select(cell), pl.col(MARKED)
text marks   |    cell = pl.when(~cell.str.to_lowercase().is_in(MARKS)).then(cell)
text marks   |    return table.with_columns(cell)$drop
typed        |    \"\"\"The rows of a table.\"\"\"
typed        |    return pl.$reader(path)$drop
             |
             |
not-inline   |def number(cells):
not-inline   |    \"\"\"A column as numbers, NaN where they are missing.\"\"\"
notations    |    if cells.name in NOTATIONS:
notations    |        prefix, suffix, thousands, decimal = NOTATIONS[cells.name]
notations    |        text = cells.str.strip_prefix(prefix).str.strip_suffix(suffix).str.strip_chars()
thousands    |        if thousands:
thousands    |            text = text.str.replace_all(thousands, "", literal=True)
notations    |        cells = text.str.replace(decimal, ".", literal=True)
booleans     |    if cells.name in BOOLEANS:
booleans     |        cells = cells.str.to_lowercase() == "true"
not-inline   |    return cells.cast(pl.Float64).to_numpy()
not-inline   |
not-inline   |
dates        |def part_of_date(cells, part):
dates        |    \"\"\"Days since 1970, or the sine or cosine of the time of year, week or day.\"\"\"
dates text   |    when = cells.str.to_datetime(DATES[cells.name], time_unit="us")
dates typed  |    when = cells.cast(pl.Datetime("us"))
dates        |    if part == "elapsed":
dates        |        return (when.dt.epoch("us").cast(pl.Float64) / 86_400e6).to_numpy()
dates        |    unit, function = part.split()
dates        |    month, weekday, hour, minute = (
dates        |        getattr(when.dt, name)().cast(pl.Float64)
dates        |        for name in ("month", "weekday", "hour", "minute")
dates        |    )
dates        |    turns = {"month": (month - 1) / 12, "weekday": (weekday - 1) / 7}
dates        |    angle = 2 * np.pi * turns.get(unit, (hour + minute / 60) / 24).to_numpy()
dates        |    return np.sin(angle) if function == "sin" else np.cos(angle)
dates        |
dates        |
not-plain    |def feature(table, column, kind, value):
not-plain    |    \"\"\"A column of x before scaling.\"\"\"
categories   |    if kind == "category":
categories   |        return table[column].cast(pl.String).eq_missing(value).to_numpy()
gaps         |    if kind == "missing":
gaps         |        return table[column].is_null().to_numpy()
dates        |    if kind == "date":
dates        |        return part_of_date(table[column], value)
not-plain not-inline|    return number(table[column])
inline       |    return table[column].cast(pl.Float64).to_numpy()
not-plain    |
not-plain    |
             |def tensors(table):
             |    \"\"\"x, (N, D_in): scaled, 0 where it is missing; and y, $y_is.\"\"\"
plain        |    x = np.column_stack([number(table[column]) for column in FEATURES])
plain        |    mean, std = np.array(list(FEATURES.values())).T
not-plain    |    x = np.column_stack([feature(table, *row[:3]) for row in FEATURES])
not-plain    |    mean, std = np.array([row[3:] for row in FEATURES]).T
             |    x = np.nan_to_num((x - mean) / std).astype(np.$dtype)
not-classes  |    y = np.column_stack([number(table[column]) for column in TARGETS])
not-classes  |    mean, std = np.array(list(TARGETS.values())).T
not-classes  |    y = ((y - mean) / std).astype(np.$dtype)
classes      |    names = table[TARGET].cast(pl.String)$lower
classes      |    y = names.cast(pl.Enum(CLASSES)).to_physical().cast(pl.Int64).to_numpy()
             |    return torch.from_numpy(x), torch.tensor(y)
"""

_READERS = {".parquet": "read_parquet", ".arrow": "read_ipc", ".feather": "read_ipc", ".ipc": "read_ipc"}
_READERS |= {".ndjson": "read_ndjson", ".jsonl": "read_ndjson"}
# Formats of dates, with one of three signs between day, month and year.
_DATES = ("%Y{0}%m{0}%d", "%d{0}%m{0}%Y", "%m{0}%d{0}%Y", "%d{0}%m{0}%y", "%m{0}%d{0}%y")
_TIMES = ("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", " %H:%M:%S%.f", "T%H:%M:%S%.f")


@dataclass
class Facts:
    """What a script knows of its table: flags and values for `FUNCTIONS`, and constants as source."""

    flags: set[str] = field(default_factory=set)
    values: dict[str, object] = field(default_factory=dict)
    constants: list[str] = field(default_factory=list)


def facts(config: Config, data: FileData, table: Table) -> Facts:
    """What the script must know. Raises DataError for a file or a column that scripts cannot read."""
    columns = table.columns
    source = scan(data.path, columns)
    frame = collect(source, [*columns.inputs, *(target.column for target in columns.targets)])
    found = Facts()
    found.constants.append(constant("TABLE", data.path))
    if isinstance(config.validation, str):
        found.constants.append(constant("VALIDATION", config.validation))
    _read(found, source, data, frame)
    _cells(found, frame, table)
    _targets(found, frame, table)
    _features(found, data, columns)
    kinds = {"category": "categories", "missing": "gaps", "date": "dates"}
    found.flags |= {flag for kind, flag in kinds.items() if any(f.kind == kind for f in columns.features)}
    if "classes" in found.flags and not found.flags & {"plain", "notations", "booleans"}:
        found.flags.add("inline")  # only `feature` reads numbers then
    found.values["dtype"] = config.dtype
    return found


def _features(found: Facts, data: FileData, columns: Encoding) -> None:
    """The columns of x."""
    if not data.scale and any(feature.kind == "missing" for feature in columns.features):
        raise DataError("a script writes 0, the mean, for a missing input, but data.scale is false")
    deviations = safe_deviation(columns.mean, columns.deviation).tolist()
    pairs = list(zip(columns.features, deviations, strict=True))
    if all(feature.kind == "number" for feature in columns.features):
        found.flags.add("plain")
        scales = {feature.column: (feature.mean, deviation) for feature, deviation in pairs}
        found.constants.append(constant("FEATURES", scales, "columns of x: mean and standard deviation"))
        return
    rows = [(f.column, f.kind, f.category or f.part or "", f.mean, deviation) for f, deviation in pairs]
    comment = "columns of x: the table's column, kind, category or part of a date, mean, std"
    found.constants.append(constant("FEATURES", rows, comment))


def _read(found: Facts, source: Source, data: FileData, frame: pl.DataFrame) -> None:
    """How the file is read."""
    if source.csv is None:
        reader = _READERS.get(table_suffix(Path(data.path).name) or "")
        if reader is None or isinstance(source.binary or source.ndjson, bytes):
            raise DataError(
                f"{data.path}: a script reads CSV, Parquet, Arrow and NDJSON; save the table as one of them"
            )
        found.flags.add("typed")
        found.values["reader"] = reader
        return
    layout, options = source.csv, ""
    if layout.delimiter != ",":
        options += f", separator={literal(layout.delimiter)}"
    if layout.skipped:
        options += f", skip_lines={layout.skipped}"
    if not layout.has_header:
        options += ", has_header=False, new_columns=NAMES"
        found.constants.append(constant("NAMES", list(layout.names)))
    found.flags.add("text")
    found.values["options"] = options
    texts = list(dict.fromkeys([*MISSING, *data.na]))
    found.constants.append(constant("MISSING", texts, "texts that stand for a missing value"))


def _cells(found: Facts, frame: pl.DataFrame, table: Table) -> None:
    """What the text of numbers, booleans and dates needs to be read."""
    if "typed" in found.flags:
        return
    columns = table.columns
    classes = columns.classes is not None
    targets = [] if classes else [target.column for target in columns.targets]
    kinds = columns.kinds | {
        name: "boolean" if set(_distinct(frame[name])) <= {"true", "false"} else "number" for name in targets
    }
    numeric = [name for name, kind in kinds.items() if kind in ("number", "date")]
    marks = {name: sorted(set(_distinct(frame[name])) & MARKS) for name in numeric}
    if marked := [name for name in numeric if marks[name]]:
        found.flags.add("marks")
        found.constants.append(
            constant("MARKED", marked, "columns in which such texts, in lower case, are missing values, too")
        )
        found.constants.append(constant("MARKS", sorted({text for texts in marks.values() for text in texts})))
    if booleans := [name for name, kind in kinds.items() if kind == "boolean"]:
        found.flags.add("booleans")
        found.constants.append(constant("BOOLEANS", booleans))
    forms = {name: columns.notation(name) for name, kind in kinds.items() if kind == "number"}
    if notations := {n: (f.prefix, f.suffix, f.thousands, f.decimal) for n, f in forms.items() if f is not None}:
        found.flags |= {"notations"} | ({"thousands"} if any(form[2] for form in notations.values()) else set())
        comment = "prefix, suffix, sign between thousands and decimal point of numbers"
        found.constants.append(constant("NOTATIONS", notations, comment))
    if formats := {
        name: _date_format(frame[name], name, columns.orders.get(name, "ymd"), marks[name])
        for name, kind in kinds.items()
        if kind == "date"
    }:
        found.constants.append(constant("DATES", formats))


def _distinct(cells: pl.Series) -> list[str]:
    """The different cells, in lower case and without blanks around them."""
    return cells.cast(pl.String).str.strip_chars().str.to_lowercase().unique().drop_nulls().to_list()


def _date_format(cells: pl.Series, name: str, order: Any, marks: list[str]) -> str:
    """The format of all dates of a column, as `strptime` has it. Raises DataError where there is none."""
    text = cells.str.strip_chars()
    text = text.filter(~(text.is_in(list(MISSING)) | text.str.to_lowercase().is_in(marks))).drop_nulls()
    wanted = text.to_frame("cell").select(dates.parse(pl.col("cell"), order)).to_series()
    for form in _formats():
        if text.str.to_datetime(form, time_unit="us", strict=False).equals(wanted):
            return form
    raise DataError(f"column {shown(name)}: its dates are not all in one format, which a script needs")


def _formats() -> Iterator[str]:
    yield from (date.format(sign) + time for time in _TIMES for date in _DATES for sign in "-/.")


def _targets(found: Facts, frame: pl.DataFrame, table: Table) -> None:
    """The targets, or the classes of the only one."""
    columns = table.columns
    names = [target.column for target in columns.targets]
    if columns.classes is not None:
        found.flags.add("classes")
        found.constants += [constant("TARGET", names[0]), constant("CLASSES", list(columns.classes))]
        is_boolean = columns.classes == ("false", "true") and "text" in found.flags
        found.values |= {"y_is": "(N,): the number of the class"}
        found.values["lower"] = ".str.to_lowercase()" if is_boolean else ""
    else:
        scales = {target.column: (target.mean, target.deviation) for target in columns.targets}
        comment = "columns of y: mean and standard deviation"
        found.constants.append(constant("TARGETS", scales, comment))
        found.values |= {"y_is": "(N, D_out): scaled", "lower": ""}
    targets = "TARGET" if columns.classes is not None else "list(TARGETS)"
    found.values["drop"] = "" if frame.height == table.rows else f".drop_nulls({targets})"
