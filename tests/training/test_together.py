"""What several processes start from: the same data in all, and a GPU for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from twolayer.config.loading import load_config
from twolayer.errors import DataError, DeviceError
from twolayer.hardware.launchers import Place
from twolayer.training.fingerprints import fingerprints
from twolayer.training.setup import prepare
from twolayer.training.shares import part_of
from twolayer.training.together import prepare_together

CONFIG = load_config("default", N=4, D_in=3, H=5, D_out=2, parts=2)


class Others:
    """The first of two ranks; `sums` is what the other one has sent."""

    def __init__(self, sums: dict[str, str], place: Place) -> None:
        self.rank, self.size, self.place, self.sums = 0, place.size, place, sums
        self.hosts, self.told = ["hosta"], dict[str, str]()

    def publish(self, key: str, text: str) -> None:
        self.told[key] = text

    def broadcast(self, tensor: torch.Tensor, source: int) -> None:
        pass

    def collected(self, key: str) -> list[str]:
        return [json.dumps(["hostb", self.sums])]


def first(sums: dict[str, str] | None = None, place: Place | None = None) -> Any:
    return Others(sums or {}, place or Place(0, 2, 0, 1))


def test_all_must_have_the_same_data() -> None:
    _, data, model = prepare(CONFIG)
    sums = fingerprints(data, model)
    ranks = first(sums)
    config, _, _, group = prepare_together(CONFIG, None, ranks)
    assert id(group) == id(ranks)
    assert (config.split, config.threads, ranks.hosts) == ("units", 1, ["hosta", "hostb"])
    shared, (text,) = json.loads(ranks.told["configs"])
    assert shared
    assert "parts: 2" in text
    for key, what in (("data_sha256", "the data"), ("initial_sha256", "the initial weights")):
        with pytest.raises(DataError, match=f"^{what} of rank 1 on hostb are not those of rank 0"):
            prepare_together(CONFIG, None, first(sums | {key: "0"}))


def test_the_rows_that_a_rank_reads_of_a_table_must_be_those_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("a,price\n" + "".join(f"{i},{i * i % 17}\n" for i in range(20)))
    data = {"source": "file", "path": str(tmp_path / "my.csv"), "target": "price"}
    config = load_config(data=data, parts=4, batch_size=None, lr=0.1, H=2, epochs=1)
    full, all_, model = prepare(config)
    sums = fingerprints(part_of(all_, full, 1, 2), model)
    assert sums["data_sha256"] != fingerprints(all_, model)["data_sha256"]
    ranks = first(sums)
    _, mine, _, _ = prepare_together(config, None, ranks)
    assert json.loads(ranks.told["columns"])["targets"][0]["column"] == "price"
    assert (len(mine.x), mine.share) == (full.N, None)  # the first has all
    with pytest.raises(DataError, match=r"^the data of rank 1 on hostb are not those of rank 0"):
        prepare_together(config, None, first(sums | {"data_sha256": "0"}))


def test_each_rank_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.model_copy(update={"device": "cuda"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match=r"^3 ranks on this machine, which has 2 GPUs: each rank needs one"):
        prepare_together(config, None, first(place=Place(0, 3, 0, 3, "meeting")))
    one = config.model_copy(update={"device": "cuda:1"})
    with pytest.raises(DeviceError, match=r"^cuda:1 is one GPU, for 3 ranks"):
        prepare_together(one, None, first(place=Place(0, 3, 0, 3, "meeting")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_ranks_have_the_error_of_one_process() -> None:
    with pytest.raises(DeviceError, match=r"^no device cuda"):
        prepare_together(CONFIG.model_copy(update={"device": "cuda"}), None, first(place=Place(0, 3, 0, 3, "meeting")))
