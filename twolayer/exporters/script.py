"""A model as predict.py: one file of Python that needs numpy alone."""

from __future__ import annotations

import base64
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from twolayer.exporters import script_parts
from twolayer.exporters.network import Network, deviations, may_be_missing
from twolayer.formatting import counted
from twolayer.tables import dates, notation
from twolayer.tables.encoding import MARKS, numeric_marks
from twolayer.tables.features import Encoding, Notation
from twolayer.tables.sources import MISSING
from twolayer.version import __version__

_WIDTH = 88  # of a line, as ruff and black have it by themselves
_LIBRARIES = {"re": r"\bre\.", "unicodedata": r"\bunicodedata\.", "io": r"\bio\."}  # imported if used
_END = """
if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FILE (- is stdin)")
    try:
        main(sys.argv[1])
        sys.stdout.flush()
    except BrokenPipeError:  # its reader, such as `| head`, wants no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
"""


def dump(network: Network) -> bytes:
    """The script. It is as ruff formats it."""
    columns = network.columns
    wanted = set() if columns is None else _wanted(columns)
    code = [_code(part, wanted) for part in _functions(columns)]
    last = [*_parsers(columns), *_weights(network)]
    body = "\n\n\n".join([*code, "\n".join(last)])
    constants = "\n".join(["# fmt: off", *_constants(network), "# fmt: on"])
    head = [f'"""{_about(network)}"""\n', *_imports(body, table=columns is not None), "\n" + constants]
    return ("\n".join(head) + f"\n\n\n{body}\n{_END}").encode()


def separator(columns: Encoding) -> str:
    """The separator of the CSVs that the script reads: that of the training's, or a comma."""
    return columns.separator if len(columns.separator) == 1 else ","


def _about(network: Network) -> str:
    columns, (D_in, H, D_out) = network.columns, network.shape
    if columns is None:
        what, use = "The outputs", "python predict.py x.csv > y.csv"
        table = f"x.csv has {counted(D_in, 'number')} in each row, with commas between them, and no header."
    else:
        names = [re.sub(r'[\\"]', "?", target.column) for target in columns.targets[:3]]
        named = ", ".join(name if name.isprintable() else "?" for name in names)
        more = f" and {counted(len(columns.targets) - 3, 'column')} more" if len(columns.targets) > 3 else ""
        what, use = f"Predictions of {named}{more}", "python predict.py new.csv > predicted.csv"
        table = "new.csv has the columns of KINDS, by their names; its other columns are copied."
    return (
        f"{what}, by a network that twolayer trained.\n\n    {use}\n\n{table}\nNeeds Python 3.11 and numpy.\n\n"
        f"Linear, ReLU, Linear: D_in {D_in}, H {H}, D_out {D_out}, {network.dtype}.\n"
        f"Written by twolayer {__version__}; its model.safetensors has the SHA-256\n{network.sha256}\n"
    )


def _wanted(columns: Encoding) -> set[str]:
    """The marks of `script_parts` whose lines the model needs."""
    there = {
        "notations": any(columns.notation(column) for column in _numbers(columns)),
        "dates": "date" in columns.kinds.values(),
        "marks": bool(numeric_marks(columns.na)),
        "headless": isinstance(columns.header, tuple),
        "required": bool(_never_missing(columns)),
    }
    return {mark for mark, is_there in there.items() if is_there}


def _never_missing(columns: Encoding) -> set[str]:
    return {column for column, features in columns.groups if not may_be_missing(columns, features)}


def _numbers(columns: Encoding) -> list[str]:
    return [column for column, kind in columns.kinds.items() if kind in ("number", "boolean")]


def _functions(columns: Encoding | None) -> Iterator[Callable[..., Any]]:
    parts = script_parts
    if columns is None:
        yield from (parts.network, parts.main_of_numbers)
        return
    kinds, wanted = set(columns.kinds.values()), _wanted(columns)
    if kinds & {"number", "boolean"}:
        yield from (parts.number, parts.finite)
    if "notations" in wanted:
        yield from (parts.in_ascii, parts.has_one_sign)
    if "boolean" in kinds:
        yield parts.boolean
    if "category" in kinds:
        yield parts.category
    if "date" in kinds:
        yield from (parts.date, parts.moment, parts.part_of)
    yield from (parts.value_of, parts.feature, parts.encode, parts.network)
    yield parts.predictions_of_numbers if columns.classes is None else parts.predictions_of_classes
    yield from (parts.predict, parts.read, parts.main_of_table)


