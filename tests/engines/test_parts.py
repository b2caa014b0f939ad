"""What is computed in parts: the right numbers, whatever is cut; and sums that do not depend on who adds up what."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from queue import SimpleQueue
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.helpers.forking import HANGS
from tests.helpers.oracles import configs, numpy64, run, same, sgd_on, with_classes
from tests.helpers.processes import Run, examples
from tests.helpers.published import agree_to_three_digits
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.factory import make_engine
from twolayer.engines.parts import Alone, Group, Sum, edges, own, pieces, whole
from twolayer.engines.selection import choose_engine, choose_split
from twolayer.errors import ConfigError
from twolayer.hardware.threads import set_up
from twolayer.training.doctor.book import published_losses
from twolayer.training.setup import prepare, resolve_auto

SPLITS = {
    "units, primal": {"split": "units", "form": "primal"},
    "units, dual": {"split": "units", "form": "dual"},
    "rows": {"split": "rows", "form": "auto"},
    "inputs": {"split": "inputs", "form": "auto"},
    "compiled": {"split": "rows", "form": "auto", "engine": "compiled"},
}


def in_parts(config: Config, split: str, parts: int = 12, **more: Any) -> Config:
    """The config in parts, with the engine and the one thread that these have."""
    return config.model_copy(update={"parts": parts, "engine": "fused", "threads": "auto", **SPLITS[split], **more})


@pytest.mark.parametrize("split", SPLITS)
def test_the_published_losses_come_out_with_every_split(split: str) -> None:
    losses, _ = run(in_parts(load_config("default"), split, 3), 500)
    assert agree_to_three_digits(losses, published_losses())


@pytest.mark.parametrize("split", SPLITS)
@given(config=configs(40), parts=st.integers(1, 50))
@examples(12)
def test_in_float64_all_splits_compute_what_numpy_does(split: str, config: Config, parts: int) -> None:
    config = in_parts(config, split, parts, dtype="float64")
    losses, weights = run(config)
    full, data, model = prepare(config)
    own_losses, own_weights = numpy64(model, data, full, 5)
    assert losses == pytest.approx(own_losses, rel=1e-9)
    for one, other in zip(weights, own_weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=0, atol=1e-9 * np.abs(other).max())


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_classes_are_trained_as_torch_does(split: str, reduction: str) -> None:
    config = load_config("default", N=40, D_in=30, H=9, D_out=4, lr=0.01, dtype="float64", reduction=reduction)
    config = in_parts(config, split, 5)
    full, data, model = prepare(config)
    full, data = full.model_copy(update={"loss": "cross_entropy"}), with_classes(data)
    with set_up(full):
        engine = make_engine(model, data, full)
        scores = engine.advance(20)
        engine.sync()
    _, _, other = prepare(config)
    losses = [float(score[0]) for score in sgd_on(other, data, full, [None] * 20)]
    assert scores[:, 0].tolist() == pytest.approx(losses, rel=1e-10)
    for one, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("split", ["rows", "compiled"])
def test_a_batch_is_cut_into_parts_too(split: str) -> None:
    config = in_parts(load_config("default", N=50, D_in=7, H=9, D_out=2, lr=1e-3, dtype="float64"), split, 4)
    full, data, model = prepare(config)
    batches = [torch.tensor(rows) for rows in ([4, 9, 40, 2, 7], [1, 49, 3], [8])]
    with set_up(full):
        engine: Any = make_engine(model, data, full)
        out = data.x.new_empty(3)
        engine.updates(batches, out)
        engine.sync()
    _, _, other = prepare(config)
    losses = [float(score) for score in sgd_on(other, data, full, batches)]
    assert out.tolist() == pytest.approx(losses, rel=1e-10)
    for one, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["mse", "cross_entropy"])
def test_the_compiled_engine_has_the_same_bits_in_one_call_and_in_many(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twolayer.engines import compiled_rows

    config = in_parts(load_config("default", N=90, D_in=7, H=9, D_out=3, lr=1e-3), "compiled", 5)
    full, data, model = prepare(config)
    if kind == "cross_entropy":
        full, data = full.model_copy(update={"loss": kind}), with_classes(data)
    batches = [torch.tensor(rows) for rows in ([4, 9, 40, 2, 7] * 7, [1, 49, 3])]

    def trained(numbers: int) -> list[Tensor]:
        monkeypatch.setattr(compiled_rows, "GRADIENTS", numbers)
        with set_up(full):
            engine: Any = make_engine(copy.deepcopy(model), data, full)
            out = data.x.new_empty(2, *engine.objective.shape)
            engine.updates(batches, out)
            return [out, engine.advance(4), *engine.state().values(), engine.final_score()]

    at_once = trained(2**20)
    assert same(at_once, trained(0))
    assert all(one.isfinite().all() for one in at_once)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("at", [300, 1000, 1300])
def test_a_state_continues_bit_for_bit_also_at_a_fold(split: str, at: int) -> None:
    config = in_parts(load_config("default", N=20, D_in=30, H=8, D_out=2, lr=1e-3), split, 3)
    full, data, model = prepare(config)
    with set_up(full):
        engine = make_engine(model, data, full)
        engine.advance(at)
        state = {name: tensor.clone() for name, tensor in engine.state().items()}
        rest = engine.advance(400)
        engine.sync()
        _, _, other = prepare(config)
        again = make_engine(other, data, full)
        again.load_state(state, at)
        assert torch.equal(again.advance(400), rest)
        again.sync()
    assert same([p.detach() for p in model.parameters()], [p.detach() for p in other.parameters()])


class Threads:
    """Ranks in one process, a thread each."""

    def __init__(self, size: int) -> None:
        self.size, self.sent, self.barrier = size, [torch.empty(0)] * size, Barrier(size)
        self.given: list[SimpleQueue[Tensor]] = [SimpleQueue() for _ in range(size)]

    def run(self, work: Callable[[Group], Any]) -> list[Any]:
        """What each rank's work returns."""

        def one(rank: int) -> Any:
            torch.set_num_threads(1)  # a new thread has OpenMP's default
            try:
                return work(Member(rank, self))
            except BaseException:
                self.barrier.abort()  # the others would wait for ever
                raise

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(one, range(self.size)))


