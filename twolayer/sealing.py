"""The checksum that a safetensors file of ours carries of itself. Never imports torch."""

from __future__ import annotations

import hashlib
import json
from typing import Any

BLANK = "0" * 64  # stands for the checksum in what the checksum is of


def unseal(data: bytes) -> dict[str, Any]:
    """The metadata of a safetensors file that `checkpoint.pack` made. Raises ValueError where a byte is another."""
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["twolayer"])
        digest = metadata["sha256"]
        start = data.index(digest.encode()) if len(digest) == len(BLANK) else -1
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("is no safetensors file, or damaged") from None
    blank = hashlib.sha256(data[:start] + BLANK.encode())
    blank.update(memoryview(data)[start + len(BLANK) :])
    if start < 0 or blank.hexdigest() != digest:
        raise ValueError("is damaged: its checksum is another")
    return dict(metadata)
