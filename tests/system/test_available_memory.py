from __future__ import annotations

from pathlib import Path

from twolayer.system import available_memory


def test_a_containers_limit_counts_less_what_is_in_use_and_no_cache(tmp_path: Path) -> None:
    assert available_memory._container(tmp_path) is None
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 500\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory._container(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_memory._container(tmp_path) == 800
    (tmp_path / "memory.max").write_text("100\n")
    assert available_memory._container(tmp_path) == 0


def test_an_older_kernels_container_counts_too(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("700\n")
    (tmp_path / "memory" / "memory.stat").write_text("total_inactive_file 50\n")
    assert available_memory._container(tmp_path) == 350


def test_the_memory_of_this_machine_is_known_and_believable() -> None:
    free = available_memory.available()
    assert free is not None
    assert 2**20 < free < 2**50