class Member:
    """One of them."""

    def __init__(self, rank: int, all_: Threads) -> None:
        self.rank, self.size, self.all = rank, all_.size, all_

    def first(self, size: int) -> Group:
        raise AssertionError

    def gather(self, mine: Tensor, all_: Sequence[Tensor]) -> None:
        self.all.sent[self.rank] = mine
        self.all.barrier.wait()
        for tensor, sent in zip(all_, self.all.sent, strict=True):
            tensor.copy_(sent)
        self.all.barrier.wait()

    def give(self, tensor: Tensor, source: int) -> None:
        if self.rank:
            self.all.given[source].put(tensor)
        else:
            tensor.copy_(self.all.given[source].get(timeout=HANGS))

    def broadcast(self, tensor: Tensor, source: int) -> None:
        if self.rank == source:
            self.all.sent[source] = tensor
        self.all.barrier.wait()
        if self.rank != source:
            tensor.copy_(self.all.sent[source])
        self.all.barrier.wait()


@pytest.mark.parametrize("split", SPLITS)
@given(
    config=configs(40), parts=st.integers(4, 13), classes=st.booleans(), dtype=st.sampled_from(["float32", "float64"])
)
@examples(6)
def test_losses_and_weights_are_the_same_bits_on_every_number_of_ranks(
    split: str, config: Config, parts: int, classes: bool, dtype: str
) -> None:
    """Also of a training that goes on from a state on another number of ranks; rows in batches, too."""
    full, data, model = prepare(in_parts(config, split, parts, dtype=dtype))
    if classes:
        full, data = full.model_copy(update={"loss": "cross_entropy"}), with_classes(data)
    batches = list(torch.split(torch.arange(config.N).flip(0), 11)) if full.split == "rows" else []
    state: dict[str, Tensor] = {}

    def work(group: Group) -> list[Tensor]:
        own_model = copy.deepcopy(model)
        engine: Any = make_engine(own_model, data, full, group)
        scores = data.x.new_empty(len(batches), *engine.objective.shape)
        if group.size == 3:
            engine.load_state(state, 3)
        else:
            engine.advance(3)
            found = {name: tensor.clone() for name, tensor in engine.state().items()}
            state.update(found if group.size == 1 else {})
        losses = engine.advance(4)
        if batches:
            engine.updates(batches, scores)
        engine.sync()
        weights = [parameter.detach() for parameter in own_model.parameters()] if group.rank == 0 else []
        return [losses, scores, *weights]

    with set_up(full):
        (alone,) = Threads(1).run(work)
        for ranks in (2, 3, 4):
            for found in Threads(ranks).run(work):
                assert same(alone[: len(found)], found), ranks  # the first alone has all weights


