"""How scripts read a table: what the script must know of its file and its columns, and the functions that do it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from twolayer.config.schema import Config
from twolayer.exporters import eject_types
from twolayer.exporters.eject_file import has_nan, opening
from twolayer.exporters.eject_source import constant
from twolayer.tables.dataset import Table, scan
from twolayer.tables.encoding import MARKS
from twolayer.tables.features import Encoding, Feature, safe_deviation
from twolayer.tables.options import FileData
from twolayer.tables.readers import collect
from twolayer.tables.sources import MISSING

# `conditions|text`: see `eject_source.fill`.
FUNCTIONS = """
not-plain    |def feature(cells, kind, value):
not-plain    |    \"\"\"A column of x before scaling.\"\"\"
category     |    if kind == "category":
category     |        return cells$as_text.eq_missing(value)
missing      |    if kind == "missing":
missing      |        return cells.is_null()
date number  |    if kind == "number":
date number  |        return cells.cast(pl.Float64)
elapsed turns|    if kind == "days":  # since 1970
elapsed turns|        return cells.dt.epoch("us") / 86_400e6
elapsed not-turns|    return cells.dt.epoch("us") / 86_400e6  # days since 1970
turns        |    turns = {  # since the year, the week or the day began
month        |        "month": (cells.dt.month() - 1) / 12,
weekday      |        "weekday": (cells.dt.weekday() - 1) / 7,
hour         |        "hour": (cells.dt.hour() + cells.dt.minute() / 60) / 24,
turns        |    }
turns        |    angle = 2 * np.pi * turns[kind]
turns        |    return np.sin(angle) if value == "sin" else np.cos(angle)
not-plain not-date|    return cells.cast(pl.Float64)
not-plain    |
not-plain    |
             |def read(path):
             |    \"\"\"x, (N, D_in)$x_is; and y, $y_is.\"\"\"
             |$opening
all-text     |    table = table.select(pl.all().str.strip_chars().replace(MISSING, None))
some-text    |    table = table.with_columns(
some-text    |        pl.col(pl.String).str.strip_chars().replace(MISSING, None)
some-text    |    )
marks        |    table = table.with_columns(pl.col(MARKED).replace(MARKS, None))
nan          |    table = table.fill_nan(None)
typed        |    table = table.with_columns(
typed        |$types
typed        |    )
drop         |    table = table.drop_nulls($targets)
plain        |    x = table.select(pl.col(*FEATURES).cast(pl.Float64)).to_numpy()
not-plain    |    x = np.column_stack([feature(table[name], *how) for name, *how$also in FEATURES])
scaled plain |    mean, std = np.array(list(FEATURES.values())).T
scaled not-plain|    mean, std = np.array([row[3:] for row in FEATURES]).T
scaled       |    x = np.nan_to_num((x - mean) / std)
filled plain |    x = np.where(np.isnan(x), list(FEATURES.values()), x)
filled not-plain|    x = np.where(np.isnan(x), [row[3] for row in FEATURES], x)
not-classes  |    y = table.select(pl.col(*TARGETS).cast(pl.Float64)).to_numpy()
scaled not-classes|    mean, std = np.array(list(TARGETS.values())).T
scaled not-classes|    y = (y - mean) / std
classes      |    y = table[TARGET]$lower.cast(pl.Enum(CLASSES)).to_physical().to_numpy()
not-classes  |    return torch.tensor(x, dtype=torch.$dtype), torch.tensor(y, dtype=torch.$dtype)
classes      |    return torch.tensor(x, dtype=torch.$dtype), torch.tensor(y).long()
"""


@dataclass
class Facts:
    """What a script knows of its table: flags and values for `FUNCTIONS`, constants as source, imports."""

    flags: set[str] = field(default_factory=set)
    values: dict[str, object] = field(default_factory=dict)
    constants: list[str] = field(default_factory=list)
    standard: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def facts(config: Config, data: FileData, table: Table) -> Facts:
    """What the script must know. Raises DataError for a file or a column that scripts cannot read."""
    columns = table.columns
    source = scan(data.path, columns)
    frame = collect(source, [*columns.inputs, *(target.column for target in columns.targets)])
    found = Facts()
    found.constants.append(constant("TABLE", data.path))
    if isinstance(config.validation, str):
        found.constants.append(constant("VALIDATION", config.validation))
    opened = opening(source, data)
    found.values |= {"opening": opened.lines, "dtype": config.dtype}
    found.standard, found.others = opened.standard, opened.others
    found.constants += opened.constants
    if has_nan(frame):
        found.flags.add("nan")
    _cells(found, frame, data, table, is_csv=source.csv is not None)
    _targets(found, frame, data, table)
    _features(found, data, columns)
    return found


def _features(found: Facts, data: FileData, columns: Encoding) -> None:
    """The columns of x."""
    named, numbers = _scaling(found, data, columns)
    pairs = list(zip(columns.features, numbers, strict=True))
    if all(feature.kind == "number" for feature in columns.features):
        found.flags.add("plain")
        value: Any = [feature.column for feature in columns.features]
        if named:
            value = {feature.column: given if len(given) > 1 else given[0] for feature, given in pairs}
        found.constants.append(constant("FEATURES", value, f"columns of x{named and ': '}{named}"))
        return
    rows = [(feature.column, *_how(feature), *given) for feature, given in pairs]
    kinds = {_how(feature)[0] for feature in columns.features}
    found.flags |= {kind if kind != "days" else "elapsed" for kind in kinds}
    found.flags |= {"date"} if any(feature.kind == "date" for feature in columns.features) else set()
    found.flags |= {"turns"} if found.flags & {"month", "weekday", "hour"} else set()
    comment = f"columns of x: the table's column, what is taken of it (and which){named and ', '}{named}"
    found.constants.append(constant("FEATURES", rows, comment))


def _scaling(found: Facts, data: FileData, columns: Encoding) -> tuple[str, list[tuple[float, ...]]]:
    """What `FEATURES` has for each feature: the words for it, and the numbers, if any."""
    if data.scale:
        found.flags.add("scaled")
        found.values |= {"also": ", _, _", "x_is": ": scaled, 0 where it is missing"}
        deviations = safe_deviation(columns.mean, columns.deviation).tolist()
        pairs = zip(columns.features, deviations, strict=True)
        return "mean, standard deviation", [(feature.mean, deviation) for feature, deviation in pairs]
    if any(feature.fill is not None for feature in columns.features):
        found.flags.add("filled")
        found.values |= {"also": ", _", "x_is": ", with the mean where it is missing"}
        return "mean", [(feature.fill or 0.0,) for feature in columns.features]
    found.values |= {"also": "", "x_is": ""}
    return "", [()] * len(columns.features)


def _how(feature: Feature) -> tuple[str, str]:
    """What of its column a feature is: the arguments `kind` and `value` of the script's function."""
    if feature.kind != "date":
        return feature.kind, feature.category or ""
    unit, _, function = (feature.part or "").partition(" ")
    return ("days", "") if unit == "elapsed" else (unit, function)


