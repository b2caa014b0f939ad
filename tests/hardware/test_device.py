from __future__ import annotations

import pytest
import torch
from torch import nn

from twolayer.config.loading import load_config
from twolayer.errors import DeviceError
from twolayer.hardware.device import resolve_device
from twolayer.training.setup import build_model, load_data

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")


def test_the_model_is_the_books_drawn_after_the_data() -> None:
    torch.manual_seed(0)
    torch.randn(64, 1000), torch.randn(64, 10)
    book = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))

    config, generator = load_config("default"), torch.Generator().manual_seed(0)
    load_data(config, generator)
    model = build_model(config, generator)
    assert str(model) == str(book)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), book.parameters(), strict=True))


def test_without_a_generator_the_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    book = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))
    model = build_model(load_config("default", seed=5))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), book.parameters(), strict=True))


def test_normal_weights_are_standard_normal_and_biases_zero() -> None:
    model = build_model(load_config("default", init="normal"))
    w1, b1, w2, b2 = (parameter.detach() for parameter in model.parameters())
    assert not b1.any()
    assert not b2.any()
    assert abs(float(w1.mean())) < 0.02  # 100,000 numbers: a standard error of 0.003
    assert abs(float(w1.std()) - 1) < 0.02
    assert w2.shape == (10, 100)


def test_float64_weights_are_the_float32_weights() -> None:
    single, double = build_model(load_config("default")), build_model(load_config("default", dtype="float64"))
    assert all(torch.equal(a.double(), b) for a, b in zip(single.parameters(), double.parameters(), strict=True))


@pytest.mark.parametrize("init", ["default", "normal"])
def test_the_global_generator_is_left_alone(init: str) -> None:
    before = torch.get_rng_state()
    build_model(load_config("default", init=init))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == "cpu"


@pytest.mark.skipif(torch.version.cuda is not None or torch.version.hip is not None, reason="a build with CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_on_a_cpu_only_build_the_reason_is_that(device: str) -> None:
    with pytest.raises(
        DeviceError, match=rf"no device {device}: PyTorch \S+ is a CPU-only build; install one with CUDA"
    ):
        resolve_device(device)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_data_and_models_resolve_the_device_themselves() -> None:
    assert load_data(load_config("default", device="auto")).x.device.type == "cpu"
    for draw in (load_data, build_model):
        with pytest.raises(DeviceError, match="no device cuda"):
            draw(load_config("default", device="cuda"))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a Metal GPU")
def test_without_metal_mps_is_refused_with_the_reason() -> None:
    with pytest.raises(DeviceError, match=r"no device mps: (PyTorch .* is built without it|this machine has no Metal)"):
        resolve_device("mps")


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    assert resolve_device("auto") == "cpu"


@pytest.mark.cuda
@needs_cuda
def test_cuda_is_the_first_gpu_and_auto_takes_it() -> None:
    assert resolve_device("cuda") == resolve_device("auto") == "cuda:0"


@pytest.mark.cuda
@needs_cuda
def test_an_ordinal_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(DeviceError, match=r"no device cuda:99: available: cuda:0 \S+"):
        resolve_device("cuda:99")


@pytest.mark.cuda
@needs_cuda
def test_every_device_starts_from_the_same_numbers() -> None:
    config = load_config("default")
    there = config.model_copy(update={"device": "cuda:0"})
    assert torch.equal(load_data(there).x.cpu(), load_data(config).x)
    pairs = zip(build_model(there).parameters(), build_model(config).parameters(), strict=True)
    assert all(torch.equal(a.cpu(), b) for a, b in pairs)
