"""A model as ONNX: a graph made by hand, from the columns of a table to predictions in the units of the targets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from twolayer.errors import RunError, extra
from twolayer.exporters.network import Network, deviations, document
from twolayer.exporters.onnx_graph import Graph
from twolayer.tables.encoding import numeric_marks, shown
from twolayer.tables.features import Array, Encoding, Feature
from twolayer.tables.sources import MISSING
from twolayer.version import __version__

with extra("onnx", "export"):
    import onnx

OPSET, ML_OPSET, IR = 17, 3, 8  # those of onnx 1.12, of 2022
_MAX_BYTES = 2**31 - 2**20  # of weights; a file of protobuf has less than 2 GiB
_UNITS = {"month": 12, "weekday": 7, "hour": 24}  # of a turn


def dump(network: Network, path: Path) -> bytes:
    """The file; `path` is for the error. Raises RunError if it would be too large."""
    weights = (network.w1, network.b1, network.w2, network.b2)
    if sum(array.nbytes for array in weights) > _MAX_BYTES:
        raise RunError("would have over 2 GiB, which ONNX cannot have", path=path, hint="write .json or .py")
    columns = network.columns
    taken = () if columns is None else (*columns.inputs, *(target.column for target in columns.targets))
    graph = Graph(taken)
    if columns is None:
        y = _layers(graph, network, graph.input("x", network.w1.dtype, network.shape[0]), name="y")
        graph.output(y, network.w1.dtype, network.shape[2])
    else:
        y = _layers(graph, network, graph.op("Cast", _features(graph, columns), to=network.w1.dtype))
        _predictions(graph, columns, graph.op("Cast", y, to=np.dtype(np.float64)))
    about = json.dumps(document(network), ensure_ascii=False, allow_nan=False)
    D_in, H, D_out = network.shape
    return graph.serialized(
        {"": OPSET, "ai.onnx.ml": ML_OPSET},
        ir_version=IR,
        producer_name="twolayer",
        producer_version=__version__,
        doc_string=f"Linear, ReLU, Linear: D_in {D_in}, H {H}, D_out {D_out}, {network.dtype}",
        metadata={"twolayer": about},
    )


def _layers(graph: Graph, network: Network, x: str, name: str = "output") -> str:
    """The two linear layers: (rows, D_out), in the training's dtype."""
    w1, b1 = graph.constant(network.w1, "0.weight"), graph.constant(network.b1, "0.bias")
    hidden = graph.op("Relu", graph.op("Gemm", x, w1, b1, transB=1), name="hidden")
    w2, b2 = graph.constant(network.w2, "2.weight"), graph.constant(network.b2, "2.bias")
    return graph.op("Gemm", hidden, w2, b2, transB=1, name=name)


def _predictions(graph: Graph, columns: Encoding, y: str) -> None:
    """The outputs of the graph, from y (rows, D_out) float64."""
    if columns.classes is not None:
        shares = graph.op("Softmax", y, axis=1, name="probability")
        best = graph.op("ArgMax", shares, axis=1, keepdims=1)
        names: dict[str, Any] = {"keys_int64s": [*range(len(columns.classes))], "values_strings": [*columns.classes]}
        chosen = graph.op("LabelEncoder", best, domain="ai.onnx.ml", name="class", **names)
        graph.output(chosen, str, 1, f"the most probable class of {shown(columns.targets[0].column)}")
        classes = ", ".join(columns.classes)
        graph.output(shares, np.float64, len(columns.classes), f"the probabilities of the classes, in order: {classes}")
        return
    mean, deviation = ([getattr(t, key) for t in columns.targets] for key in ("mean", "deviation"))
    scaled = graph.op("Mul", y, graph.constant(np.array(deviation), "targets.deviation"))
    all_of_them = graph.op("Add", scaled, graph.constant(np.array(mean), "targets.mean"))
    for number, target in enumerate(columns.targets):
        one = graph.gather(all_of_them, [number], graph.free(target.column or "target", of_column=True))
        form = columns.notation(target.column)
        units = f"; in the table it is written like {form.example}" if form is not None else ""
        graph.output(one, np.float64, 1, f"the prediction of {shown(target.column)}, in its own units{units}")


# --- the inputs


