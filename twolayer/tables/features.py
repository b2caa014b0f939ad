"""The encoding of a table: its features, targets and classes; saved with a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby
from math import isfinite
from typing import Any, Literal, TypeAlias

import numpy as np

from twolayer.errors import DataError
from twolayer.tables.options import SEPARATORS, Header

Kind: TypeAlias = Literal["number", "boolean", "category", "date"]
Order: TypeAlias = Literal["ymd", "dmy", "mdy", "time"]  # of dates in text; "time": times of day, without dates
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

PARTS = ("elapsed", "month sin", "month cos", "weekday sin", "weekday cos", "hour sin", "hour cos")  # of dates
THOUSANDS = (",", ".", "'", " ", "_")  # signs between the thousands of a number
_KEYS_OF_0_1_0 = ("features", "targets", "classes", "kinds", "decimal")
FLAT = 1e-12  # a standard deviation of less than this part of the mean is rounding


@dataclass(frozen=True)
class Notation:
    """How the numbers of a column are written: `$1,234.50` has the prefix `$`, thousands `,` and the decimal `.`.

    Signs before or after the currency, parentheses for negative numbers, exponents, and the digits and signs of other
    scripts are read in every notation.
    """

    decimal: str = "."
    thousands: str = ""
    prefix: str = ""
    suffix: str = ""

    @property
    def example(self) -> str:
        """A number in this notation."""
        return f"{self.prefix}1{self.thousands}234{self.decimal}5{self.suffix}"

    @property
    def is_sound(self) -> bool:
        """Whether the values are ones that `notation.find` may return."""
        texts = (self.decimal, self.thousands, self.prefix, self.suffix)
        return (
            all(isinstance(text, str) for text in texts)
            and self.decimal in (".", ",")
            and self.thousands in ("", *THOUSANDS)
            and self.thousands != self.decimal
        )


@dataclass(frozen=True)
class Feature:
    """One column of x: a number, 1 for text equal to `category`, 1 for a missing value, or a `part` of a date.

    `fill` replaces a missing number; None if none may be missing. x is (value - mean) / deviation, where `deviation` is
    the standard deviation.
    """

    name: str
    column: str
    kind: Literal["number", "category", "missing", "date"]
    category: str | None = None
    fill: float | None = None
    mean: float = 0.0
    deviation: float = 1.0
    part: str | None = None


@dataclass(frozen=True)
class Target:
    """One column to predict: y is (value - mean) / deviation, with the standard deviation; 0 and 1 for classes."""

    column: str
    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True)
class Encoding:
    """How a table becomes x and y. `classes` are those of the only target; None if numbers are predicted.

    `kinds` is the kind of each input column. `notations` has the columns of text (targets, too) whose numbers are not
    plain, `orders` those of dates; `decimal` is the decimal point of all others in the models of version 0.1.0.
    `na` are further texts for a missing value. `missing` is "mean" if a value may be missing in any input, "refuse" if
    only in those of which the training had some. `separator`, `header` and `sheet` say how the training's file was
    read: another is read in the same way first. `header` has the names of all its columns, in order, if the file itself
    has none.
    """

    features: tuple[Feature, ...]
    targets: tuple[Target, ...]
    classes: tuple[str, ...] | None
    kinds: dict[str, Kind]
    decimal: str = "."
    notations: dict[str, Notation] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    na: tuple[str, ...] = ()
    missing: str = "refuse"

    def notation(self, column: str) -> Notation | None:
        """How the numbers of a column of text are written; None if they are plain."""
        return self.notations.get(column) or (Notation(decimal=self.decimal) if self.decimal != "." else None)

    separator: str = "auto"
    header: Header = "auto"
    sheet: str | None = None

    def document(self) -> dict[str, Any]:
        """The encoding as JSON can hold it; `of` reads it."""
        return asdict(self)

    def document_of_0_1_0(self) -> dict[str, Any] | None:
        """The same as version 0.1.0 wrote it, for fingerprints; None if that version had no such encoding."""
        if self.notations or self.orders or self.na or self.missing != "refuse":
            return None
        found = {key: value for key, value in self.document().items() if key in _KEYS_OF_0_1_0}
        features = [{key: value for key, value in item.items() if key != "part"} for item in found["features"]]
        return found | {"features": features}

    @staticmethod
    def of(document: Any) -> Encoding:
        """The encoding that `document` wrote. Raises DataError for anything else."""
        try:
            columns = Encoding(
                tuple(Feature(**item) for item in document["features"]),
                tuple(Target(**item) for item in document["targets"]),
                None if document["classes"] is None else tuple(document["classes"]),
                dict(document["kinds"]),
                document["decimal"],
                {column: Notation(**item) for column, item in document.get("notations", {}).items()},
                dict(document.get("orders", {})),
                tuple(document.get("na", ())),
                document.get("missing", "refuse"),
                document.get("separator", "auto"),  # version 0.1.0 wrote no such keys
                _header(document.get("header", "auto")),
                document.get("sheet"),
            )
            if not _sound(columns):
                raise ValueError
        except (TypeError, ValueError, KeyError, AttributeError):
            raise DataError("the columns in the model file are damaged") from None
        return columns

    @property
    def inputs(self) -> tuple[str, ...]:
        """The input columns, in the order of their features."""
        return tuple(self.kinds)

    @cached_property
    def groups(self) -> tuple[tuple[str, tuple[Feature, ...]], ...]:
        """The input columns, each with its features."""
        return tuple((column, tuple(group)) for column, group in groupby(self.features, lambda item: item.column))

    @cached_property
    def mean(self) -> Array:
        """The features' means, (D_in,) float64."""
        return np.array([feature.mean for feature in self.features])

    @cached_property
    def deviation(self) -> Array:
        """The features' standard deviations, (D_in,) float64."""
        return np.array([feature.deviation for feature in self.features])


