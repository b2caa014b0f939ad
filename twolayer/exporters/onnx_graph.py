"""A graph of ONNX, built one operation at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from twolayer.errors import extra
from twolayer.tables.features import Array

with extra("onnx", "export"):
    from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Values are known by their names, all of which differ. Columns keep theirs: `taken` are those names."""

    def __init__(self, taken: Collection[str]) -> None:
        self._columns, self._used = set(taken), set[str]()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def free(self, wanted: str, *, of_column: bool = False) -> str:
        """A name that nothing has yet: the one that is wanted, or that with a number."""
        name, number = wanted, 1
        while name in self._used or (name in self._columns and not of_column):
            number += 1
            name = f"{wanted}_{number}"
        self._used.add(name)
        return name

    def input(self, name: str, dtype: Any, width: int, doc: str = "") -> str:
        """An input (rows, width) of numbers or text; its name must be free."""
        self._used.add(name)
        self._inputs.append(helper.make_tensor_value_info(name, _type(dtype), ["rows", width], doc))
        return name

    def output(self, name: str, dtype: Any, width: int, doc: str = "") -> None:
        """Declare a value as an output (rows, width)."""
        self._outputs.append(helper.make_tensor_value_info(name, _type(dtype), ["rows", width], doc))

    def constant(self, array: Array, name: str) -> str:
        """A constant; it gets this name or a similar one."""
        name = self.free(name)
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def number(self, value: float) -> str:
        """A float64 constant."""
        return self.constant(np.array(value, np.float64), f"{value:.6g}")

    def op(self, kind: str, *inputs: str, name: str = "", result: str = "", domain: str = "", **attributes: Any) -> str:
        """The result of an operation, called `result`, which must be `free`, or `name` or a similar name."""
        result = result or self.free(name or kind.lower())
        if "to" in attributes:
            attributes["to"] = _type(attributes["to"])
        self._nodes.append(helper.make_node(kind, inputs, [result], result, domain=domain, **attributes))
        return result

    def gather(self, value: str, columns: Sequence[int], result: str = "") -> str:
        """Some of the columns of a value, in this order."""
        at = self.constant(np.array(columns, np.int64), "columns")
        return self.op("Gather", value, at, axis=1, result=result)

    def concat(self, values: Sequence[str]) -> str:
        """Values side by side."""
        return self.op("Concat", *values, axis=1) if len(values) > 1 else values[0]

    def quotient(self, value: str, divisor: int) -> str:
        """The value divided by a number, without the fraction."""
        return self.op("Floor", self.op("Div", value, self.number(divisor)))

    def remainder(self, value: str, divisor: int) -> str:
        """What remains of the value divided by a number: never negative."""
        return self.op("Sub", value, self.op("Mul", self.quotient(value, divisor), self.number(divisor)))

    def serialized(self, opsets: Mapping[str, int], *, metadata: Mapping[str, str], **properties: Any) -> bytes:
        """The model as bytes: the same for the same graph."""
        graph = helper.make_graph(self._nodes, "twolayer", self._inputs, self._outputs, self._constants)
        used = {node.domain for node in self._nodes} | {""}
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items() if domain in used]
        model = helper.make_model(graph, opset_imports=imports, **properties)
        helper.set_model_props(model, dict(metadata))
        data: bytes = model.SerializeToString(deterministic=True)
        return data


def _type(dtype: Any) -> int:
    """The number that ONNX has for a type."""
    return int(TensorProto.STRING) if dtype is str else int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
