"""Which rows are held out: for validation, and as the folds of a cross-validation. By class for classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from twolayer.errors import DataError
from twolayer.formatting import counted
from twolayer.tables.encoding import shown
from twolayer.tables.features import Array
from twolayer.tables.labels import labels
from twolayer.tables.options import FileData
from twolayer.tables.survey import Survey

_SHOWN = 10  # classes, or categories, in a sentence


def validation_rows(found: Survey, part: float | None, seed: int, name: str, *, stratify: bool = True) -> Array:
    """Which rows are held out for validation, drawn with the seed: (rows,) booleans; none if `part` is None.

    Their number is that part of all rows, at least 1. With classes and `stratify` each class has its share of them,
    and keeps one row to train on. `name` is the file's, for errors. Raises DataError if fewer than 2 rows are
    left, or if no row can be held out.
    """
    rows = found.frame.height
    held = np.zeros(rows, dtype=bool)
    if part is not None and rows:
        count, random = max(1, round(part * rows)), np.random.default_rng([seed, 1])
        if found.classes is None or not stratify:
            held[random.choice(rows, count, replace=False, shuffle=False)] = True
        else:
            _draw_by_class(held, class_numbers(found), count, random, name)
    if (left := rows - int(held.sum())) < 2:
        out = f", of which {rows - left} are held out" if left < rows else ""
        raise DataError(f"{name}: has {counted(rows, 'row')}{out}; training needs 2 or more")
    return held


def _draw_by_class(held: Array, classes: Array, count: int, random: np.random.Generator, name: str) -> None:
    """Mark about `count` rows as held: of each class its share, rounded by the largest remainders."""
    sizes = np.bincount(classes)
    free = np.maximum(sizes - 1, 0)
    if not free.any():
        raise DataError(f"{name}: each class has one row, so none can be held out; set validation: null")
    shares = count * sizes / len(classes)
    counts = np.minimum(np.floor(shares).astype(int), free)
    order = np.lexsort((random.random(len(sizes)), -(shares - counts)))  # equal remainders in random order
    for k in order[(counts < free)[order]][: count - int(counts.sum())]:
        counts[k] += 1
    for k in np.flatnonzero(counts):
        held[random.choice(np.flatnonzero(classes == k), counts[k], replace=False, shuffle=False)] = True


def class_numbers(found: Survey) -> Array:
    """The number of each row's class in `found.classes`: (rows,) whole numbers."""
    if found.classes is None:
        raise ValueError("there are no classes")
    names = labels(found.frame[found.targets[0]])
    return names.cast(pl.Enum(found.classes)).to_physical().cast(pl.Int64).to_numpy()


def notes(found: Survey, held: Array) -> tuple[str, ...]:
    """What the user should know about the rows that are held out, a sentence each.

    The classes of which none is held out, and the categories that no training row has.
    """
    if not held.any():
        return ()
    lines = []
    if found.classes is not None:
        numbers = class_numbers(found)
        sizes, counts = (np.bincount(part, minlength=len(found.classes)) for part in (numbers, numbers[held]))
        rare = [
            f"{found.classes[k]} ({counted(int(sizes[k]), 'row')})" for k in np.flatnonzero((counts == 0) & (sizes > 0))
        ]
        if rare:
            what = "class" if len(rare) == 1 else "classes"
            lines.append(f"no row is held out for validation of the {what} {_listed(rare)}")
    for column, kind in found.kinds.items():
        if kind == "category":
            cells = found.frame[column]
            known = cells.filter(pl.Series(~held)).unique()
            new = cells.filter(pl.Series(held)).drop_nulls().unique()
            if only := new.filter(~new.is_in(known.implode())).sort().to_list():
                what = "category" if len(only) == 1 else "categories"
                lines.append(
                    f"column {shown(column)}: no training row has the {what} {_listed(only)}, only validation rows"
                )
    return tuple(lines)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def folds(found: Survey, count: int, seed: int, repeat: int, data: FileData) -> Iterator[Array]:
    """The rows to test in each of `count` folds, drawn with the seed and the repeat: (rows,) booleans.

    Every row is in one fold, and their sizes differ by 1 at most; with classes and `data.stratify`, so do the numbers
    of each class's rows in them.
    """
    random = np.random.default_rng([seed, 2, repeat])
    order = random.permutation(found.frame.height)
    if found.classes is not None and data.stratify:
        order = order[np.argsort(class_numbers(found)[order], kind="stable")]
    fold = np.empty(len(order), dtype=np.int64)
    fold[order] = np.arange(len(order)) % count
    for number in range(count):
        yield fold == number


def check_folds(found: Survey, count: int, data: FileData) -> None:
    """Raise DataError if the table has fewer rows than folds, or too few rows of a class."""
    rows = found.frame.height
    if count > rows:
        raise DataError(f"{data.path}: has {counted(rows, 'row')}, too few for --folds {count}; use at most {rows}")
    if found.classes is None or not data.stratify:
        return
    sizes = np.bincount(class_numbers(found), minlength=len(found.classes))
    smallest = int(np.argmin(np.where(sizes > 0, sizes, rows + 1)))
    if (size := int(sizes[smallest])) < count:
        few = f"{data.path}: class {found.classes[smallest]} has {counted(size, 'row')}, too few for --folds {count}"
        hint = f"use at most {size}, or drop that class" if size > 1 else "drop that class"
        raise DataError(f"{few}, because each fold needs one of every class; {hint}, or set data.stratify: false")
