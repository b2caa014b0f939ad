"""The layers of a saved network, read without torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.tablerun import make_run
from twolayer.errors import RunError
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
