from __future__ import annotations

from typing import Any

import pytest

from twolayer.config.loading import load_config
from twolayer.errors import ConfigError
from twolayer.hardware import memory
from twolayer.system import available_memory


def test_the_need_is_data_parameters_gradients_and_activations() -> None:
    config = load_config("scratch")  # 100 x 3 -> 32 -> 1
    numbers = 100 * 4 + 2 * (32 * 4 + 1 * 33) + 2 * 100 * 33
    assert memory.needed(config) == memory.needed_by_host(config) == 4 * numbers
    assert memory.needed(config.model_copy(update={"dtype": "float64"})) == 8 * numbers


def test_the_dual_form_needs_its_k() -> None:
    config = load_config("scratch", N=10_000)
    dual = load_config("scratch", N=10_000, engine="fused", form="dual")
    assert memory.needed(dual) - memory.needed(config) == 4 * 10_000 * (10_000 + 32)


def test_checkpoints_take_two_copies_of_the_state_or_of_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("scratch")
    dual = load_config("scratch", engine="fused", form="dual")
    assert memory.needed_to_save(config) == 2 * 4 * (32 * 4 + 33)
    assert memory.needed_to_save(dual) == 2 * 4 * (32 * 4 + 33 + 100 * 32)
    parts = config.model_copy(update={"parts": 7, "split": "units", "form": "primal"})
    assert memory.needed_to_save(parts) == 4 * (2 * (161 // 7) + 161)
    assert memory.needed_to_save(parts.model_copy(update={"split": "inputs"})) == 4 * (2 * (161 // 3) + 161)
    assert memory.needed_to_save(parts.model_copy(update={"split": "rows"})) == 2 * 4 * 161
    wide = parts.model_copy(update={"lr": "auto"})
    assert memory.needed_to_save(wide) == 4 * (2 * (161 + 161 // 7) + 161)
    monkeypatch.setattr(available_memory, "available", lambda: memory.needed_by_host(config))
    memory.check(config)
    with pytest.raises(ConfigError, match="needs at least"):
        memory.check(config, saved=True)


def test_the_host_holds_what_is_drawn_and_for_a_gpu_nothing_else() -> None:
    config = load_config("default", N=200_000)
    drawn = 200_000 * 1010 + 100 * 1001 + 10 * 101
    assert memory.needed_by_host(load_config("default", N=200_000, device="cuda")) == 4 * drawn
    assert memory.needed_by_host(config) == memory.needed(config) > 4 * drawn
    assert memory.needed_by_host(load_config("default", N=200_000, dtype="float64")) >= 12 * drawn


def test_a_config_that_fits_passes_and_one_that_does_not_is_refused_with_its_size() -> None:
    memory.check(load_config("default"))
    with pytest.raises(
        ConfigError, match=r"big\.yaml: 64 x 1000000000000 -> 100 -> 10 needs at least 960 TiB of memory"
    ):
        memory.check(load_config("default", D_in=10**12), "big.yaml")
    with pytest.raises(ConfigError, match="of memory, and"):
        memory.check(load_config("default", N=2**63 - 1, D_in=2**63 - 1, H=2**63 - 1))


def test_a_large_training_leaves_a_tenth_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("scratch", H=10**8)
    need = memory.needed_by_host(config)
    monkeypatch.setattr(available_memory, "available", lambda: need + need // 20)
    with pytest.raises(ConfigError, match=r"needs at least .* of memory, and .* is available"):
        memory.check(config)
    monkeypatch.setattr(available_memory, "available", lambda: need + need // 8)
    memory.check(config)


def test_what_is_kept_of_the_weights_counts() -> None:
    plain = load_config("diabetes", lr=0.1, patience=None, average=None)
    weights = plain.H * (plain.D_in + 1) + plain.D_out * (plain.H + 1)
    for more, copies in (({"patience": 5}, 1), ({"average": 0.9}, 2), ({"lr": "auto"}, 4)):
        assert memory.needed(plain.model_copy(update=more)) - memory.needed(plain) == 4 * copies * weights


def test_a_rank_needs_its_share_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Any] = {"N": 100_000, "D_in": 400, "H": 10, "D_out": 1, "device": "cpu", "parts": 12}
    config = load_config("default", **values, split="rows")
    data = 4 * 100_000 * 401
    one, four = memory.needed(config), memory.needed(config, 4)
    assert 2 * data < one < 2.2 * data  # and a copy
    assert one / 4 <= four < 1.2 * one / 4
    assert memory.needed_by_host(config, 4, 2) == 2 * four
    measured = config.model_copy(update={"lr": "auto"})
    assert memory.needed_by_host(measured, 4, 2) == 2 * four + data - data // 4  # the first has all
    monkeypatch.setattr(available_memory, "available", lambda: 2 * four)
    memory.check(config, ranks=4, here=2)
    with pytest.raises(ConfigError, match="by 4 ranks needs at least"):
        memory.check(config, ranks=4, here=4)
    with pytest.raises(ConfigError):
        memory.check(config)


def test_of_inputs_a_rank_needs_its_columns_and_of_units_and_batches_all_data() -> None:
    values: dict[str, Any] = {"N": 50, "D_in": 100_000, "H": 2, "D_out": 1, "device": "cpu", "parts": 12}
    config = load_config("default", **values, split="inputs")
    assert memory.needed(config, 4) < 0.4 * memory.needed(config)
    units = load_config("default", **values, split="units", form="primal")
    batches = load_config("default", **values, batch_size=10)
    for other in (units, batches):
        assert memory.needed(other, 4) > 4 * 50 * 100_000


@pytest.mark.parametrize("split", ["units", "inputs"])
def test_a_rank_needs_its_share_of_the_weights_and_the_first_all(split: str) -> None:
    values: dict[str, Any] = {"N": 10, "D_in": 900, "H": 1200, "D_out": 1, "device": "cpu", "parts": 12}
    config = load_config("default", **values, split=split, form="primal" if split == "units" else "dual")
    count = 1200 * 901 + 1201
    weights, others = 4 * count, 4 * (count - count // 4)  # those of the other ranks
    one, four = memory.needed(config), memory.needed(config, 4)
    assert 2 * weights < one < 2.2 * weights  # and a copy
    assert one / 4 <= four < 1.3 * one / 4
    assert memory.needed_by_host(config, 4, 2) == 2 * four + others
    assert memory.needed_by_host(config, 4) >= 4 * (four + others)  # each has all


def test_as_many_trainings_fit_at_once_as_the_largest_of_them_do(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = load_config("scratch"), load_config("scratch", H=10_000_000)
    room = 2 * memory.needed_by_host(large) + 2**30
    monkeypatch.setattr(available_memory, "available", lambda: int(room / 0.9))
    assert memory.at_once([small] * 4, 4, saved=False) == 4
    assert memory.at_once([small, large, large, large], 4, saved=False) == 2
    assert memory.at_once([small, large, small, small], 4, saved=False) == 4
    assert memory.at_once([large] * 4, 4, saved=True) == 1  # two copies more, of what is saved
    monkeypatch.setattr(available_memory, "available", lambda: 1)
    assert memory.at_once([small] * 4, 4, saved=False) == 1
    monkeypatch.setattr(available_memory, "available", lambda: None)
    assert memory.at_once([large] * 4, 4, saved=False) == 4
