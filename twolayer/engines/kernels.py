"""Gradient descent compiled by numba for this machine's CPU: eight rows at a time through both layers and back.

The weights are one flat array: (C, D_in + 1 + D_out, L), then the second layer's biases, (D_out,). L hidden units, as
many as a vector holds, are a chunk; it has a vector for each input, one for the first layer's biases, and one for each
output. H is filled up to C L with units whose weights are zero and stay zero. A gradient has the same layout.

The rows of an update are cut into groups of equal length, and a group into parts. The gradients of parts are added up,
then those of groups, always in the same order: whichever threads compute them, the result has the same bits.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from functools import cache
from types import FunctionType
from typing import Any

import llvmlite.binding
import numpy as np
from numba import njit

from twolayer.engines import vectors
from twolayer.engines.vectors import (
    LADDER,
    ROWS,
    add_inner,
    add_outer,
    add_rows,
    add_times,
    counted,
    listed,
    load,
    load_eight,
    load_repeated,
    relu,
    store,
    store_eight,
    store_sums,
    where_above_zero,
    zeros,
)
from twolayer.errors import DataError

PART = 1024  # rows whose gradients are added one by one; float32 would lose digits over many more

# Division by zero is as in numpy. A function within another is copied into it: compiled once, not twice.
COMPILED: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
INLINE = COMPILED | {"inline": "always"}


@njit(**INLINE)
def forward(w, shape, x, rows, h, z):
    """The hidden units of eight rows into `h`, (C, 8, L), and their outputs into `z`, (D_out, 8)."""
    C, D_in, D_out, L = shape
    length = (D_in + 1 + D_out) * L
    for c in range(C):
        units = load_repeated(w, c * length + D_in * L)
        for k in range(D_in):
            units = add_outer(x, rows, D_in, k, load(w, c * length + k * L), units)
        store_eight(h, c * ROWS * L, relu(units))
    for o in range(D_out):
        totals = zeros(w)
        for c in range(C):
            totals = add_times(totals, load_eight(h, c * ROWS * L), load(w, c * length + (D_in + 1 + o) * L))
        store_sums(z, o * ROWS, totals)
        for i in range(o * ROWS, (o + 1) * ROWS):
            z[i] += w[C * length + o]


@njit(**INLINE)
def squared_error(z, D_out, y, rows, live):
    """Make the outputs of eight rows their residuals; the sum of squares. Rows from `live` on do not count."""
    total = 0.0
    for o in range(D_out):
        for r in range(ROWS):
            residual = z[o * ROWS + r] - y[rows[r] * D_out + o] if r < live else z.dtype.type(0)
            z[o * ROWS + r] = residual
            total += np.float64(residual) * np.float64(residual)
    return total


@njit(**INLINE)
def cross_entropy(z, D_out, y, rows, live):
    """Make the logits of eight rows their residuals; the negative log-likelihood, and the number of correct rows."""
    total, correct = 0.0, 0.0
    for r in range(live, ROWS):
        for o in range(D_out):
            z[o * ROWS + r] = 0
    for r in range(live):
        best = 0
        for o in range(1, D_out):
            if z[o * ROWS + r] > z[best * ROWS + r]:
                best = o
        largest, exponentials = z[best * ROWS + r], z.dtype.type(0)
        correct += y[rows[r] * D_out + best]
        for o in range(D_out):
            exponentials += math.exp(z[o * ROWS + r] - largest)
        shift = largest + math.log(exponentials)
        for o in range(D_out):
            log_p = z[o * ROWS + r] - shift
            z[o * ROWS + r] = math.exp(log_p) - y[rows[r] * D_out + o]
            total -= log_p * y[rows[r] * D_out + o]
    return total, correct


@njit(**INLINE)
def backward(w, g, start, shape, x, rows, h, residual):
    """Add the gradient of eight rows, without its factor, to that which begins at `start` in `g`."""
    C, D_in, D_out, L = shape
    length = (D_in + 1 + D_out) * L
    for c in range(C):
        units, gradient = load_eight(h, c * ROWS * L), zeros(w)
        for o in range(D_out):
            i = c * length + (D_in + 1 + o) * L
            gradient = add_outer(residual, LADDER, 1, o * ROWS, load(w, i), gradient)
            store(g, start + i, add_inner(residual, LADDER, 1, o * ROWS, units, load(g, start + i)))
        gradient = where_above_zero(units, gradient)
        i = start + c * length + D_in * L
        store(g, i, add_rows(load(g, i), gradient))
        for k in range(D_in):
            i = start + c * length + k * L
            store(g, i, add_inner(x, rows, D_in, k, gradient, load(g, i)))
    for o in range(D_out):
        for r in range(ROWS):
            g[start + C * length + o] += residual[o * ROWS + r]


@njit(**INLINE)
def visit(weights, rows, buffers, start, first, last, shape, is_mse, learns):
    """The sum of the losses of the rows from `first` to `last`, and how many are correct; adds up their gradients."""
    (w, g), (x, y, order), (h, z, _) = weights, rows, buffers
    loss, correct = 0.0, 0.0
    for row in range(first, last, ROWS):
        live = min(ROWS, last - row)
        eight = listed(order, row, last) if len(order) > 0 else counted(order, row, last)
        forward(w, shape, x, eight, h, z)
        if is_mse:
            loss += squared_error(z, shape[2], y, eight, live)
        else:
            more = cross_entropy(z, shape[2], y, eight, live)
            loss, correct = loss + more[0], correct + more[1]
        if learns:
            backward(w, g, start, shape, x, eight, h, z)
    return loss, correct


@njit(**INLINE)
def step(w, g, count, rate):
    """Add up the gradients of groups, and descend."""
    size = len(w)
    for group in range(1, count):
        for i in range(size):
            g[i] += g[group * size + i]
    for i in range(size):
        w[i] -= rate * g[i]


def descend(weights, rows, buffers, batches, updates, groups, objective, shape, finishes, losses):
    """Do updates from one number to another, each on its batch of rows; their losses before them into `losses`.

    `weights`: the weights; the gradients of all groups and of a part. `rows`: x, y, and the order of the rows, empty
    for that of x. `buffers`: for the hidden units and the outputs of eight rows, and for the sums of groups. `batches`:
    for each where in that order it begins and ends, and the rows of a group. `groups`: the first and the last
    (exclusive) that are visited here, and which gradient is that of a part. `objective`: whether it is the squared
    error; whether to learn; by what the loss is divided for each row, or 0; and the learning rate times the gradient's
    numerator. `finishes`: whether the losses and the step, which take the sums of all groups, are due here; if not,
    each of several updates leaves its gradients and sums one group behind those of the one before.
    """
    (w, g), sums = weights, buffers[2]
    begins, ends, lengths = batches
    is_mse, learns, divisor_of_row, rate = objective
    size = len(w)
    for u in range(updates[0], updates[1]):
        n, length = ends[u] - begins[u], lengths[u]
        count = -(-n // length)
        shift = 0 if finishes else u - updates[0]
        for group in range(groups[0], min(groups[1], count)):
            start, end = begins[u] + group * length, min(begins[u] + (group + 1) * length, ends[u])
            loss, correct = 0.0, 0.0
            for part in range(start, end, PART):
                place = (group + shift if part == start else groups[2]) * size
                if learns:
                    g[place : place + size] = 0
                more = visit(weights, rows, buffers, place, part, min(part + PART, end), shape, is_mse, learns)
                loss, correct = loss + more[0], correct + more[1]
                if learns and part > start:
                    for i in range(size):
                        g[(group + shift) * size + i] += g[place + i]
            sums[2 * (group + shift)], sums[2 * (group + shift) + 1] = loss, correct
        if finishes:
            divisor = divisor_of_row * n if divisor_of_row > 0 else 1.0
            loss, correct = 0.0, 0.0
            for group in range(count):
                loss += sums[2 * group]
                correct += sums[2 * group + 1]
            losses[u, 0] = loss / divisor
            if not is_mse:
                losses[u, 1] = correct / n
            if learns and count > 0:
                step(w, g, count, w.dtype.type(rate / divisor))


@cache
def compiled(name, cached):
    """`descend`, to be compiled at its first call, or loaded from the cache of compiled functions.

    Each dtype has a function of its own, and so a file of its own in the cache, where two processes may write at once;
    its name changes with the sources, because numba would not notice that `vectors` has changed.
    """
    sources = inspect.getsource(vectors) + inspect.getsource(sys.modules[__name__])
    stamp = hashlib.sha256(f"{sources}{llvmlite.binding.get_host_cpu_name()}".encode()).hexdigest()
    function = FunctionType(descend.__code__, globals(), f"descend_{name}_{stamp[:16]}")
    function.__qualname__ = function.__name__
    kernel = njit(cache=cached, **COMPILED)(function)
    if kernel is function:  # NUMBA_DISABLE_JIT is set
        raise DataError("the compiled engine needs numba's compiler; unset NUMBA_DISABLE_JIT")
    return kernel
