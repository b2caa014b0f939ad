"""Vectors for numba: what the compiled engine does with several hidden units of eight rows at once.

A function marked `emitted` is not run, but writes LLVM's instructions where a compiled function calls it. Arrays are
flat, and a position in one is an int64 that nothing checks.
"""

from __future__ import annotations

import inspect

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

ROWS = 8  # taken at a time: a vector for each stays in a register
LADDER = (0, 1, 2, 3, 4, 5, 6, 7)
BYTES = 64 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 32

# A product and a sum may be one instruction. Nothing else is relaxed: infinity and nan come out as they do in PyTorch.
FAST = ("contract",)
INT = ir.IntType(64)


def lanes(itemsize: int) -> int:
    """How many numbers of `itemsize` bytes a vector holds."""
    return BYTES // itemsize


class Vector(types.Type):
    """The type of a vector; or of one for each of eight rows."""

    def __init__(self, dtype, is_eight):
        super().__init__(f"Vector({dtype}, {is_eight})")
        self.dtype, self.is_eight = dtype, is_eight


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """What it is for LLVM."""

    def __init__(self, manager, kind):
        number = ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()
        vector = ir.VectorType(number, lanes(kind.dtype.bitwidth // 8))
        super().__init__(manager, kind, ir.ArrayType(vector, ROWS) if kind.is_eight else vector)


class Emitter:
    """Writes the instructions of a call."""

    def __init__(self, context, builder, signature):
        self.context, self.builder, self.array = context, builder, signature.args[0]
        dtype = next(kind.dtype for kind in signature.args if isinstance(kind, (Vector, types.Array)))
        self.align = dtype.bitwidth // 8
        self.vector = context.get_value_type(Vector(dtype, False))
        self.nothing = ir.Constant(self.vector, ir.Undefined)

    def pointer(self, array, position):
        """To an element of the array, which is the call's first argument."""
        data = self.context.make_array(self.array)(self.context, self.builder, array).data
        return self.builder.gep(data, [position], source_etype=self.context.get_data_type(self.array.dtype))

    def load(self, array, position):
        """A vector of an array."""
        pointer = self.builder.bitcast(self.pointer(array, position), self.vector.as_pointer())
        return self.builder.load(pointer, align=self.align, typ=self.vector)

    def store(self, array, position, vector):
        """Write a vector to an array."""
        pointer = self.builder.bitcast(self.pointer(array, position), self.vector.as_pointer())
        self.builder.store(vector, pointer, align=self.align)

    def after(self, position, count):
        """A position that many later."""
        return self.builder.add(position, ir.Constant(INT, count))

    def numbers(self, array, rows, columns, position):
        """For each row a vector of the number that it has at a position, all lanes the same."""
        found = []
        for r in range(ROWS):
            start = self.builder.mul(self.builder.extract_value(rows, r), columns)
            number = self.builder.load(self.pointer(array, self.builder.add(start, position)), typ=self.vector.element)
            first = self.builder.insert_element(self.nothing, number, ir.Constant(ir.IntType(32), 0))
            found.append(self.shuffled(first, self.nothing, [0] * self.vector.count))
        return found

    def shuffled(self, one, other, lanes):
        """The vector of these lanes of two others."""
        return self.builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))

    def add_product(self, total, one, other):
        """Total + one * other."""
        return self.builder.fadd(total, self.builder.fmul(one, other, flags=FAST), flags=FAST)

    def where_above_zero(self, condition, value):
        """The value where another is above zero or nan, else 0: a ReLU, and its gradient, as in PyTorch."""
        zero = ir.Constant(self.vector, None)
        return self.builder.select(self.builder.fcmp_unordered(">", condition, zero), value, zero)

    def split(self, values):
        """The values, one for each row."""
        return [self.builder.extract_value(values, r) for r in range(ROWS)]

    def joined(self, values):
        """Values, one for each row, as one."""
        eight = ir.Constant(ir.ArrayType(values[0].type, ROWS), ir.Undefined)
        for r, value in enumerate(values):
            eight = self.builder.insert_value(eight, value, r)
        return eight


def emitted(result):
    """Make of a function that writes instructions one that compiled functions call.

    The result is a "vector", "eight" of them, eight "rows" as numbers, or None.
    """

    def decorate(emit):
        def typed(_, *arguments):
            dtype = next(kind.dtype for kind in arguments if isinstance(kind, (Vector, types.Array)))
            kinds = {
                "vector": Vector(dtype, False),
                "eight": Vector(dtype, True),
                "rows": types.UniTuple(types.int64, ROWS),
            }

            def generate(context, builder, signature, values):
                value = emit(Emitter(context, builder, signature), *values)
                return context.get_dummy_value() if value is None else value

            return kinds.get(result, types.void)(*arguments), generate

        typed.__name__ = emit.__name__
        typed.__signature__ = inspect.signature(emit)  # type: ignore[attr-defined]
        return intrinsic(typed)

    return decorate


