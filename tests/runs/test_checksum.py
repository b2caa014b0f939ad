"""Never another exception than ValueError, whatever the file holds; what is sealed is in test_checkpoint.py."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twolayer.runs.checksum import BLANK, unseal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(BLANK),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def file_with(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(ValueError, match="is not a safetensors file, or is damaged"):
        unseal(data)


@given(JSON)
def test_any_header_is_refused_in_words(value: Any) -> None:
    inner = json.dumps({"sha256": value})
    for header in (value, {"__metadata__": value}, {"__metadata__": {"twolayer": value}}):
        with pytest.raises(ValueError, match=r"is not a safetensors file|is damaged"):
            unseal(file_with(json.dumps(header).encode()))
    with pytest.raises(ValueError, match=r"is not a safetensors file|is damaged"):
        unseal(file_with(json.dumps({"__metadata__": {"twolayer": inner}}).encode()))


def test_a_header_that_is_nested_without_end_or_counts_without_end_is_refused() -> None:
    for header in (b"[" * 100_000, b"1" * 10_000, b'{"__metadata__": {"twolayer": "' + b"[" * 100_000 + b'"}}'):
        with pytest.raises(ValueError, match="is not a safetensors file"):
            unseal(file_with(header))
