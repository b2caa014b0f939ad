"""The weights of a layer as images."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twolayer.reporting.html import weight_images
from twolayer.runs import model_file


def decoded(url: str) -> np.ndarray[Any, Any]:
    """The pixels of a picture, (down, across, RGBA), as another library reads them."""
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)


@pytest.mark.parametrize("shape", [(1, 1), (3, 256), (256, 3), (257, 600), (1000, 100), (511, 1)])
def test_a_cell_shows_the_largest_weight_of_its_block(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape)
    scale = weight_images.largest(matrix)
    found = weight_images.cells(matrix, scale)
    down, across = map(weight_images.block, shape)
    assert max(found.shape) <= 256
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            part = matrix[row * down : (row + 1) * down, column * across : (column + 1) * across]
            most = max(part.flat, key=abs)
            assert found[row, column] == round(most / scale * 127)


def test_weights_that_are_no_numbers_or_nothing_at_all_are_told_apart() -> None:
    matrix = np.array([[np.nan, np.inf, -np.inf, 0.0, -1e300, 5e299]])
    found = weight_images.cells(matrix, weight_images.largest(matrix))
    assert found.tolist() == [[weight_images.NO_NUMBER] * 3 + [0, -127, 64]]
    assert not weight_images.cells(np.zeros((2, 2)), weight_images.largest(np.zeros((2, 2)))).any()


def test_a_picture_is_a_png_whose_opacity_is_the_weight() -> None:
    levels = np.arange(-128, 128).astype(np.int8).reshape(16, 16)
    pixels = decoded(weight_images.png(levels))
    for level, (red, green, blue, opacity) in zip(levels.flat, pixels.reshape(-1, 4), strict=True):
        if level == weight_images.NO_NUMBER:
            assert (red, green, blue, opacity) == (*weight_images.NEITHER, 255)
        else:
            assert opacity == round(abs(int(level)) / 127 * 255)
            assert (red, green, blue) == (weight_images.BELOW if level < 0 else weight_images.ABOVE)


@pytest.mark.parametrize(("outputs", "inputs"), [(2, 9), (9, 2)])
def test_the_longer_side_goes_across_and_the_bias_beside_its_outputs(outputs: int, inputs: int) -> None:
    weight, bias = np.zeros((outputs, inputs), np.float32), np.zeros(outputs, np.float32)
    weight[1, 0], bias[1] = 1, -1
    made = weight_images.weight_image(model_file.Layer(weight, bias, ("a", "b")[:inputs], ("c", "d")[:outputs]))
    image, strip = decoded(made.image), decoded(made.bias)
    assert image.shape[:2] == (2, 9)
    (row, column), (place,) = np.argwhere(image[..., 3])[0], np.flatnonzero(strip[..., 3])
    assert place == 1
    if outputs > inputs:
        assert (strip.shape[:2], row, column, made.names) == ((1, 9), 0, 1, ["a", "b"])
        assert made.caption == "9 outputs across, 2 inputs down"
    else:
        assert (strip.shape[:2], row, column, made.names) == ((2, 1), 1, 0, ["c", "d"])
        assert made.caption == "9 inputs across, 2 outputs down"
    assert made.statistics == [("weight", ["0", "1", "0.0556", "0.229"]), ("bias", ["-1", "0", *_of_bias(outputs)])]


def _of_bias(outputs: int) -> list[str]:
    """Mean and standard deviation of a single -1 among zeros."""
    mean = -1 / outputs
    return [f"{mean:.3g}", f"{(-mean * (1 + mean)) ** 0.5:.3g}"]
