"""Fingerprints of what a training starts from: to resume with the same, and to recognise the rows later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from twolayer.engines.base import Data, OwnWeights
from twolayer.evaluation import known_rows
from twolayer.tables.features import Array


def fingerprints(data: Data, model: nn.Module) -> dict[str, str]:
    """The SHA-256 of all numbers that a training starts from; for a table also of its encoding."""
    columns = json.dumps(data.columns.document()).encode() if data.columns is not None else b""
    known = data.share.sha256 if data.share is not None else None
    initial = model.sha256 if isinstance(model, OwnWeights) else _sha256(model.parameters())
    found = {"data_sha256": known or _sha256([data.x, data.y], columns), "initial_sha256": initial}
    if data.validation is not None:
        found["validation_sha256"] = _sha256([data.validation.x, data.validation.y])
    return found


def is_of_0_1_0(data: Data, digest: Any) -> bool:
    """Whether `data_sha256` is this one if the encoding is written as version 0.1.0 did."""
    document = data.columns.document_of_0_1_0() if data.columns is not None else None
    return document is not None and digest == _sha256([data.x, data.y], json.dumps(document).encode())


def row_sums(data: Data) -> dict[str, Any]:
    """What `evaluate` recognises the rows of a table by, in any order and any file; empty for random data."""
    if data.columns is None:
        return {}
    parts = {"training": data} | ({"validation": data.validation} if data.validation is not None else {})
    return {known_rows.KEY: known_rows.row_sums({name: (_numbers(d.x), _numbers(d.y)) for name, d in parts.items()})}


def _sha256(tensors: Iterable[Tensor], more: bytes = b"") -> str:
    digest = hashlib.sha256(more)
    for tensor in tensors:
        digest.update(_numbers(tensor).data)
    return digest.hexdigest()


def _numbers(tensor: Tensor) -> Array:
    return tensor.detach().cpu().contiguous().numpy()
