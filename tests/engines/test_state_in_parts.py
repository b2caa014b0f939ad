"""A state in parts: the same files whoever writes them, and the same training on any number of ranks after them."""

from __future__ import annotations

import copy
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.engines.test_parts import Threads, in_parts
from tests.helpers.oracles import configs, same
from tests.helpers.processes import examples
from twolayer.config.loading import load_config
from twolayer.config.schema import Config
from twolayer.engines.factory import make_engine
from twolayer.engines.led import LedEngine, described, follow, load_state, write_parts
from twolayer.engines.parts import Group
from twolayer.errors import RunError, StateError
from twolayer.files import Folder
from twolayer.hardware.threads import set_up
from twolayer.runs.checkpoint import PartFolder, SavedParts, open_announced
from twolayer.training.setup import prepare

SPLITS = ["units, primal", "units, dual", "inputs"]
DONE = 3


class Trial:
    """A training, whose state is written and read by several ranks; `blind` ranks do not have the folder."""

    def __init__(self, config: Config, folder: Path, blind: frozenset[int] = frozenset()) -> None:
        self.config, self.data, self.model = prepare(config)
        folder.mkdir(exist_ok=True)
        self.folder, self.blind = PartFolder(Folder(folder)), blind

    def ranks(self, count: int, lead: Any) -> Any:
        """What `lead` returns, of the engine of the first of so many ranks, which the others follow."""

        def work(group: Group) -> Any:
            model = copy.deepcopy(self.model)

            def make(group: Group) -> Any:
                return make_engine(model, self.data, self.config, group)

            if group.size == 1:
                return lead(make(group), model)
            if group.rank:
                return follow(make, group, lambda: None, lambda text: self.open(text, group.rank))
            engine = LedEngine(make, group)
            found = lead(engine, model)
            engine.end()
            return found

        with set_up(self.config):
            return Threads(count).run(work)[0]

    def open(self, text: str, rank: int) -> PartFolder | None:
        return None if rank in self.blind else open_announced(text)

    def write(self, engine: Any, model: Any) -> tuple[dict[str, Tensor], list[bytes], list[Tensor]]:
        """The state after DONE iterations, its checksums, and what comes after it."""
        engine.advance(DONE)
        common, sums = write_parts(engine, self.folder, DONE)
        return {name: one.clone() for name, one in common.items()}, sums, self.rest(engine, model)

    def rest(self, engine: Any, model: Any) -> list[Tensor]:
        losses = engine.advance(4)
        engine.sync()
        return [losses, *(parameter.detach() for parameter in model.parameters())]

    def saved(self, sums: list[bytes]) -> SavedParts:
        return SavedParts(self.folder, sums, [self.folder.read(DONE, part, one) for part, one in enumerate(sums)])

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.folder.path.iterdir()}