class Known(Alone):
    """A group in one process: keeps what this rank sends, and answers with what all have sent before."""

    def __init__(self, rank: int, sent: list[Tensor]) -> None:
        self.rank, self.size, self.sent = rank, len(sent), sent

    def gather(self, mine: Tensor, all_: Sequence[Tensor]) -> None:
        self.sent[self.rank] = mine.clone()
        for tensor, known in zip(all_, self.sent, strict=True):
            tensor.copy_(known.view_as(tensor) if known.numel() else tensor)

    def broadcast(self, tensor: Tensor, source: int) -> None:
        raise AssertionError

    def first(self, size: int) -> Known:
        raise AssertionError


@given(count=st.integers(1, 40), numbers=st.integers(1, 70), seed=st.integers(0, 99))
@examples(20)
def test_a_sum_is_the_same_bits_whoever_adds_up_which_parts(count: int, numbers: int, seed: int) -> None:
    terms = torch.randn(count, numbers, generator=torch.Generator().manual_seed(seed))

    def total(ranks: int) -> list[Tensor]:
        sent = [torch.empty(0)] * ranks
        for _ in range(2):  # the first time to learn what each sends
            found = []
            for rank in range(ranks):
                first = own(count, rank, ranks).start
                add_up = Sum(numbers, count, terms, Known(rank, sent))
                found.append(add_up(lambda index, slot, first=first: slot.copy_(terms[first + index])).clone())  # type: ignore[misc]
                assert torch.equal(add_up.of_rows(terms[own(count, rank, ranks)].clone()), found[-1])
        return found

    (alone,) = total(1)
    torch.testing.assert_close(alone, terms.double().sum(0).float(), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(alone, one) for ranks in (2, 3, 4, 7) for one in total(ranks))


class Giving(Alone):
    """A group of which the others have given their tensors, by rank, before the first asks for them."""

    def __init__(self, rank: int, size: int, given: dict[int, Tensor]) -> None:
        self.rank, self.size, self.given = rank, size, given

    def give(self, tensor: Tensor, source: int) -> None:
        if self.rank:
            self.given[source] = tensor.clone()
        else:
            tensor.copy_(self.given[source])


@pytest.mark.parametrize(("size", "parts", "ranks"), [(7, 3, 2), (1, 12, 3), (50, 12, 5)])
def test_the_first_process_alone_gets_what_all_have(size: int, parts: int, ranks: int) -> None:
    everything = torch.randn(size, 4)
    given: dict[int, Tensor] = {}
    found = []
    for rank in reversed(range(ranks)):
        group = Giving(rank, ranks, given)
        mine = [everything[some] for some in pieces(size, parts, group)]
        found.append(whole(mine, size, parts, everything[0], group))
    assert torch.equal(found[-1], everything)
    assert all(not one.numel() for one in found[:-1])