def _features(graph: Graph, columns: Encoding) -> str:
    """x, standardised: (rows, D_in) float64, from an input of the graph for each column."""
    inputs = {column: _input(graph, columns, column, features) for column, features in columns.groups}
    numbers = [column for column, kind in columns.kinds.items() if kind in ("number", "boolean")]
    dated = [column for column, kind in columns.kinds.items() if kind == "date"]
    pieces: list[str] = []
    made: list[Feature] = []  # the features, in the order of the pieces
    for group, kinds in ((numbers, ("number", "boolean")), (dated, ("date",))):
        own = [feature for column, features in columns.groups if columns.kinds[column] in kinds for feature in features]
        if own:
            values = graph.concat([inputs[column] for column in group])
            found, theirs = _filled(graph, columns, group, own, values, dated=group is dated)
            pieces.append(found)
            made += theirs
    for column, features in columns.groups:
        if columns.kinds[column] == "category":
            pieces.append(_category(graph, columns, features, inputs[column]))
            made += features
    x, place = graph.concat(pieces), {feature: number for number, feature in enumerate(made)}
    if made != list(columns.features):
        x = graph.gather(x, [place[feature] for feature in columns.features])
    centred = graph.op("Sub", x, graph.constant(columns.mean, "inputs.mean"))
    return graph.op("Div", centred, graph.constant(deviations(columns), "inputs.deviation"), name="x")


def _input(graph: Graph, columns: Encoding, column: str, features: tuple[Feature, ...]) -> str:
    """The input of a column, and in its doc string what it may hold."""
    kind, form = columns.kinds[column], columns.notation(column)
    may = columns.missing == "mean" or features[-1].kind == "missing"
    name = graph.free(column or "column", of_column=True)
    if kind == "category":
        missing = '"" where it is missing' if may else "never missing"
        return graph.input(name, str, 1, f"text, without blanks around it; {missing}")
    missing = "NaN where it is missing" if may else "never missing"
    what = {
        "number": "a number",
        "boolean": "1 for true, 0 for false",
        "date": "a date as the number of days since 1970-01-01 00:00 (UTC), with the time of day as its fraction",
    }[kind]
    if kind == "date" and columns.orders.get(column) == "time":
        what = "a time of day as a part of the day: 0.5 is noon"
    if form is not None:
        what += f", as a number; ONNX cannot read text like {form.example}"
    return graph.input(name, np.float64, 1, f"{what}; {missing}")


def _filled(
    graph: Graph, columns: Encoding, group: Sequence[str], own: list[Feature], values: str, *, dated: bool
) -> tuple[str, list[Feature]]:
    """The features of numbers or dates, (rows, n) float64, and which they are, from values (rows, columns)."""
    gone = graph.op("IsNaN", values)
    for mark in numeric_marks(columns.na) if not dated else ():
        gone = graph.op("Or", gone, graph.op("Equal", values, graph.constant(np.array(mark), "mark")))
    plain = [feature for feature in own if feature.kind != "missing"]
    place = {column: number for number, column in enumerate(group)}
    at = [place[feature.column] for feature in plain]
    found = _parts(graph, plain, at, values) if dated else values
    fill = graph.constant(np.array([np.nan if f.fill is None else f.fill for f in plain]), "fill")
    is_gone = graph.gather(gone, at) if at != list(range(len(group))) else gone
    pieces = [graph.op("Where", is_gone, fill, found)]
    marked = [feature for feature in own if feature.kind == "missing"]
    if marked:
        flags = graph.gather(gone, [place[feature.column] for feature in marked])
        pieces.append(graph.op("Cast", flags, to=np.dtype(np.float64)))
    return graph.concat(pieces), plain + marked


def _category(graph: Graph, columns: Encoding, features: tuple[Feature, ...], text: str) -> str:
    """A column of 0 and 1 for each category, and for a missing one if it has a feature: (rows, n) float64."""
    codes = {feature.category: code for code, feature in enumerate(features) if feature.category is not None}
    if features[-1].kind == "missing":
        codes |= {mark: len(features) - 1 for mark in (*MISSING, *columns.na)}
    for name, code in list(codes.items()):  # 1.0 is 1, as in tables of other formats than CSV
        if name is not None and name.lstrip("-").isdecimal():
            codes.setdefault(f"{name}.0", code)
    pairs: dict[str, Any] = {"keys_strings": list(codes), "values_int64s": list(codes.values()), "default_int64": -1}
    number = graph.op("LabelEncoder", text, domain="ai.onnx.ml", **pairs)
    is_it = graph.op("Equal", number, graph.constant(np.arange(len(features)), "codes"))
    return graph.op("Cast", is_it, to=np.dtype(np.float64))