def _header(value: Any) -> Header:
    return value if value in ("auto", "first") else tuple(value)


def _sound(columns: Encoding) -> bool:
    """Whether everything has the types and the order that `dataset.read` gives it."""
    scaled: list[Feature | Target] = [*columns.features, *columns.targets]
    numbers = [n for item in scaled for n in (item.mean, item.deviation)]
    numbers += [feature.fill for feature in columns.features if feature.fill is not None]
    texts: list[Any] = [feature.name for feature in columns.features] + [item.column for item in scaled]
    texts += [feature.category for feature in columns.features if feature.kind == "category"]
    texts += [*columns.na, *(text for pair in columns.orders.items() for text in pair)]
    return (
        all(isinstance(number, float) and isfinite(number) for number in numbers)
        and all(item.deviation >= 0 for item in scaled)
        and all(isinstance(text, str) for text in [*texts, *columns.kinds, *(columns.classes or ())])
        and set(columns.kinds.values()) <= {"number", "boolean", "category", "date"}
        and all(feature.kind in ("number", "category", "missing", "date") for feature in columns.features)
        and all(feature.part in PARTS for feature in columns.features if feature.kind == "date")
        and all(notation.is_sound for notation in columns.notations.values())
        and set(columns.orders.values()) <= {"ymd", "dmy", "mdy", "time"}
        and columns.missing in ("refuse", "mean")
        and [column for column, _ in columns.groups] == list(columns.kinds)
        and columns.decimal in (".", ",")
        and columns.separator in ("auto", " ", *SEPARATORS)
        and (columns.header in ("auto", "first") or all(isinstance(name, str) for name in columns.header))
        and isinstance(columns.sheet, str | None)
        and bool(columns.features)
        and bool(columns.targets)
        and (columns.classes is None or len(columns.targets) == 1 < len(columns.classes))
    )


def safe_deviation(mean: Array, deviation: Array) -> Array:
    """The standard deviations to divide by: infinite for a constant feature, so that the result is 0."""
    return np.where(deviation > FLAT * np.abs(mean), deviation, np.inf)
