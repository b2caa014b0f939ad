from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from twolayer.runs import checkpoint
from twolayer.runs.folder import Run, create

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.5, float("nan")], dtype=torch.float64)}
PACKED = b"".join(checkpoint.pack(STATE, {"iteration": "7"}))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with create(tmp_path / "run", "x") as made:
        made.start_history(("iteration", "loss"))
    return made


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name].nan_to_num(7.0), other[name].nan_to_num(7.0)) for name in one
    )


def test_what_is_packed_is_a_safetensors_file_and_comes_out_again(tmp_path: Path) -> None:
    tensors, metadata = checkpoint.unpack(PACKED)
    assert same(tensors, STATE)
    assert metadata["iteration"] == "7"
    (tmp_path / "file").write_bytes(PACKED)
    assert same(safetensors.torch.load_file(tmp_path / "file"), STATE)


@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_any_byte_that_is_another_is_found(place: int, change: int) -> None:
    damaged = bytearray(PACKED)
    damaged[place] ^= change
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.unpack(bytes(damaged))


@pytest.mark.parametrize("place", range(len(PACKED)))
def test_every_flipped_byte_is_found(place: int) -> None:
    damaged = bytearray(PACKED)
    damaged[place] ^= 0xFF
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.unpack(bytes(damaged))


@pytest.mark.parametrize("length", range(len(PACKED)))
def test_a_file_that_was_cut_is_found(length: int) -> None:
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.unpack(PACKED[:length])


def test_more_than_the_file_is_found() -> None:
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.unpack(PACKED + b"\0")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('a pickle was executed')",))


def test_a_pickle_is_not_executed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (run.path / "checkpoints" / "5.safetensors").write_bytes(pickle.dumps(Bomb()))
    torch.save({"a": Bomb()}, run.path / "checkpoints" / "6.safetensors")
    found, wrong = checkpoint.newest(run.open_checkpoints())
    assert found is None
    assert [message.endswith("is not a safetensors file, or is damaged") for message in wrong] == [True, True]


def test_the_newest_two_are_kept_and_the_newest_good_one_is_taken(run: Run) -> None:
    for iteration in (10, 20, 100):
        checkpoint.save(run, iteration, {"a": torch.full((2,), float(iteration))}, 1.5)
    folder = run.path / "checkpoints"
    assert sorted(file.name for file in folder.iterdir()) == ["100.safetensors", "20.safetensors"]
    found, wrong = checkpoint.newest(run.open_checkpoints())
    assert found is not None
    assert (found.iteration, found.seconds, wrong) == (100, 1.5, [])
    assert found.state["a"].tolist() == [100.0, 100.0]
    found, _ = checkpoint.newest(run.open_checkpoints(), 99)
    assert found is not None
    assert found.iteration == 20

    (folder / "100.safetensors").write_bytes((folder / "100.safetensors").read_bytes()[:-1])
    found, wrong = checkpoint.newest(run.open_checkpoints())
    assert found is not None
    assert found.iteration == 20
    assert wrong == [f"{folder / '100.safetensors'}: is damaged: its size is not the one in its header"]

    (folder / "100.safetensors").write_bytes((folder / "20.safetensors").read_bytes())
    assert checkpoint.newest(run.open_checkpoints())[1] == [
        f"{folder / '100.safetensors'}: is the checkpoint of iteration 20"
    ]


def test_within_long_epochs_the_newest_of_the_two_epochs_before_stay_as_well(run: Run) -> None:
    folder = run.path / "checkpoints"
    for epoch in range(12):
        for updates in (5, 40, 300):
            checkpoint.save(run, epoch, {"a": torch.full((2,), float(updates))}, 1.5, (updates, 400))
    assert sorted(file.name for file in folder.iterdir()) == [
        *("10-300.safetensors", "11-300.safetensors", "11-40.safetensors", "9-300.safetensors")
    ]
    found, wrong = checkpoint.newest(run.open_checkpoints())
    assert found is not None
    assert (found.iteration, found.updates, found.state["a"].tolist(), wrong) == (11, 300, [300.0, 300.0], [])
    for limit, wanted in ((11, (10, 300)), (10, (9, 300))):  # after the whole epoch, and not within the next
        found, _ = checkpoint.newest(run.open_checkpoints(), limit)
        assert found is not None
        assert (found.iteration, found.updates) == wanted
    checkpoint.save(run, 12, STATE, 1.5)
    assert next(checkpoint.verified(run.open_checkpoints(), [])).iteration == 12

    (folder / "11-300.safetensors").write_bytes((folder / "10-300.safetensors").read_bytes())
    assert list(checkpoint.verified(run.open_checkpoints(), wrong))
    assert wrong == [f"{folder / '11-300.safetensors'}: is the checkpoint of iteration 10, update 300 of the next"]


def test_damaged_ones_that_were_passed_over_make_room(run: Run) -> None:
    for iteration in (300, 400):
        (run.path / "checkpoints" / f"{iteration}.safetensors").write_bytes(b"damaged")
    checkpoint.save(run, 10, STATE, 1.0)
    checkpoint.save(run, 20, STATE, 1.0)
    assert sorted(file.name for file in (run.path / "checkpoints").iterdir()) == ["10.safetensors", "20.safetensors"]


def test_a_header_that_is_nested_without_end_is_damage() -> None:
    header = b"[" * 200_000
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.unpack(len(header).to_bytes(8, "little") + header)
