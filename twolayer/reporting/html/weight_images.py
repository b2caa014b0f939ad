"""Weights as pictures: a layer's matrix as an image that stands in the page itself."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from twolayer.errors import extra
from twolayer.formatting import counted, safe
from twolayer.runs.model_file import Array, Layer, ModelFile, figures
from twolayer.runs.saved_run import SavedRun

with extra("PIL", "report"):
    from PIL import Image

CELLS = 256  # of a picture, at the most, across and down
FEW = 24  # rows of a picture that have room for their names
LONGEST = 40  # characters of such a name
NO_NUMBER = -128  # the cell of a weight that is not finite
# A weight below zero is of the one colour and one above of the other, the more opaque the larger: on any background.
BELOW, ABOVE, NEITHER = (33, 113, 200), (217, 84, 30), (128, 128, 128)

Cells = np.ndarray[Any, np.dtype[np.int8]]


def layers(run: SavedRun, model: ModelFile | None) -> list[dict[str, Any]]:
    """The network, layer by layer as nn.Sequential prints it; with pictures where there is a model."""
    known = [model.first, model.second] if model is not None else []
    if known:
        sizes = [layer.weight.shape[::-1] for layer in known]
    elif run.config is not None:
        sizes = [(run.config.D_in, run.config.H), (run.config.H, run.config.D_out)]
    else:
        return []
    linear: list[dict[str, Any]] = [
        {
            "text": f"Linear(in_features={inputs}, out_features={outputs}, bias=True)",
            "parameters": counted(inputs * outputs + outputs, "parameter"),
            "picture": picture(known[number]) if known else None,
        }
        for number, (inputs, outputs) in enumerate(sizes)
    ]
    return [linear[0], {"text": "ReLU()", "parameters": "", "picture": None}, linear[1]]


def picture(layer: Layer) -> dict[str, Any]:
    """A layer's weights and biases as images, the longer side across, with their figures and what is where."""
    outputs, inputs = layer.weight.shape
    upright = outputs > inputs  # outputs across and the bias below; else inputs across and the bias beside
    matrix, bias = (layer.weight.T, layer.bias[None]) if upright else (layer.weight, layer.bias[:, None])
    sides = ("input", "output") if upright else ("output", "input")
    names = layer.inputs if upright else layer.outputs
    scale = largest(layer.weight, layer.bias)
    pixels = cells(matrix, scale)
    down, across = map(block, matrix.shape)
    is_thinned = (down, across) != (1, 1)
    return {
        "image": png(pixels),
        "bias": png(cells(bias, scale)),
        "bar": png(np.arange(-127, 128, dtype=np.int8)[None]),
        "upright": upright,
        "rows": len(pixels),
        "names": [safe(name)[:LONGEST] for name in names] if len(pixels) <= FEW else [],
        "caption": " across, ".join(
            counted(size, side) for size, side in zip(matrix.shape[::-1], sides[::-1], strict=True)
        )
        + " down"
        + (f"; a cell shows the largest of {down} \u00d7 {across} weights" if is_thinned else ""),
        "scale": f"{scale:.3g}",
        "figures": [
            (name, [f"{value:.3g}" for value in figures(values)])
            for name, values in (("weight", layer.weight), ("bias", layer.bias))
        ],
    }


def largest(*arrays: Array) -> float:
    """The largest magnitude among the finite numbers; 0 where there is none."""
    return max(float(np.abs(array[np.isfinite(array)]).max(initial=0)) for array in arrays)


def block(size: int) -> int:
    """How many neighbours share a cell of a picture, along a side of so many."""
    return -(-size // CELLS)


def cells(matrix: Array, scale: float) -> Cells:
    """A matrix as cells of -127 .. 127, where 127 is `scale`, and NO_NUMBER where a weight is not finite.

    A cell shows the weight of largest magnitude of its block of neighbours; at most CELLS x CELLS.
    """
    rows, columns = (np.arange(0, size, block(size)) for size in matrix.shape)
    values = matrix.astype(np.float64)
    high, low = (of.reduceat(of.reduceat(values, rows, 0), columns, 1) for of in (np.maximum, np.minimum))
    finite = np.isfinite(high) & np.isfinite(low)
    value = np.where(finite, np.where(high >= -low, high, low), 0.0)
    found: Cells = np.where(finite, np.rint(value / (scale or 1.0) * 127), NO_NUMBER).astype(np.int8)
    return found


def png(pixels: Cells) -> str:
    """Cells as a picture, a pixel a cell, for an `img`: a data: URL. Colours and opacity are in its palette."""
    levels = np.arange(-128, 128)
    colours = np.where(levels[:, None] < 0, BELOW, ABOVE).astype(np.uint8)
    opacity = np.rint(np.abs(levels) / 127 * 255).clip(0, 255).astype(np.uint8)
    colours[0], opacity[0] = NEITHER, 255
    image = Image.fromarray((pixels.astype(np.int16) + 128).astype(np.uint8)).convert("P")
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    image.save(file, "png", transparency=opacity.tobytes(), optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