@emitted("vector")
def load(e, array, position):
    """The vector at a position."""
    return e.load(array, position)


@emitted(None)
def store(e, array, position, vector):
    """Write a vector."""
    e.store(array, position, vector)


@emitted("eight")
def load_eight(e, array, position):
    """Eight vectors, one after another."""
    return e.joined([e.load(array, e.after(position, r * e.vector.count)) for r in range(ROWS)])


@emitted(None)
def store_eight(e, array, position, eight):
    """Write eight vectors, one after another."""
    for r, vector in enumerate(e.split(eight)):
        e.store(array, e.after(position, r * e.vector.count), vector)


@emitted("eight")
def zeros(e, array):
    """Eight vectors of zeros, of the array's dtype."""
    return e.joined([ir.Constant(e.vector, None)] * ROWS)


@emitted("eight")
def load_repeated(e, array, position):
    """The vector at a position, for each row."""
    return e.joined([e.load(array, position)] * ROWS)


@emitted("rows")
def listed(e, order, first, last):
    """The rows that stand in an order from `first` on; the one before `last` again where there are fewer than eight."""
    rows = e.split(_counted(e, first, last))
    return e.joined([e.builder.load(e.pointer(order, row), typ=INT) for row in rows])


@emitted("rows")
def counted(e, order, first, last):
    """The rows from `first` on; the one before `last` again where there are fewer than eight."""
    return _counted(e, first, last)


def _counted(e, first, last):
    end = e.after(last, -1)
    rows = [e.after(first, r) for r in range(ROWS)]
    return e.joined([e.builder.select(e.builder.icmp_signed("<", row, end), row, end) for row in rows])


@emitted("eight")
def add_outer(e, array, rows, columns, position, vector, eight):
    """Add to each row's vector this vector times the number that the row has at the position."""
    pairs = zip(e.split(eight), e.numbers(array, rows, columns, position), strict=True)
    return e.joined([e.add_product(own, number, vector) for own, number in pairs])


@emitted("vector")
def add_inner(e, array, rows, columns, position, eight, vector):
    """Add to this vector each row's vector times the number that the row has at the position."""
    numbers, own = e.numbers(array, rows, columns, position), e.split(eight)
    other = e.builder.fmul(numbers[4], own[4], flags=FAST)  # of two sums: the processor works on both at once
    for r in range(4):
        vector = e.add_product(vector, numbers[r], own[r])
        if r:
            other = e.add_product(other, numbers[4 + r], own[4 + r])
    return e.builder.fadd(vector, other)


@emitted("vector")
def add_rows(e, vector, eight):
    """Add to this vector each row's vector."""
    own = e.split(eight)
    while len(own) > 1:
        own = [e.builder.fadd(a, b) for a, b in zip(own[::2], own[1::2], strict=True)]
    return e.builder.fadd(vector, own[0])


@emitted("eight")
def add_times(e, total, eight, vector):
    """Add to each row's total its vector times this vector."""
    return e.joined([e.add_product(a, b, vector) for a, b in zip(e.split(total), e.split(eight), strict=True)])


@emitted("eight")
def relu(e, eight):
    """What is above zero, else 0."""
    return e.joined([e.where_above_zero(own, own) for own in e.split(eight)])


@emitted("eight")
def where_above_zero(e, condition, eight):
    """What is so where the condition is above zero, else 0."""
    return e.joined([e.where_above_zero(a, b) for a, b in zip(e.split(condition), e.split(eight), strict=True)])


@emitted(None)
def store_sums(e, array, position, eight):
    """Write the sum of each row's lanes: neighbours are added, of all rows at once, until a sum is one number.

    What is written is whole vectors, which may be more than eight numbers.
    """
    own, width = e.split(eight), e.vector.count
    left = width  # the numbers that a sum still is in
    while left > 1:
        own += [e.nothing] * (len(own) % 2)
        own = [
            e.builder.fadd(*(e.shuffled(a, b, list(range(start, 2 * width, 2))) for start in (0, 1)))
            for a, b in zip(own[::2], own[1::2], strict=True)
        ]
        left //= 2
    for number, sums in enumerate(own):
        e.store(array, e.after(position, number * width), sums)