def _code(function: Callable[..., Any], wanted: set[str]) -> str:
    """The source of a function, without the lines that the model does not need."""
    lines, is_kept = [], True
    for line in inspect.getsource(function).rstrip().split("\n"):
        if mark := re.fullmatch(r" *#: (if (\w+)|end)", line):
            is_kept = mark[2] is None or mark[2] in wanted
        elif is_kept:
            lines.append(line)
    return re.sub(r"^def (predictions|main)_of_\w+\(", r"def \1(", "\n".join(lines))


def _imports(body: str, *, table: bool) -> Iterator[str]:
    modules = ["base64", "csv", "os", "sys", *(name for name, use in _LIBRARIES.items() if re.search(use, body))]
    yield from (f"import {name}" for name in sorted(modules))
    if table:
        yield "from collections import Counter"
        if "timedelta" in body:
            yield "from datetime import datetime, timedelta"
        yield from ("from pathlib import Path", "from typing import Any")
    yield from ("", "import numpy as np")


# --- constants


def _constants(network: Network) -> Iterator[str]:
    columns = network.columns
    yield f'DTYPE = "{network.dtype}"'
    if columns is None:
        return
    yield "Row = dict[str, str]  # texts by column"
    yield f"SEPARATOR = {_text(separator(columns))}"
    if isinstance(columns.header, tuple):
        yield _assigned("HEADER", list(columns.header))
    yield "# Plain numbers."
    yield f'PLAIN = r"{script_parts.PLAIN}"'
    yield "# Texts without a value; in numbers and dates, those in lower case, too."
    yield _assigned("MISSING", {*MISSING, *columns.na}, flowing=True)
    yield _assigned("MISSING_IN_NUMBERS", set(MARKS), flowing=True)
    if marks := numeric_marks(columns.na):
        yield _assigned("MISSING_NUMBERS", set(marks))
    yield "# What each column of the inputs is."
    yield _assigned("KINDS", columns.kinds)
    if never := _never_missing(columns):
        yield _assigned("NEVER_MISSING", never)
    yield from _notations(columns)
    yield "# What x is made of: column, kind, category or part of a date, value where missing,"
    yield "# mean, standard deviation (0 where it was constant)."
    spread = np.where(np.isfinite(deviations(columns)), columns.deviation, 0.0).tolist()
    pairs = zip(columns.features, spread, strict=True)
    features = [(f.column, f.kind, f.category or f.part, f.fill, f.mean, deviation) for f, deviation in pairs]
    yield _assigned("FEATURES", features)
    yield "CATEGORIES = {"
    yield "    column: {key for name, _, key, *_ in FEATURES if name == column and key}"
    yield '    for column, kind in KINDS.items()\n    if kind == "category"\n}'
    yield "UNKNOWN: Counter[str] = Counter()  # rows whose category is not known, by column"
    yield "# The columns that are predicted, mean, standard deviation."
    yield _assigned("TARGETS", [(target.column, target.mean, target.deviation) for target in columns.targets])
    if columns.classes is not None:
        yield _assigned("CLASSES", list(columns.classes))


def _notations(columns: Encoding) -> Iterator[str]:
    forms = {column: form for column in _numbers(columns) if (form := columns.notation(column))}
    if forms:
        yield "# Numbers in a notation: the pattern, that of plain ones, decimal point, thousands."
        yield _assigned("NOTATIONS", {column: patterns(form) for column, form in forms.items()})
        yield _assigned("SAME", notation.SAME, flowing=True)
    dated = [column for column, kind in columns.kinds.items() if kind == "date"]
    if not dated:
        return
    orders = {column: columns.orders.get(column, "ymd") for column in dated}
    yield "# Patterns of dates in lower case; the first that gives a date counts."
    yield f"TIME = {_text(dates.TIME_BEHIND)}"
    for order in sorted(set(orders.values())):
        texts = dates.patterns(order)
        yield _assigned(order.upper(), [text.removesuffix(dates.TIME_BEHIND) for text in texts])
        if texts[0].endswith(dates.TIME_BEHIND):
            yield f"{order.upper()} = [date + TIME for date in {order.upper()}]"
    yield "DATES = {" + ", ".join(f"{_text(column)}: {order.upper()}" for column, order in orders.items()) + "}"
    yield _assigned("MONTHS", list(dates.MONTHS), flowing=True)