def _parts(graph: Graph, features: list[Feature], at: list[int], days: str) -> str:
    """The parts of dates, (rows, features) float64, from days since 1970-01-01 (rows, columns)."""
    number = graph.number
    micro = graph.op("Round", graph.op("Mul", days, number(86_400e6)))
    minutes = graph.op("Floor", graph.op("Div", micro, number(60e6)))
    day = graph.op("Floor", graph.op("Div", minutes, number(1440)))
    found: dict[str, str] = {"elapsed": days}
    units = {feature.part.partition(" ")[0] for feature in features if feature.part is not None}
    for unit in sorted(units - {"elapsed"}):
        if unit == "hour":
            value = graph.op("Div", graph.op("Sub", minutes, graph.op("Mul", day, number(1440))), number(60))
        elif unit == "weekday":  # 1970-01-01 was a Thursday
            value = graph.remainder(graph.op("Add", day, number(3)), 7)
        else:
            value = _month(graph, day)
        angle = graph.op("Mul", value, number(2 * np.pi / _UNITS[unit]))
        found[f"{unit} sin"] = graph.op("Sin", angle)
        found[f"{unit} cos"] = graph.op("Sin", graph.op("Add", angle, number(np.pi / 2)))  # runtimes lack its cosine
    columns = [graph.gather(found[str(feature.part)], [j]) for feature, j in zip(features, at, strict=True)]
    return graph.concat(columns)


def _month(graph: Graph, day: str) -> str:
    """The month, 0 to 11, of days since 1970-01-01: in years from March on, in which leap days come last."""
    number, op, quotient = graph.number, graph.op, graph.quotient
    in_era = graph.remainder(op("Add", day, number(719_468)), 146_097)  # days of 400 years, from 0000-03-01 on
    leap = op(
        "Sub", op("Add", op("Sub", in_era, quotient(in_era, 1460)), quotient(in_era, 36_524)), quotient(in_era, 146_096)
    )
    year = quotient(leap, 365)
    before = op("Sub", op("Add", op("Mul", year, number(365)), quotient(year, 4)), quotient(year, 100))
    in_year = op("Sub", in_era, before)
    from_march = quotient(op("Add", op("Mul", in_year, number(5)), number(2)), 153)
    return graph.remainder(op("Add", from_march, number(2)), 12)


# --- trying it


def predicted(data: bytes, network: Network, values: dict[str, Array], path: Path) -> tuple[Array, str]:
    """What the file predicts: targets or probabilities, (rows, D_out) float64; and what ran it.

    `values` are those of `sample.rows`, `path` is for the error. Raises RunError where the file does not run.
    """
    columns = network.columns
    names = [one.name for one in onnx.load_from_string(data).graph.input]
    arrays = [values["x"]] if columns is None else [values[column].reshape(-1, 1) for column in columns.inputs]
    feed = {
        name: array.astype(object) if array.dtype.kind == "U" else array
        for name, array in zip(names, arrays, strict=True)
    }
    try:
        found, runner = _run(data, feed)
    except Exception as error:  # noqa: BLE001  # the classes of onnxruntime's errors have no base of their own
        lines = str(error).splitlines() or [type(error).__name__]
        raise RunError(f"an ONNX program cannot run it: {lines[0][:200]}; it was not written", path=path) from None
    if columns is not None and columns.classes is not None:
        found = found[1:]
    return np.concatenate([np.asarray(one, np.float64) for one in found], axis=1), runner


def _run(data: bytes, feed: dict[str, Array]) -> tuple[list[Any], str]:
    """The outputs, by onnxruntime if it is installed, else by onnx itself; and which of them it was."""
    onnx.checker.check_model(data, full_check=True)
    if find_spec("onnxruntime") is None:
        from onnx.reference import ReferenceEvaluator

        found: Any = ReferenceEvaluator(onnx.load_from_string(data)).run(None, feed)
        return found, "onnx.reference"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4  # a line of its own for an error is one too many
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, feed), "onnxruntime"
