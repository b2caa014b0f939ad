"""The points of a sweep: their order, their names, and everything that is wrong with them at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from twolayer.config.loading import Override, load_config
from twolayer.errors import ConfigError, TableError
from twolayer.sweeps.points import Base, plan
from twolayer.tables import dataset

MODULES = Base("modules", environment={})


def problems(base: Base, *sweeps: str, seeds: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(base, sweeps, seeds)
    return [str(problem) for problem in caught.value.problems]


def test_points_are_all_combinations_in_order_and_the_last_key_varies_fastest() -> None:
    found = plan(MODULES, ["lr=1e-3,1e-4", "H=32,8"], "2")
    assert found.keys == ("lr", "H", "seed")
    assert [tuple(point.values.values()) for point in found.points] == [
        (lr, H, seed) for lr in (1e-3, 1e-4) for H in (32, 8) for seed in (0, 1)
    ]
    assert [point.number for point in found.points] == [*range(1, 9)]
    assert found.points[1].name == "lr=0.001,H=32,seed=1"


def test_each_points_config_is_the_one_that_its_values_give_alone() -> None:
    found = plan(MODULES, ["lr=auto,1e-4", "data.noise=0,0.5"], "3,7")
    for point in found.points:
        lr, noise, seed = point.values.values()
        assert point.config == load_config("modules", environment={}, lr=lr, seed=seed, data={"noise": noise})
    assert len({point.sha256 for point in found.points}) == 8


def test_seeds_start_at_the_configs_own() -> None:
    base = Base("modules", [Override(("seed",), "40", "TWOLAYER_SEED")], environment={})
    with pytest.raises(ConfigError, match="seed varies already"):
        plan(base, [], "2")
    found = plan(Base("modules", environment={"TWOLAYER_SEED": "40"}), [], "2")
    assert [point.config.seed for point in found.points] == [40, 41]


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = problems(MODULES, "lr=1e-4,abc,0.0001", "H=-1,4", "engine=fast", "foo")
    assert found[0] == "--sweep foo: must be KEY=VALUES, such as --sweep lr=1e-4,1e-3"
    assert len(found) == 5
    found = problems(MODULES, "lr=1e-4,abc,0.0001", "H=4,-1", "engine=auto,fast")
    assert sorted(found) == [
        "--sweep H=-1: must be a positive whole number, not -1",
        "--sweep engine=fast: must be auto, autograd, manual, fused or compiled, not 'fast'",
        "--sweep lr=0.0001: is the same value as 1e-4; remove one of them",
        "--sweep lr=abc: must be a positive number, or auto, not 'abc'",
    ]

    found = problems(MODULES, "lr=1e-3,0.001,x", "H=0,32,32", "epochz=1,2")  # no config is valid
    assert "--sweep lr=0.001: is the same value as 1e-3; remove one of them" in found
    assert "--sweep H=32: is given twice; remove one of them" in found
    assert len(found) == 6


def test_values_that_do_not_go_together_are_said() -> None:
    assert problems(MODULES, "engine=autograd,fused", "form=auto,dual") == [
        "--sweep form=dual: dual requires the fused engine, but the engine is autograd"
    ]


@pytest.mark.parametrize(
    ("sweeps", "seeds", "message"),
    [
        (["lr=1e-3", "lr=1e-4"], None, "lr varies twice"),
        (["seed=1,2"], "3", "seed varies twice"),
        (["lr=1e-3,1e-3"], None, "is given twice"),
        (["H=4,4.0"], None, "is the same value as 4"),
        (["H=1..1000"], "1000", "1,000,000 points are too many"),
        (["epochz=1,2"], None, "did you mean epochs"),
    ],
)
def test_double_and_unknown_keys_and_double_values_are_refused(
    sweeps: list[str], seeds: str | None, message: str
) -> None:
    assert any(message in problem for problem in problems(MODULES, *sweeps, seeds=seeds))


def test_names_are_folders_that_differ_also_without_upper_case() -> None:
    found = plan(MODULES, ["data.weights=[0.2,-1.3,-0.5],[0.2,1.3,0.5],[0.2,1.3,0.6]"], None)
    names = [point.name for point in found.points]
    assert len({name.lower() for name in names}) == 3
    assert not any(letter in name for name in names for letter in "/\\[] \"'")
    weights = ",".join("123456789" for _ in range(3))
    long = plan(MODULES, [f"data.weights=[{weights}],[{weights.replace('9', '8')}]", "data.noise=" + "1" * 60], None)
    assert all(len(point.name) <= 100 for point in long.points)
    assert len({point.name for point in long.points}) == 2


def test_all_that_is_wrong_with_tables_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{i * i % 7},{i % 5}\n" for i in range(60)))
    base = Base(str(path), [Override(("data", "target"), "y", "--target")], environment={})
    with pytest.raises(TableError) as caught:
        plan(base, ["data.exclude=[a],[zz],[yy]"], None)
    assert "zz" in str(caught.value)
    assert "yy" in str(caught.value)
    found = plan(base, ["data.exclude=[a],[b]"], "2")
    assert [point.config.D_in for point in found.points] == [1] * 4
    assert found.points[0].name == "data.exclude=a,seed=0"


def test_a_table_is_read_once_where_the_points_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads, read = tmp_path / "x.csv", list[int](), dataset.read
    path.write_text("a,b,y\n" + "".join(f"{i},{i * i % 7},{i % 5}\n" for i in range(60)))
    os.utime(path, (1, 1))  # a file that was written just now is not taken for known

    def counted(*arguments: Any, **more: Any) -> Any:
        reads.append(1)
        return read(*arguments, **more)

    monkeypatch.setattr(dataset, "read", counted)
    base = Base(str(path), [Override(("data", "target"), "y", "--target")], environment={})
    for sweeps, seeds, count in (
        (["lr=0.1,0.2", "H=4,8"], None, 1),
        (["lr=0.1,0.2"], "3", 6),  # a seed draws the rows that are held out
        (["validation=null", "lr=0.1,0.2"], "3", 1),
        (["data.exclude=[a],[b]", "lr=0.1,0.2"], None, 2),
    ):
        reads.clear()
        plan(base, sweeps, seeds)
        assert len(reads) == count
    plan(base, ["lr=0.1"], None)
    path.write_text("a,b,y\n" + "".join(f"{i},{i * i % 11},{i % 5}\n" for i in range(60)))
    os.utime(path, (1, 1))
    assert plan(base, ["lr=0.1"], None).points[0].config.N == 51
