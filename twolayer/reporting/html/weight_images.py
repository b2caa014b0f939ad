"""Images of the weights: a layer's matrix as a PNG inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from twolayer.errors import extra
from twolayer.formatting import counted, safe
from twolayer.runs.model_file import Array, Layer, ModelFile, figures
from twolayer.runs.saved_run import SavedRun

with extra("PIL", "report"):
    from PIL import Image

CELLS = 256  # the most cells of an image, across and down
FEW = 24  # an image of at most this many rows shows their names
LONGEST = 40  # characters of a name
NO_NUMBER = -128  # the cell of a weight that is not finite
# One colour for weights below zero, one for those above; larger ones are more opaque, so any background works.
BELOW, ABOVE, NEITHER = (33, 113, 200), (217, 84, 30), (128, 128, 128)

Cells = np.ndarray[Any, np.dtype[np.int8]]


@dataclass(frozen=True)
class WeightImage:
    """A layer's weights and biases as images, and what the page says about them; images are data: URLs."""

    image: str
    bias: str
    bar: str  # the colour scale
    upright: bool  # outputs across and the bias below; else inputs across and the bias beside
    rows: int  # of the image
    names: list[str]  # of the rows, where they have room
    caption: str
    scale: str  # the weight of the strongest colour
    statistics: list[tuple[str, list[str]]]  # of weight and bias: min, max, mean, standard deviation


@dataclass(frozen=True)
class LayerSection:
    """A layer as nn.Sequential prints it, its number of parameters, and its image where there is a model."""

    text: str
    parameters: str = ""
    image: WeightImage | None = None


def layers(run: SavedRun, model: ModelFile | None) -> list[LayerSection]:
    """The network, layer by layer; empty where neither a model nor a config says its sizes."""
    known = [model.first, model.second] if model is not None else []
    if known:
        sizes = [layer.weight.shape[::-1] for layer in known]
    elif run.config is not None:
        sizes = [(run.config.D_in, run.config.H), (run.config.H, run.config.D_out)]
    else:
        return []
    linear = [
        LayerSection(
            f"Linear(in_features={inputs}, out_features={outputs}, bias=True)",
            counted(inputs * outputs + outputs, "parameter"),
            weight_image(known[number]) if known else None,
        )
        for number, (inputs, outputs) in enumerate(sizes)
    ]
    return [linear[0], LayerSection("ReLU()"), linear[1]]


def weight_image(layer: Layer) -> WeightImage:
    """A layer's weights and biases as images, the longer side across."""
    outputs, inputs = layer.weight.shape
    upright = outputs > inputs
    matrix, bias = (layer.weight.T, layer.bias[None]) if upright else (layer.weight, layer.bias[:, None])
    sides = ("input", "output") if upright else ("output", "input")
    names = layer.inputs if upright else layer.outputs
    scale = largest(layer.weight, layer.bias)
    pixels = cells(matrix, scale)
    down, across = map(block, matrix.shape)
    counts = (counted(size, side) for size, side in zip(matrix.shape[::-1], sides[::-1], strict=True))
    is_reduced = (down, across) != (1, 1)
    return WeightImage(
        image=png(pixels),
        bias=png(cells(bias, scale)),
        bar=png(np.arange(-127, 128, dtype=np.int8)[None]),
        upright=upright,
        rows=len(pixels),
        names=[safe(name)[:LONGEST] for name in names] if len(pixels) <= FEW else [],
        caption=" across, ".join(counts)
        + " down"
        + (f"; a cell shows the largest of {down} \u00d7 {across} weights" if is_reduced else ""),
        scale=f"{scale:.3g}",
        statistics=[
            (name, [f"{value:.3g}" for value in figures(values)])
            for name, values in (("weight", layer.weight), ("bias", layer.bias))
        ],
    )


def largest(*arrays: Array) -> float:
    """The largest magnitude among the finite numbers; 0 where there is none."""
    return max(float(np.abs(array[np.isfinite(array)]).max(initial=0)) for array in arrays)


def block(size: int) -> int:
    """How many neighbouring weights share a cell of an image, along a side of `size` weights."""
    return -(-size // CELLS)


def cells(matrix: Array, scale: float) -> Cells:
    """A matrix as cells of -127 .. 127, where 127 is `scale`, and NO_NUMBER where a weight is not finite.

    A cell shows the weight of largest magnitude in its block. At most CELLS x CELLS.
    """
    rows, columns = (np.arange(0, size, block(size)) for size in matrix.shape)
    values = matrix.astype(np.float64)
    high, low = (of.reduceat(of.reduceat(values, rows, 0), columns, 1) for of in (np.maximum, np.minimum))
    finite = np.isfinite(high) & np.isfinite(low)
    value = np.where(finite, np.where(high >= -low, high, low), 0.0)
    found: Cells = np.where(finite, np.rint(value / (scale or 1.0) * 127), NO_NUMBER).astype(np.int8)
    return found


def png(pixels: Cells) -> str:
    """Cells as a PNG, one pixel each, as a data: URL for an `img`. Colours and opacity are in its palette."""
    levels = np.arange(-128, 128)
    colours = np.where(levels[:, None] < 0, BELOW, ABOVE).astype(np.uint8)
    opacity = np.rint(np.abs(levels) / 127 * 255).clip(0, 255).astype(np.uint8)
    colours[0], opacity[0] = NEITHER, 255
    image = Image.fromarray((pixels.astype(np.int16) + 128).astype(np.uint8)).convert("P")
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    image.save(file, "png", transparency=opacity.tobytes(), optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