@pytest.mark.parametrize("split", SPLITS)
@given(config=configs(40), parts=st.integers(4, 13), dtype=st.sampled_from(["float32", "float64"]))
@examples(4)
def test_the_files_are_the_same_and_any_number_of_ranks_goes_on(
    split: str, config: Config, parts: int, dtype: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("parts")
    config = in_parts(config, split, parts, dtype=dtype)
    one = Trial(config, place / "one")
    common, sums, rest = one.ranks(1, one.write)
    assert len(one.files()) == len(sums) > 0
    for ranks, blind in ((2, {1}), (3, set()), (4, {2})):
        other = Trial(config, place / f"{ranks}", frozenset(blind))
        written = other.ranks(ranks, other.write)
        assert written[1] == sums
        assert same([*written[0].values(), *written[2]], [*common.values(), *rest])
        assert other.files() == one.files()

        def go_on(engine: Any, model: Any, trial: Trial = other) -> list[Tensor]:
            load_state(engine, common, DONE, trial.saved(sums))
            return trial.rest(engine, model)

        for again in (1, 5 - ranks):
            assert same(other.ranks(again, go_on), rest)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_state_of_other_parts_is_refused_before_any_rank_reads_it(ranks: int, tmp_path: Path) -> None:
    config = load_config("default", N=9, D_in=7, H=24, D_out=2, lr=1e-3)
    wide = Trial(in_parts(config.model_copy(update={"D_in": 8}), "units, primal", 4), tmp_path / "wide")
    few = Trial(in_parts(config, "units, primal", 3), tmp_path / "few")
    rows = Trial(in_parts(config, "rows", 4), tmp_path / "rows")
    trial = Trial(in_parts(config, "units, primal", 4), tmp_path / "own")
    common, sums, rest = trial.ranks(1, trial.write)

    def lead(engine: Any, model: Any) -> list[Tensor]:
        for other, why in ((wide, "its w1 is missing, or of another shape"), (few, "it has 3 parts, not 4")):
            _, others, _ = other.ranks(1, other.write)
            with pytest.raises(StateError, match=why):
                load_state(engine, common, DONE, other.saved(others))
        with pytest.raises(StateError, match="its b2 is missing"):
            load_state(engine, {}, DONE, trial.saved(sums))
        load_state(engine, common, DONE, trial.saved(sums))
        return trial.rest(engine, model)

    assert same(trial.ranks(ranks, lead), rest)

    def by_rows(engine: Any, model: Any) -> None:
        with pytest.raises(StateError, match="it is in parts of units or inputs"):
            load_state(engine, common, DONE, trial.saved(sums))
        assert write_parts(engine, rows.folder, DONE) == (engine.state(), [])

    rows.ranks(1, by_rows)
    assert rows.files() == {}


@pytest.mark.parametrize("split", SPLITS)
def test_what_a_state_takes_is_known_without_gathering_it(split: str, tmp_path: Path) -> None:
    trial = Trial(in_parts(load_config("default", N=9, D_in=7, H=24, D_out=2), split, 4), tmp_path / "run")

    def lead(engine: Any, model: Any) -> bool:
        known, real = (sum(one.nbytes for one in state.values()) for state in (described(engine), engine.state()))
        return known == real

    assert trial.ranks(1, lead)
    assert trial.ranks(3, lead)


def test_a_probe_leaves_nothing_and_finds_the_folder_also_after_a_move(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    folder = PartFolder(Folder(tmp_path / "one"))
    (tmp_path / "one").rename(tmp_path / "moved")
    (tmp_path / "one").mkdir()  # another folder of the old name
    with folder.announced() as text:
        found = open_announced(text)
        assert found is not None
        assert open_announced(text.replace("moved", "other")) is None
        assert open_announced(text.replace("moved", "missing")) is None
    assert open_announced(text) is None
    found.write(7, 2, {"a": torch.arange(3.0)})
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["7.part-2.safetensors"]
    assert (tmp_path / "moved" / "7.part-2.safetensors").exists()


class Full(PartFolder):
    """A folder on a full disk."""

    def write(self, done: int, part: int, tensors: Mapping[str, Tensor]) -> bytes:
        raise RunError("no room", path=self.folder.path)


@pytest.mark.parametrize("full", [0, 2])
@pytest.mark.parametrize("blind", [set(), {1}], ids=["each", "the first"])
def test_a_disk_that_is_full_for_one_rank_is_said_by_the_first_and_all_can_go_on(
    full: int, blind: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(in_parts(load_config("default", N=9, D_in=7, H=24, D_out=2), "inputs", 7), tmp_path / "run")
    common, sums, rest = trial.ranks(1, trial.write)
    trial.blind = frozenset(blind)
    usual = trial.open

    def opened(text: str, rank: int) -> PartFolder | None:
        found = usual(text, rank)
        return Full(found.folder) if found is not None and rank == full else found

    monkeypatch.setattr(trial, "open", opened)

    def lead(engine: Any, model: Any) -> list[Tensor]:
        folder = trial.folder if full else Full(trial.folder.folder)
        if full and blind:  # then that rank writes nothing
            assert trial.write(engine, model)[1] == sums
        else:
            where = rf"rank 2 on {socket.gethostname()}: " if full else ""
            with pytest.raises(RunError, match=f"^{where}{tmp_path / 'run'}: no room$"):
                write_parts(engine, folder, DONE)
        load_state(engine, common, DONE, trial.saved(sums))
        return trial.rest(engine, model)

    assert same(trial.ranks(3, lead), rest)
