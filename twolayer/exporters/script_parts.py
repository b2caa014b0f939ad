"""The code of predict.py, which `script.py` puts together; nothing imports it to call it.

Names in capitals stand for constants of the model. Lines between `#: if ...` and
`#: end` are in a script only if its model needs them. The lines have at most 88
characters: those of a script are as ruff formats them by itself.
"""

# fmt: off
from __future__ import annotations

import csv
import io
import re
import sys
import unicodedata
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, str]
SEPARATOR, DTYPE, PLAIN = (
    ",",
    "float32",
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?",
)
HEADER: list[str] = []
KINDS: dict[str, str] = {}
FEATURES: list[tuple[str, str, str | None, float | None, float, float]] = []
TARGETS: list[tuple[str, float, float]] = []
CLASSES: list[str] = []
NEVER_MISSING: set[str] = set()
MISSING: set[str] = set()
MISSING_IN_NUMBERS: set[str] = set()
MISSING_NUMBERS: set[float] = set()
CATEGORIES: dict[str, set[str | None]] = {}
UNKNOWN: Counter[str] = Counter()
NOTATIONS: dict[str, tuple[str, str, str, str, str]] = {}
SAME: dict[str, str] = {}
DATES: dict[str, list[str]] = {}
MONTHS: list[str] = []
W1: np.ndarray = np.zeros((1, 1))
B1 = W2 = B2 = W1


def number(cell: str, column: str) -> float:
    """A number in plain text, or in the notation of its column."""
    #: if notations
    if column in NOTATIONS:
        form, plain, decimal, thousands, example = NOTATIONS[column]
        text = "".join(map(in_ascii, cell))
        if (found := re.fullmatch(form, text)) and has_one_sign(found):
            body = found["body"].replace(thousands or " ", "").replace(decimal, ".")
            is_negative = found["open"] or "-" in (found["sign"], found["inner"])
            return -finite(body) if is_negative else finite(body)
        if re.fullmatch(plain, text):
            return finite(text)
        raise ValueError(f"{cell[:40]!r} is not a number; in training: {example}")
    #: end
    if not re.fullmatch(PLAIN, cell):
        raise ValueError(f"{cell[:40]!r} is not a number")
    return finite(cell)


def finite(text: str) -> float:
    """A number; one that is too large for a float64 is refused."""
    if abs(float(text)) == float("inf"):
        raise ValueError("is infinite")
    return float(text)


def in_ascii(letter: str) -> str:
    """A digit of any script, or a sign, in ASCII."""
    if letter.isdecimal():
        return str(unicodedata.decimal(letter))
    return SAME.get(letter, letter)


def has_one_sign(found: re.Match[str]) -> bool:
    """Whether a number has at most one sign, and both of its parentheses or none."""
    is_paired = (found["open"] is None) == (found["close"] is None)
    return is_paired and [found["sign"], found["inner"], found["open"]].count(None) > 1


def boolean(cell: str, column: str) -> float:
    """1 for true, 0 for false."""
    lower = cell.lower()
    if lower in ("false", "true"):
        return float(lower == "true")
    value = number(cell, column)
    if value not in (0, 1):
        raise ValueError(f"{cell[:40]} is neither true (1) nor false (0)")
    return value


def category(cell: str, column: str) -> str:
    """The text of a category; of one that is not known its number, if that is: 1."""
    if cell in CATEGORIES[column] or not re.fullmatch(PLAIN, cell):
        return cell
    value = float(cell)
    text = str(int(value)) if value.is_integer() else str(value)
    return text if text in CATEGORIES[column] else cell


def date(cell: str, column: str) -> datetime:
    """A date, or a time of 1970-01-01; in UTC if it has a time zone."""
    for pattern in DATES[column]:
        if found := re.fullmatch(pattern, cell.lower()):
            try:
                return moment(found.groupdict())
            except (ValueError, OverflowError):  # such as 31 February
                continue
    raise ValueError(f"{cell[:40]!r} is not a date")


def moment(part: dict[str, str | None]) -> datetime:
    """A date of the parts of its text."""
    year = int(part.get("y") or 1970)
    if len(part.get("y") or "") == 2:
        year += 2000 if year < 69 else 1900
    name = part.get("name")
    month = MONTHS.index(name[:3]) + 1 if name else int(part.get("m") or 1)
    hour, half = int(part.get("h") or 0), part.get("half")
    if half:
        if not 1 <= hour <= 12:
            raise ValueError
        hour = hour % 12 + 12 * (half == "p")
    minute, second = int(part.get("min") or 0), int(part.get("s") or 0)
    micro = int((part.get("f") or "0")[:6].ljust(6, "0"))
    when = datetime(year, month, int(part.get("d") or 1), hour, minute, second, micro)
    if zone := re.fullmatch(r"([+-])(\d\d):?(\d\d)?", part.get("zone") or ""):
        shift = timedelta(hours=int(zone[2]), minutes=int(zone[3] or 0))
        when += shift if zone[1] == "-" else -shift
    return when


def part_of(when: datetime, part: str) -> float:
    """Days since 1970-01-01, or the sine or cosine of month, weekday or hour."""
    unit, _, function = part.partition(" ")
    if unit == "elapsed":
        return (when - datetime(1970, 1, 1)) / timedelta(days=1)
    turns = {
        "month": (when.month - 1) / 12,
        "weekday": when.weekday() / 7,
        "hour": (when.hour + when.minute / 60) / 24,
    }[unit]
    angle = 2 * np.pi * turns
    return float(np.sin(angle) if function == "sin" else np.cos(angle))


