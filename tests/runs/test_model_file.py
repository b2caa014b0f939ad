"""The layers of a saved network, read without torch, and pictured."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.helpers.tablerun import make_run
from twolayer.errors import RunError
from twolayer.reporting.html import weight_images
from twolayer.runs import checkpoint, model_file, saved_run

SIZES = {"D_in": 5, "H": 4, "D_out": 2}


def make(path: Path, tensors: dict[str, torch.Tensor] | None = None, status: str = "completed") -> saved_run.SavedRun:
    """A run folder with a model of SIZES, in which the tensors that are given stand in the place of its own."""
    path.mkdir(exist_ok=True)
    (path / "run.json").write_text(json.dumps({"format": 1, "status": status}))
    (path / "config.yaml").write_text(json.dumps({"N": 8, "lr": 0.1, "epochs": 3, "device": "cpu", **SIZES}))
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    state = {name: (tensors or {}).get(name, tensor) for name, tensor in model.state_dict().items()}
    with (path / "model.safetensors").open("wb") as file:
        file.writelines(checkpoint.pack(state, {"iteration": "7"}))
    return saved_run.read(path)


def decoded(url: str) -> np.ndarray[Any, Any]:
    """The pixels of a picture, (down, across, RGBA), as another library reads them."""
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_layers_hold_the_numbers_that_torch_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    given = torch.randn(4, 5, dtype=dtype), torch.randn(4, dtype=dtype)
    found = model_file.read(make(tmp_path, {"0.weight": given[0], "0.bias": given[1]}))
    assert found is not None
    assert found.first.weight.dtype == given[0].numpy().dtype
    assert (found.first.weight == given[0].numpy()).all()
    assert (found.first.bias == given[1].numpy()).all()
    assert [layer.weight.shape for layer in (found.first, found.second)] == [(4, 5), (2, 4)]
    assert found.iterations == 7


def test_the_layers_of_a_table_know_their_columns(tmp_path: Path) -> None:
    make_run(tmp_path / "numbers")
    make_run(tmp_path / "classes", target="colour")
    numbers, classes = (model_file.read(saved_run.read(tmp_path / name)) for name in ("numbers", "classes"))
    assert numbers is not None
    assert numbers.first.inputs == ("size", "colour=blue", "colour=green", "colour=red", "weight")
    assert numbers.second.outputs == ("price",)
    assert classes is not None
    assert classes.second.outputs == ("blue", "green", "red")


def test_a_run_that_goes_on_has_no_model_yet_and_one_that_is_completed_has_lost_it(tmp_path: Path) -> None:
    for status in ("running", "interrupted", "completed", "diverged"):
        run = make(tmp_path, status=status)
        (tmp_path / "model.safetensors").unlink()
        if status in ("running", "interrupted"):
            assert model_file.read(run) is None
        else:
            with pytest.raises(RunError, match=r"model.safetensors: is missing"):
                model_file.read(run)


def test_no_byte_of_a_model_can_be_another(tmp_path: Path) -> None:
    run, file = make(tmp_path), tmp_path / "model.safetensors"
    data = file.read_bytes()
    for place in [*range(0, len(data), 7), len(data) - 1]:
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(RunError, match=r"model.safetensors: is (damaged|not a safetensors)"):
            model_file.read(run)
    for left in (b"", data[:8], data[: len(data) // 2], data + b"\0"):
        file.write_bytes(left)
        with pytest.raises(RunError, match=r"model.safetensors: is (damaged|not a safetensors)"):
            model_file.read(run)


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        ({"0.weight": torch.zeros(4, 6)}, "its shapes are not those in"),
        ({"0.weight": torch.zeros(3, 5)}, "its tensors are not those of two layers"),
        ({"0.weight": torch.zeros(4)}, "its tensors are not those of two layers"),
        ({"2.weight": torch.zeros(4, 2)}, "its tensors are not those of two layers"),
        ({"2.bias": torch.zeros(2, 1)}, "its tensors are not those of two layers"),
        ({"2.weight": torch.zeros(0, 4), "2.bias": torch.zeros(0)}, "its tensors are not those of two layers"),
        ({"0.bias": torch.zeros(()), "2.bias": torch.zeros(4, 2, 4)}, "its tensors are not those of two layers"),
        ({"2.bias": torch.zeros(2, dtype=torch.complex64)}, "its tensors are not those of two layers"),
        ({"0.weight": torch.zeros(4, 0)}, "its tensors are not those of two layers"),
        ({"0.weight": torch.zeros(4, 5, dtype=torch.bfloat16)}, "is not a safetensors file"),
    ],
)
def test_a_model_of_another_network_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], what: str) -> None:
    with pytest.raises(RunError, match=rf"model.safetensors: {what}"):
        model_file.read(make(tmp_path, tensors))


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
