"""Each process has its own share of the data: the same numbers as in one process, in memory that does not grow."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.helpers.processes import examples
from twolayer.config.from_table import table_of
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.base import Data, OwnWeights
from twolayer.engines.factory import make_engine
from twolayer.engines.parts import Alone, own_range
from twolayer.errors import DataError
from twolayer.hardware import memory
from twolayer.hardware.threads import set_up
from twolayer.system import available_memory
from twolayer.training import shares
from twolayer.training.fingerprints import fingerprints
from twolayer.training.loop import fit, train
from twolayer.training.metrics import scores
from twolayer.training.setup import load_data, prepare


class Member(Alone):
    """A place in a group whose first process sends `told`, and nobody anything else."""

    def __init__(self, rank: int, size: int, told: Sequence[Tensor] = ()) -> None:
        self.rank, self.size, self.told = rank, size, list(told)

    def broadcast(self, tensor: Tensor, source: int) -> None:
        if not self.rank:
            self.told.append(tensor.clone())
        elif self.told:
            tensor.copy_(self.told.pop(0))


def joined(some: Sequence[Data], split: str) -> tuple[Tensor, Tensor]:
    """x and y of all data, of the shares of all processes."""
    x = torch.cat([data.x for data in some], 0 if split == "rows" else 1)
    return x, torch.cat([data.y for data in some]) if split == "rows" else some[0].y


@given(
    N=st.integers(1, 200),
    D_in=st.integers(1, 9),
    D_out=st.integers(1, 3),
    parts=st.integers(1, 12),
    ranks=st.integers(2, 5),
    split=st.sampled_from(["rows", "inputs"]),
    source=st.sampled_from(["random", "linear"]),
    dtype=st.sampled_from(["float32", "float64"]),
    block=st.sampled_from([1, 64, 700]),
)
@examples(40)
def test_the_shares_are_the_data_of_one_process_and_so_is_their_fingerprint(
    N: int, D_in: int, D_out: int, parts: int, ranks: int, split: str, source: str, dtype: str, block: int
) -> None:
    rows = [[0.5 + i + j for i in range(D_in)] for j in range(D_out)]
    data = {"source": "random"} if source == "random" else {"source": "linear", "weights": rows, "noise": 0.3}
    whole = load_config("default", N=N, D_in=D_in, D_out=D_out, H=3, seed=N, data=data, dtype=dtype, threads=1)
    config = whole.model_copy(update={"parts": parts, "split": split})
    with pytest.MonkeyPatch.context() as patch, set_up(whole):
        patch.setattr(shares, "BLOCK", block)
        generators = [torch.Generator().manual_seed(whole.seed) for _ in range(ranks + 2)]
        one = load_data(whole, generators[0])
        alone = load_data(config, generators[1])
        some = [load_data(config, generators[2 + r], group=Member(r, ranks)) for r in range(ranks)]
    assert alone.share is None
    for x, y in ((alone.x, alone.y), joined(some, split)):
        assert torch.equal(x, one.x)
        assert torch.equal(y, one.y)
    model = torch.nn.Linear(1, 1)
    assert {fingerprints(data, model)["data_sha256"] for data in (one, alone, *some)} == {
        fingerprints(one, model)["data_sha256"]
    }
    assert len({bytes(generator.get_state().numpy()) for generator in generators}) == 1  # the weights come next


@given(
    H=st.integers(1, 60),
    D_in=st.integers(1, 40),
    D_out=st.integers(1, 5),
    parts=st.integers(1, 12),
    ranks=st.integers(2, 5),
    split=st.sampled_from(["units", "inputs"]),
    init=st.sampled_from(["default", "normal"]),
    dtype=st.sampled_from(["float32", "float64"]),
    block=st.sampled_from([1, 64, 700]),
)
@examples(40)
def test_a_process_draws_its_own_weights_of_those_of_one_process_with_their_fingerprint(
    H: int, D_in: int, D_out: int, parts: int, ranks: int, split: str, init: str, dtype: str, block: int
) -> None:
    values: dict[str, Any] = {
        "N": 3,
        "D_in": D_in,
        "H": H,
        "D_out": D_out,
        "seed": H,
        "parts": parts,
        "init": init,
        "dtype": dtype,
    }
    form = "primal" if split == "units" else "dual"
    config = load_config("default", **values, split=split, form=form, threads=1, engine="fused")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shares, "BLOCK", block)
        _, data, model = prepare(config)
        some = [prepare(config, None, Member(rank, ranks))[1:] for rank in range(ranks)]
    w1, b1, w2, b2 = model.parameters()
    size = H if split == "units" else D_in
    covered: list[int] = []
    for rank, (of_rank, part) in enumerate(some):
        assert fingerprints(of_rank, part) == fingerprints(data, model)
        expected = own_range(size, parts, rank, ranks)
        covered += range(size)[expected]
        if rank:
            assert isinstance(part, OwnWeights)
            assert (part.units, part.inputs)[split == "inputs"] == expected
            for mine, whole in zip(
                part.parameters(), (w1[part.units, part.inputs], b1[part.units], w2[:, part.units], b2), strict=True
            ):
                assert torch.equal(mine, whole)
        else:
            assert not isinstance(part, OwnWeights)  # it writes the model file
    assert covered == list(range(size))


def test_the_first_has_all_data_where_it_measures_the_learning_rate() -> None:
    config = load_config("default", N=9, D_in=5, H=3, D_out=2, parts=3, split="rows", lr="auto")
    assert load_data(config, group=Member(0, 3)).share is None
    assert load_data(config, group=Member(1, 3)).shape == (9, 5)
    assert len(load_data(config, group=Member(1, 3)).x) == 3


def test_data_that_fit_shared_out_are_not_refused_by_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("default", N=1200, D_in=50, H=3, D_out=2, parts=12, split="rows", engine="fused", threads=1)
    together = memory.needed_by_host(config, 4, 4)
    assert together < 0.5 * memory.needed_by_host(config, 4)  # where each had all data
    monkeypatch.setattr(available_memory, "available", lambda: 2 * together)
    memory.check(config, ranks=4, here=4)
    _, data, _ = prepare(config, None, Member(1, 4))
    assert data.share is not None


@pytest.mark.parametrize("split", ["rows", "inputs"])
def test_the_final_loss_is_that_of_the_weights(split: str) -> None:
    done = train("default", N=50, D_in=20, H=9, D_out=2, lr=1e-4, epochs=30, parts=5, split=split, reduction="mean")
    (expected,) = scores(done.model, done.data, done.config)
    assert done.final_loss == pytest.approx(expected, rel=1e-5)
    assert done.final_loss < done.losses[-1]


def test_it_is_of_the_weights_that_patience_has_kept_for_classes_too(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("a,kind\n" + "".join(f"{i},{'xyz'[i * i % 7 % 3]}\n" for i in range(60)))
    data = {"source": "file", "path": str(tmp_path / "my.csv"), "target": "kind"}
    config = load_config(data=data, parts=4, batch_size=None, lr=3.0, H=4, epochs=40, patience=3, average=None)
    config, rows, model = prepare(config)
    training = fit(model, rows, config)
    for _ in training:
        pass
    outcome = training.finish()
    assert outcome.kept < training.done
    assert [outcome.scores[name] for name in ("loss", "accuracy")] == pytest.approx(scores(model, rows, config))


def test_batches_may_have_any_rows() -> None:
    config = load_config("default", N=9, D_in=5, H=3, D_out=2, parts=3, split="rows", batch_size=2)
    assert load_data(config, group=Member(1, 3)).share is None


# --- memory


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that there are at once; `peak` is their largest sum so far."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.counts: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and tensor.device.type == "cpu":
                storage = tensor.untyped_storage()
                place, size = storage.data_ptr(), storage.nbytes()
                if not self.counts.get(place):
                    self.now += size
                    self.peak = max(self.peak, self.now)
                self.counts[place] = self.counts.get(place, 0) + 1
                weakref.finalize(tensor, self._drop, place, size)
        return found

    def _drop(self, place: int, size: int) -> None:
        self.counts[place] -= 1
        if not self.counts[place]:
            self.now -= size


def peak(config: Config, ranks: int) -> int:
    """The bytes of tensors that the last of so many ranks has at once while it gets ready and computes an update."""
    member = Member(ranks - 1, ranks)
    live = Live()
    with live:
        full, data, model = prepare(config, None, member)
        with set_up(full):
            make_engine(model, data, full, member).advance(1)
    return live.peak


@pytest.mark.parametrize("split", ["rows", "compiled rows", "inputs", "units"])
def test_the_memory_of_a_rank_does_not_grow_with_the_ranks(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _, of = split.rpartition(" ")

    def config(ranks: int) -> Config:
        N, D_in, H = {
            "rows": (2**13 * ranks, 33, 1),
            "inputs": (32, 2**15 * ranks, 1),
            "units": (2, 400, 2**12 * ranks),
        }[of]
        more: dict[str, Any] = {"split": of, "engine": engine or "fused", "form": "primal" if of == "units" else "auto"}
        return load_config("default", N=N, D_in=D_in, H=H, D_out=1, lr=1e-9, parts=12, **more)

    monkeypatch.setattr(shares, "BLOCK", 2**14)
    (two, few), (six, many) = ((peak(config(ranks), ranks), config(ranks)) for ranks in (2, 6))
    share = 4 * few.D_in * (few.H if of == "units" else few.N) // 2
    assert share < two < 3 * share  # x, a copy whose parts are aligned, and the blocks that are drawn
    assert six < 1.2 * two
    assert peak(many, 1) > 2 * six
    assert share < memory.needed(many, 6) < 1.2 * memory.needed(few, 2) < 3 * two


# --- tables

COLUMNS = {
    "a": [float(i * i % 97) / 7 for i in range(90)],
    "b": [None if i % 13 == 5 else i % 5 for i in range(90)],
    "c": [["red", "green", None][i % 3] for i in range(90)],
    "day": [f"2024-{1 + i % 12:02}-{1 + i % 27:02}" for i in range(90)],
    "price": [None if i % 11 == 3 else 3.0 * i - i % 7 for i in range(90)],
}
NUMBERS = np.stack([np.arange(90) * k % 31 + 0.25 * k for k in (1, 2, 5)], 1).astype("float32")


def written(folder: Path, kind: str) -> tuple[Path, str]:
    """A table of this kind, and its target."""
    path, frame = folder / f"my.{kind}", pl.DataFrame(COLUMNS)
    if kind == "csv":
        lines = frame.write_csv().splitlines()
        path.write_text("\n".join([*lines[:40], "", *lines[40:]]) + "\n")  # with a blank line
    elif kind == "npy":
        np.save(path, NUMBERS)
    elif kind == "safetensors":
        save_file({"x": NUMBERS[:, :2].copy(), "y": NUMBERS[:, 2].copy()}, path)
    else:
        getattr(frame, {"parquet": "write_parquet", "arrow": "write_ipc", "ndjson": "write_ndjson"}[kind])(path)
    return path, {"npy": "2", "safetensors": "y"}.get(kind, "price")


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow", "ndjson", "npy", "safetensors"])
@pytest.mark.parametrize("split", ["rows", "inputs"])
def test_a_process_reads_its_own_rows_of_a_table_as_one_process_does(tmp_path: Path, kind: str, split: str) -> None:
    path, target = written(tmp_path, kind)
    more: dict[str, Any] = {"patience": None, "average": None} | ({} if split == "rows" else {"validation": None})
    data = {"source": "file", "path": str(path), "target": target}
    config = load_config(data=data, batch_size=None, parts=5, split=split, lr=0.1, H=2, epochs=1, threads=1, **more)
    table = table_of(config)
    leader = Member(0, 4)
    shares.tell_rows(table, config, leader)
    all_ = load_data(config, table=table, group=leader)
    assert all_.share is None
    some = []
    for rank in range(1, 4):
        own = shares.read_own(config, table.columns, Member(rank, 4, leader.told))
        data_of_rank = load_data(config, table=own, group=Member(rank, 4))
        assert (data_of_rank.shape, data_of_rank.validation) == ((config.N, config.D_in), None)
        expected = shares.part_of(all_, config, rank, 4)
        model = torch.nn.Linear(1, 1)
        assert fingerprints(data_of_rank, model) == fingerprints(expected, model)
        some.append(data_of_rank)
    x, y = joined([shares.part_of(all_, config, 0, 4), *some], split)
    assert torch.equal(x, all_.x)
    assert torch.equal(y, all_.y)


def test_a_file_with_fewer_rows_is_told(tmp_path: Path) -> None:
    path, target = written(tmp_path, "csv")
    data = {"source": "file", "path": str(path), "target": target}
    config = load_config(data=data, batch_size=None, parts=2, split="rows", lr=0.1, H=2, epochs=1, validation=None,
                         patience=None, average=None)  # fmt: skip
    table, leader = table_of(config), Member(0, 2)
    shares.tell_rows(table, config, leader)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:80]))
    with pytest.raises(DataError, match=r"my.csv: has \d+ rows less than the file of rank 0"):
        shares.read_own(config, table.columns, Member(1, 2, leader.told))
