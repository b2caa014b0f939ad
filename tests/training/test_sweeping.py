"""`twolayer.sweep`: many trainings from Python."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import twolayer
from twolayer.config.loading import Override
from twolayer.errors import ConfigError
from twolayer.runs import checkpoint_interval
from twolayer.sweeps.points import Base, plan
from twolayer.tables import dataset
from twolayer.training.sweep_points import Ended, Job, Trainer


def test_a_sweep_yields_the_trainings_of_train_in_order() -> None:
    found = list(twolayer.sweep("modules", H=[8, 4], seeds=2, epochs=20))
    assert [(each.config.H, each.config.seed) for each in found] == [(8, 0), (8, 1), (4, 0), (4, 1)]
    for each in found:
        alone = twolayer.train("modules", H=each.config.H, seed=each.config.seed, epochs=20)
        assert (each.losses, each.final_loss) == (alone.losses, alone.final_loss)
        assert all(map(torch.equal, each.model.parameters(), alone.model.parameters()))
        assert not each.diverged


def test_one_that_diverges_is_yielded_and_the_others_go_on() -> None:
    bad, good = twolayer.sweep("modules", lr=np.array([10.0, 1e-4]), epochs=10)
    assert bad.diverged
    assert math.isnan(bad.final_loss)
    assert 0 < len(bad.losses) < 10
    assert not math.isfinite(bad.losses[-1])
    assert not good.diverged
    assert len(good.losses) == 10


def test_a_config_and_a_table_are_swept_and_which_seeds_can_be_named() -> None:
    config = twolayer.load_config("diabetes", epochs=2)
    found = list(twolayer.sweep(config, seeds=[7, 3]))
    assert [each.config.seed for each in found] == [7, 3]
    assert found[0].losses == twolayer.train("diabetes", epochs=2, seed=7).losses
    inside: dict[str, Any] = {"data.noise": [0.5]}
    assert [len(each.losses) for each in twolayer.sweep("modules", epochs=3, **inside)] == [3]


def test_all_that_is_wrong_is_said_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError) as caught:
        twolayer.sweep("modules", lr=["x", -1], H=[], seeds=0)
    said = str(caught.value)
    assert all(part in said for part in ("'x'", "not -1", "H=: has no values", "seeds=: must be 1 or more"))
    with pytest.raises(ConfigError, match="the same value as"):
        twolayer.sweep("modules", H=[4, 4.0])


def test_points_on_a_table_share_it_and_one_under_way_goes_on_where_it_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reads, read = tmp_path / "x.csv", list[int](), dataset.read
    path.write_text("a,b,y\n" + "".join(f"{i * 7 % 13},{i * i % 17},{i * 5 % 11}\n" for i in range(200)))
    os.utime(path, (1, 1))
    overrides = [Override(("data", "target"), "y", ""), Override(("epochs",), "30", "")]
    points = plan(Base(str(path), overrides, environment={}), ["lr=0.1,0.01", "H=4,8"], None).points

    def counted(*arguments: Any, **more: Any) -> Any:
        reads.append(1)
        return read(*arguments, **more)

    monkeypatch.setattr(dataset, "read", counted)
    ended = [event for event in Trainer(Job("x"), keep=True).events([(point, "") for point in points])
             if isinstance(event, Ended)]  # fmt: skip
    assert (len(ended), len(reads)) == (4, 1)
    for event in ended:
        assert event.block is not None
        assert event.block.losses == twolayer.train(event.result.point.config).losses

    every = checkpoint_interval.parse("5")
    trainer = Trainer(Job("x", tmp_path, every))
    for _ in trainer.events([(points[0], "")]):
        trainer.request_stop(130)
    assert '"status": "interrupted"' in (tmp_path / points[0].name / "run.json").read_text()
    first = str(path)
    for name in ("y.csv", "z.csv"):  # the second time the run knows the first place
        path = path.rename(tmp_path / name)
        trainer = Trainer(Job("x", tmp_path, every, moved={first: str(path)}))
        seen = list[Any]()
        for one in trainer.events([(points[0], points[0].name)]):
            seen.append(one)
            if name == "y.csv":
                trainer.request_stop(130)
    last = seen[-1]
    assert (last.result.error, last.result.status) == ("", "completed")
    assert last.result.number("last_loss") == ended[0].result.number("last_loss")