def value_of(cell: str, column: str) -> Any:
    """A cell by the kind of its column; None if it has no value. Raises ValueError."""
    cell, kind, value = cell.strip(), KINDS[column], None
    is_category = kind == "category"
    if cell not in MISSING and (is_category or cell.lower() not in MISSING_IN_NUMBERS):
        value = PARSERS[kind](cell, column)
    #: if marks
    if value in MISSING_NUMBERS:
        value = None
    #: end
    #: if required
    if value is None and column in NEVER_MISSING:
        raise ValueError("has no value, and none was missing in training")
    #: end
    return value


def feature(value: Any, kind: str, key: Any, fill: float | None) -> float | None:
    """The number that a value is for the network, before it is standardised."""
    if kind == "missing":
        return float(value is None)
    if kind == "category":
        return float(value == key)
    if value is None:
        return fill
    #: if dates
    if kind == "date":
        return part_of(value, key)
    #: end
    return float(value)


def encode(rows: list[Row]) -> np.ndarray:
    """The inputs x (rows, D_in), standardised; counts categories that are unknown."""
    x = np.zeros((len(rows), len(FEATURES)))
    for at, row in enumerate(rows):
        values = {}
        for column in KINDS:
            try:
                values[column] = value_of(row[column], column)
            except ValueError as error:
                raise ValueError(f"row {at + 1}, column {column}: {error}") from None
        for column, known in CATEGORIES.items():
            UNKNOWN[column] += values[column] not in {*known, None}
        for j, (column, kind, key, fill, *_) in enumerate(FEATURES):
            x[at, j] = feature(values[column], kind, key, fill)
    mean, deviation = np.array([feature[-2:] for feature in FEATURES], float).T
    out = np.zeros_like(x)
    np.divide(x - mean, deviation, out=out, where=deviation > 0)
    return out


def network(x: np.ndarray) -> np.ndarray:
    """The outputs y (rows, D_out) of the two layers."""
    hidden = np.maximum(0, x.astype(DTYPE) @ W1.T + B1)
    y: np.ndarray = (hidden @ W2.T + B2).astype("float64")
    return y


def predictions_of_numbers(y: np.ndarray) -> dict[str, list[Any]]:
    """The columns of predictions: the targets in their own units."""
    found = {}
    for (name, mean, deviation), outputs in zip(TARGETS, y.T, strict=True):
        found[f"{name}_predicted"] = (outputs * deviation + mean).tolist()
    return found


def predictions_of_classes(y: np.ndarray) -> dict[str, list[Any]]:
    """The columns of predictions: the class, and the probability of each."""
    powers = np.exp(y - y.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    target = TARGETS[0][0]
    found: dict[str, list[Any]] = {}
    found[f"{target}_predicted"] = [CLASSES[k] for k in shares.argmax(axis=1)]
    for k, name in enumerate(CLASSES):
        found[f"{target}_p_{name}"] = shares[:, k].tolist()
    return found


predictions = predictions_of_numbers


def predict(rows: list[Row]) -> dict[str, list[Any]]:
    """The columns of predictions for rows, which are texts by column."""
    return predictions(network(encode(rows)))


def read(text: str) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows."""
    layout: Any = {"delimiter": SEPARATOR, "skipinitialspace": SEPARATOR == " "}
    cells = csv.reader(io.StringIO(text, newline=""), **layout)
    lines = [line for line in cells if line]
    if not lines:
        raise ValueError("is empty")
    header = [name if name in KINDS else name.strip() for name in lines[0]]
    #: if headless
    if not set(KINDS) <= set(header):  # as in training, the first line is a row
        targets = [name for name, _, _ in TARGETS]
        for names in (HEADER, [name for name in HEADER if name not in targets]):
            if len(names) == len(header):
                header, lines = names, [names, *lines]
                break
    #: end
    if lacking := [column for column in KINDS if column not in header]:
        raise ValueError(f"has no column {', '.join(lacking)}")
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(header):
            width = f"{len(line)} cells, and the first line has {len(header)}"
            raise ValueError(f"row {number} has {width}")
    return header, lines[1:]


def main_of_table(path: str) -> None:
    """Write the rows of a CSV with their predictions to stdout."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        header, lines = read(data.decode("utf-8-sig"))
        found = predict([dict(zip(header, line, strict=True)) for line in lines])
        if taken := [name for name in found if name in header]:
            raise ValueError(f"already has a column {taken[0]}")
    except (OSError, ValueError, csv.Error) as error:
        sys.exit(f"{path}: {getattr(error, 'strerror', None) or error}")
    for column, count in (+UNKNOWN).items():
        what = f"column {column}: a category that is not known, rows: {count}"
        sys.stderr.write(f"{path}: {what}\n")

    class Rows:
        """Rows that end with LF; csv quotes a cell with a CR only where rows end with CR and LF."""

        def write(self, row: str) -> int:
            return sys.stdout.write(row.removesuffix("\r\n") + "\n")

    out = csv.writer(Rows())
    out.writerow([*header, *found])
    for line, *values in zip(lines, *found.values(), strict=True):
        out.writerow([*line, *values])


def main_of_numbers(path: str) -> None:
    """Write the outputs for the rows of a file of numbers, without names, to stdout."""
    try:
        x = np.loadtxt(path if path != "-" else sys.stdin, delimiter=",", ndmin=2)
        if x.shape[1] != W1.shape[1]:
            width = f"{x.shape[1]} numbers, and the network takes {W1.shape[1]}"
            raise ValueError(f"its rows have {width}")
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {getattr(error, 'strerror', None) or error}")
    csv.writer(sys.stdout, lineterminator="\n").writerows(network(x).tolist())


PARSERS: dict[str, Any] = {
    "number": number,
    "boolean": boolean,
    "category": category,
    "date": date,
}