@given(size=st.integers(1, 2000), parts=st.integers(1, 60), ranks=st.integers(1, 9))
@examples(20)
def test_the_cut_covers_everything_once_and_nearly_equally(size: int, parts: int, ranks: int) -> None:
    ends = edges(size, parts)
    lengths = [end - start for start, end in pairwise(ends)]
    assert (ends[0], ends[-1], len(lengths)) == (0, size, min(size, parts))
    block = next((of for of in (16, 8, 4, 2) if size >= 4 * of * parts), 1)
    assert all(end % block == 0 for end in ends[:-1])
    assert max(lengths) - min(lengths[:-1], default=0) <= block or len(lengths) == 1
    assert min(lengths) >= max(lengths) / 3
    assert [part for rank in range(ranks) for part in own(len(lengths), rank, ranks)] == list(range(len(lengths)))


@pytest.mark.parametrize(
    ("values", "split"),
    [
        ({}, "units"),  # dual: 64 x 10 numbers against 101,110
        ({"form": "primal"}, "units"),
        ({"N": 50_000, "D_in": 20, "H": 64, "D_out": 1, "epochs": 100}, "rows"),
        ({"batch_size": 32}, "rows"),
        ({"engine": "compiled"}, "rows"),
        ({"parts": None}, "auto"),
    ],
)
def test_auto_takes_the_split_that_exchanges_less(values: dict[str, Any], split: str) -> None:
    config = resolve_auto(load_config("default", **({"parts": 12} | values)))
    assert (config.split, choose_split(config)) == (split, split)
    if config.parts:
        assert (config.engine, config.threads) == (values.get("engine", "fused"), 1)


def test_auto_takes_the_compiled_engine_for_parts_of_rows_where_it_does_without() -> None:
    table: dict[str, Any] = {"N": 50_000, "D_in": 20, "H": 64, "D_out": 1, "lr": 1e-6, "epochs": 1000}
    for more, engine in (
        ({}, "compiled"),
        ({"epochs": 5}, "fused"),
        ({"batch_size": 100}, "compiled"),
        ({"split": "units"}, "fused"),
        ({"D_in": 300}, "fused"),
    ):
        whole = load_config("default", **(table | more | {"split": "auto"}))
        parted = load_config("default", **(table | more | {"parts": 12}))
        assert (choose_engine(parted), more) == (engine, more)
        assert "split" in more or choose_engine(whole) == engine
    assert resolve_auto(load_config("default", **table, parts=12)).engine_name == "compiled (12 parts of rows)"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"parts": 2, "engine": "manual"},
            "parts: requires the fused or the compiled engine, but the engine is manual",
        ),
        (
            {"parts": 2, "engine": "compiled", "split": "units"},
            "split: units requires the fused engine, but the engine",
        ),
        ({"parts": 2, "threads": 4}, "threads: must be 1 or auto with parts"),
        ({"parts": 2, "split": "units", "batch_size": 8}, "split: units requires all rows at once"),
        ({"parts": 2, "split": "rows", "form": "dual"}, "split: rows requires the primal form"),
        ({"parts": 2, "split": "inputs", "form": "primal"}, "split: inputs requires the dual form"),
        ({"parts": 0}, "parts: must be a whole number from 1 to 1024"),
        ({"parts": 2, "split": "columns"}, "split: must be auto, units, rows or inputs"),
    ],
)
def test_keys_that_cannot_be_together_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("default", **values)
    (problem,) = caught.value.problems
    assert f"{problem.key}: {problem.message}".startswith(message)


def test_a_run_shows_and_keeps_its_parts(twolayer: Run, tmp_path: Any) -> None:
    done = twolayer("train", "--set", "parts=12", "--epochs", "3", "--out", "run")
    assert (done.returncode, "engine fused (dual, 12 parts of units), threads 1" in done.stdout) == (0, True)
    assert '"parts": 12' in (tmp_path / "run" / "run.json").read_text()
    assert "fused (dual, 12 parts of units), 1 thread" in twolayer("show", "run").stdout
    refused = twolayer("train", "--resume", "run", "--epochs", "5", "--set", "parts=6")
    assert (refused.returncode, "parts is 12, not 6" in refused.stderr) == (2, True)
