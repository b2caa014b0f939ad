from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.processes import examples
from twolayer.config.loading import load_config
from twolayer.engines import selection
from twolayer.engines.selection import operations


def test_the_operations_are_those_of_the_products() -> None:
    assert operations(load_config("scratch")) == 4 * 100 * 3 * 32 + 6 * 100 * 32 * 1
    dual = load_config("default", engine="fused", form="dual")
    assert operations(dual) == 2 * 64 * 64 * 100 + 6 * 64 * 100 * 10
    assert operations(load_config("default", engine="manual")) == 4 * 64 * 1000 * 100 + 6 * 64 * 100 * 10


@given(rows=st.integers(1, 100_000), at_once=st.integers(1, 5000), H=st.integers(1, 5000))
@examples(50)
def test_chunks_of_a_part_are_equal_and_nearly_as_long_as_the_cache_allows(rows: int, at_once: int, H: int) -> None:
    length = selection.chunk_rows(rows, at_once, H)
    sizes = [min(length, rows - start) for start in range(0, rows, length)]
    assert length % 16 == 0 or sizes == [rows]
    assert length <= 1.5 * at_once + 16
    assert length * H <= selection.PART + 16 * H
    if at_once >= 256 and len(sizes) <= 4:
        assert sizes[-1] > length / 4  # none has a few rows