def patterns(form: Notation) -> tuple[str, ...]:
    """What `script_parts.number` reads a notation by."""
    prefix, suffix = re.escape(form.prefix), re.escape(form.suffix)
    body = notation.body_pattern(form.decimal, form.thousands).removeprefix("^").removesuffix("$")
    cell = rf"(?P<open>\()? *(?P<sign>[+-])? *{prefix} *(?P<inner>[+-])? *(?P<body>{body}) *{suffix} *(?P<close>\))?"
    plain = notation.plain_pattern(form).removeprefix("^").removesuffix("$")
    return cell, plain, form.decimal, form.thousands, form.example


def _parsers(columns: Encoding | None) -> Iterator[str]:
    """The function that reads the cells of each kind, by its name."""
    if columns is not None:
        kinds = sorted(set(columns.kinds.values()))
        yield "PARSERS = {" + ", ".join(f'"{kind}": {kind}' for kind in kinds) + "}"


def _weights(network: Network) -> Iterator[str]:
    D_in, H, D_out = network.shape
    tensors = (network.w1, network.b1, network.w2, network.b2)
    form = f"<f{network.w1.itemsize}"
    data = base64.b64encode(b"".join(tensor.astype(form).tobytes() for tensor in tensors)).decode()
    ends = np.cumsum([tensor.size for tensor in tensors])[:-1].tolist()
    yield f"# Weights (H, D_in) and biases (H,), weights (D_out, H) and biases (D_out,): {form}."
    yield 'WEIGHTS = """'
    yield from (data[at : at + _WIDTH] for at in range(0, len(data), _WIDTH))
    yield '"""'
    yield f'NUMBERS = np.frombuffer(base64.b64decode(WEIGHTS), "{form}")'
    yield f"W1, B1, W2, B2 = np.split(NUMBERS, {ends})"
    yield f"W1, W2 = W1.reshape({H}, {D_in}), W2.reshape({D_out}, {H})"


# --- literals


def _assigned(name: str, value: Any, *, flowing: bool = False) -> str:
    """An assignment of a container: in one line if it fits, else an item a line, or, if `flowing`, as many as fit."""
    whole = f"{name} = {_inline(value)}"
    if len(whole) <= _WIDTH or not value:
        return whole
    first, last = _inline(value)[0], _inline(value)[-1]
    if isinstance(value, dict):
        items = [f"{_text(key)}: {_inline(one)}" for key, one in value.items()]
    else:
        items = [_inline(one) for one in (sorted(value) if isinstance(value, set) else value)]
    lines = items[:1]
    for item in items[1:]:
        if flowing and len(lines[-1]) + len(item) + 7 <= _WIDTH:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return f"{name} = {first}\n" + "".join(f"    {line},\n" for line in lines) + last


def _inline(value: Any) -> str:
    """A value as Python, in one line."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_inline(one)}" for key, one in value.items()) + "}"
    if isinstance(value, set):
        return "{" + ", ".join(map(_inline, sorted(value))) + "}" if value else "set()"
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_inline, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)


def _text(text: str) -> str:
    """A text as Python, in the quotes that ruff takes."""
    if "\\" in text and text.isprintable() and '"' not in text and not text.endswith("\\"):
        return f'r"{text}"'  # a pattern
    inner = repr(text + "'" + '"')[1:-1].removesuffix("\\'\"")  # with escapes for a single quote alone
    inner = inner.replace("\\'", "'")
    if text.count('"') > text.count("'"):
        return "'" + inner.replace("'", "\\'") + "'"
    return '"' + inner.replace('"', '\\"') + '"'