def _cells(found: Facts, frame: pl.DataFrame, data: FileData, table: Table, *, is_csv: bool) -> None:
    """What the text of numbers, booleans and dates needs to be read."""
    columns = table.columns
    targets = [] if columns.classes is not None else [target.column for target in columns.targets]
    kinds: dict[str, str] = {**columns.kinds, **{name: _kind(frame[name]) for name in targets}}
    texts = {cells.name for cells in frame.get_columns() if cells.dtype == pl.String}
    marks = {name: _marks(frame[name]) for name in texts if kinds.get(name) in ("number", "date")}
    marks = {name: marked for name, marked in marks.items() if marked}
    if texts:
        found.flags.add("all-text" if is_csv else "some-text")
        others = {text for name in texts - set(marks) for text in frame[name].str.strip_chars().unique().to_list()}
        _missing(found, data, marks, others)
    is_plain = all(name in texts for name, kind in kinds.items() if kind == "category")
    found.values["as_text"] = "" if is_plain else ".cast(pl.String)"
    types = eject_types.Types()
    for name, kind in kinds.items():
        types.add(frame[name], kind, columns, marks.get(name, []))
    if types:
        found.flags.add("typed")
        found.values["types"] = types.source()
        found.constants += types.constants


def _kind(cells: pl.Series) -> str:
    """The kind of a column that is predicted as numbers."""
    return "boolean" if set(_distinct(cells)) <= {"true", "false"} else "number"


def _distinct(cells: pl.Series) -> list[str]:
    """The different cells, in lower case and without blanks around them."""
    return cells.cast(pl.String).str.strip_chars().str.to_lowercase().unique().drop_nulls().to_list()


def _marks(cells: pl.Series) -> list[str]:
    """The texts that stand for a missing value among numbers or dates only, in order."""
    distinct = cells.str.strip_chars().unique().drop_nulls()
    return sorted(distinct.filter(distinct.str.to_lowercase().is_in(list(MARKS)) & ~distinct.is_in(list(MISSING))))


def _missing(found: Facts, data: FileData, marks: dict[str, list[str]], others: Collection[str]) -> None:
    """The texts for a missing value: for all columns, or, where they are categories of others, for some."""
    texts = list(dict.fromkeys([*MISSING, *data.na]))
    marked = sorted({text for found in marks.values() for text in found} - set(texts))
    if set(marked).isdisjoint(others):
        texts, marked = [*texts, *marked], []
    found.constants.append(constant("MISSING", texts, "texts that stand for a missing value"))
    if marked:
        found.flags.add("marks")
        found.constants.append(constant("MARKED", sorted(marks), "columns in which such texts do so, too"))
        found.constants.append(constant("MARKS", marked))


def _targets(found: Facts, frame: pl.DataFrame, data: FileData, table: Table) -> None:
    """The targets, or the classes of the only one."""
    columns = table.columns
    names = [target.column for target in columns.targets]
    if columns.classes is not None:
        found.flags.add("classes")
        found.constants += [constant("TARGET", names[0]), constant("CLASSES", list(columns.classes))]
        is_text = frame[names[0]].dtype == pl.String
        lower = ".str.to_lowercase()" if columns.classes == ("false", "true") else ""
        found.values |= {"y_is": "(N,): the number of the class", "lower": lower if is_text else ".cast(pl.String)"}
    else:
        scales = {target.column: (target.mean, target.deviation) for target in columns.targets}
        comment = "columns of y: mean, standard deviation" if data.scale else "columns of y"
        found.constants.append(constant("TARGETS", scales if data.scale else names, comment))
        found.values |= {"y_is": "(N, D_out): scaled" if data.scale else "(N, D_out)", "lower": ""}
    found.flags |= {"drop"} if frame.height != table.rows else set()
    found.values["targets"] = "TARGET" if columns.classes is not None else "list(TARGETS)" if data.scale else "TARGETS"
