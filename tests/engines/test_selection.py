from __future__ import annotations

from twolayer.config.loading import load_config
from twolayer.engines.selection import operations


def test_the_operations_are_those_of_the_products() -> None:
    assert operations(load_config("scratch")) == 4 * 100 * 3 * 32 + 6 * 100 * 32 * 1
    dual = load_config("default", engine="fused", form="dual")
    assert operations(dual) == 2 * 64 * 64 * 100 + 6 * 64 * 100 * 10
    assert operations(load_config("default", engine="manual")) == 4 * 64 * 1000 * 100 + 6 * 64 * 100 * 10
