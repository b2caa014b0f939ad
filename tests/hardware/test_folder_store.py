"""What the ranks of one machine leave each other is there whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from twolayer.hardware.folder_store import FolderStore


def test_a_value_is_what_was_set_under_any_key_and_prefix(tmp_path: Path) -> None:
    one, other = FolderStore(tmp_path), FolderStore(tmp_path, "7f")
    keys = ["a", "a/b", "../up", "default_pg/0//cpu//0/rank_1", "sums of 3", "ü+new", "."]
    for number, key in enumerate(keys):
        assert not one.check([key])
        one.set(key, str(number))
        other.set(key, bytes([number, 0, 255]))
    assert one.check(keys)
    assert [one.get(key) for key in keys] == [str(number).encode() for number in range(len(keys))]
    assert [other.get(key) for key in keys] == [bytes([number, 0, 255]) for number in range(len(keys))]
    assert not other.check([*keys, "b"])
    one.set("a", "again")
    assert one.get("a") == b"again"
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}


def test_a_number_is_the_sum_of_what_all_have_added(tmp_path: Path) -> None:
    stores = [FolderStore(tmp_path, "p"), FolderStore(tmp_path, "p")]
    assert [store.add("n", amount) for store, amount in zip(stores * 2, (2, 3, 0, -1), strict=True)] == [2, 5, 5, 4]
    assert FolderStore(tmp_path, "q").add("n", 0) == stores[0].add("n+", 0) == 0


def test_of_a_value_for_which_there_is_no_room_nothing_is_there(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    store = FolderStore(tmp_path)
    store.set("a", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        for key in ("a", "b"):
            with pytest.raises(OSError, match="large") as caught:
                store.set(key, "more than ten bytes")
            assert caught.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.get("a") == b"old"
    assert not store.check(["b"])
    assert len(list(tmp_path.iterdir())) == 1
