from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from twolayer.runs import checkpoint, checksum
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


# --- in parts

PARTS = [{"w1": torch.arange(6.0).reshape(3, 2) + part, "b1": torch.full((3,), float(part))} for part in range(3)]


def save_in_parts(run: Run, iteration: int) -> Path:
    """A checkpoint in three parts; the folder."""
    folder = checkpoint.PartFolder(run.open_checkpoints())
    sums = [
        folder.write(iteration, part, {**tensors, "b1": tensors["b1"] * iteration})
        for part, tensors in enumerate(PARTS)
    ]
    checkpoint.save(run, iteration, {"b2": torch.ones(2)}, 1.5, sums=sums)
    return run.path / "checkpoints"


def found_in(run: Run) -> tuple[int, list[str]]:
    """The iteration of the newest good checkpoint, 0 without any, and what is said of newer ones."""
    found, wrong = checkpoint.newest(run.open_checkpoints())
    return found.iteration if found is not None else 0, wrong


def test_a_checkpoint_in_parts_has_a_file_for_each_and_says_what_is_in_them(run: Run) -> None:
    for iteration in (10, 20, 30):
        folder = save_in_parts(run, iteration)
    names = [f"{at}.{part}safetensors" for at in (20, 30) for part in ("", "part-0.", "part-1.", "part-2.")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    found, wrong = checkpoint.newest(run.open_checkpoints())
    assert found is not None
    assert found.parts is not None
    assert (found.iteration, list(found.state), wrong) == (30, ["b2"], [])
    assert [{name: one.shape for name, one in shapes.items()} for shapes in found.parts.shapes] == [
        {"w1": (3, 2), "b1": (3,)}
    ] * 3
    for part, sha256 in enumerate(found.parts.sums):
        tensors = found.parts.folder.read(30, part, sha256)
        assert same(tensors, {**PARTS[part], "b1": PARTS[part]["b1"] * 30})
        assert same(safetensors.torch.load_file(folder / f"30.part-{part}.safetensors"), tensors)


def test_a_checkpoint_of_which_a_part_is_missing_or_damaged_is_not_used(run: Run, tmp_path: Path) -> None:
    save_in_parts(run, 10)
    folder = save_in_parts(run, 20)
    part = folder / "20.part-1.safetensors"
    good = part.read_bytes()
    start = f"{part}:"
    part.unlink()
    assert found_in(run) == (10, [f"{start} cannot be read: No such file or directory"])
    part.write_bytes(good[:-1])
    assert found_in(run) == (10, [f"{start} is damaged: its size is not the one in its header"])
    part.write_bytes(good[:-1] + b"x")
    assert found_in(run) == (10, [f"{start} is damaged: its checksum does not match"])
    for other in ("10.part-1", "20.part-2"):  # whole, but another
        part.write_bytes((folder / f"{other}.safetensors").read_bytes())
        assert found_in(run) == (10, [f"{start} is a part of another checkpoint"])
    part.unlink()
    (tmp_path / "outside").write_bytes(good)
    part.symlink_to(tmp_path / "outside")
    assert found_in(run) == (10, [f"{start} cannot be read: it is a link, and links are not followed"])
    part.unlink()
    part.write_bytes(good)
    assert found_in(run) == (20, [])


@pytest.mark.parametrize("parts", [[], {}, "1" * 64, [7], ["../../secret"], ["1" * 63], None])
def test_a_checkpoint_with_forged_names_of_parts_reads_nothing(run: Run, parts: object) -> None:
    folder = save_in_parts(run, 10)
    tensors, metadata = checkpoint.unpack((folder / "10.safetensors").read_bytes())
    (folder / "10.safetensors").write_bytes(b"".join(checkpoint.pack(tensors, metadata | {"parts": parts})))
    assert found_in(run) == (0, [f"{folder / '10.safetensors'}: is not a checkpoint of this program"])


def test_parts_that_no_checkpoint_has_are_removed_when_a_run_is_resumed_or_saved(run: Run) -> None:
    folder = save_in_parts(run, 10)
    writer = checkpoint.PartFolder(run.open_checkpoints())

    def stale() -> list[str]:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("10."))

    writer.write(40, 0, PARTS[0])  # a kill came before the checkpoint
    writer.write(40, 1, PARTS[1])
    (folder / "40.part-x.safetensors").touch()  # no name of ours
    checksum.remove_stale_parts(run.open_checkpoints())
    assert stale() == ["40.part-x.safetensors"]
    writer.write(40, 0, PARTS[0])
    save_in_parts(run, 20)
    assert [name for name in stale() if not name.startswith("20.")] == ["40.part-x.safetensors"]


def test_a_file_is_what_the_library_writes_of_any_dtype_and_layout() -> None:
    tensors = {
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
        "none": torch.empty(0, 3),
        "number": torch.tensor(2.5, dtype=torch.float64),
        "half": torch.arange(5).to(torch.bfloat16),
        "whole": torch.arange(3),
    }
    found = safetensors.torch.load(b"".join(checkpoint.pack(tensors, {"columns": "é\ud800"})))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)


def test_a_tensor_is_not_copied_to_be_written() -> None:
    tensor = torch.zeros(1000)
    pieces = checkpoint.pack({"a": tensor}, {})
    tensor += 1
    assert pieces[-1] == tensor.numpy().tobytes()
