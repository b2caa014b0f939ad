"""The targets of `make fuzz`, over their corpus and some inputs near it; the fuzzing itself is no test."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.fuzz.targets import TARGETS
from twolayer.config import yaml12
from twolayer.runs import checksum
from twolayer.runs.history import Figures

CORPUS = Path(__file__).parent / "corpus"
NEAR = 40  # inputs near each of the corpus


def near(data: bytes, chosen: random.Random) -> bytes:
    """The data with a few bytes that are others, missing, or there twice."""
    changed = bytearray(data)
    for _ in range(chosen.choice((1, 1, 2, 4))):
        start = chosen.randrange(len(changed) + 1)
        end = start + chosen.choice((0, 1, 1, 4))
        changed[start:end] = chosen.choice(
            (b"", chosen.randbytes(1), chosen.randbytes(3), bytes(changed[start:end] * 2))
        )
    return bytes(changed)


def test_every_target_has_a_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(any((CORPUS / name).iterdir()) for name in TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_fuzzed_keeps_its_promises_on_the_corpus_and_near_it(name: str) -> None:
    chosen, tried = random.Random(0), 0
    for path in sorted((CORPUS / name).iterdir()):
        data = path.read_bytes()
        for wanted in (data, *(near(data, chosen) for _ in range(NEAR))):
            try:
                TARGETS[name](wanted)  # which asserts what is promised
                tried += 1
            except Exception as error:
                error.add_note(f"from {path.name}: {wanted!r}"[:5000])
                raise
    assert tried == len(list((CORPUS / name).iterdir())) * (NEAR + 1)


WRONG: dict[str, tuple[object, str, object, bytes]] = {
    "yaml": (yaml12, "dump", lambda value: "2", b"a: 1"),
    "rows": (targets, "check_csv", lambda *given, **more: ("", []), b"\x041,2\n3\n"),
    "history": (targets, "scan", lambda file: Figures(3), b"iteration,loss\n1,2.5\n2,1.5\n"),
    "safetensors": (checksum, "unseal", lambda data: {"sha256": "0" * 64}, b"\x02" + bytes(7) + b"{}" + b"0" * 64),
    "run_json": (checksum, "seal_json", lambda info: b'{"format": 3}', b'{"format": 1, "config_sha256": []}'),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_reader_that_is_wrong_breaks_a_promise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, function, replacement, data = WRONG[name]
    TARGETS[name](data if name != "rows" else b"\x041,2\n3,4\n")
    monkeypatch.setattr(place, function, replacement)
    with pytest.raises(AssertionError):
        TARGETS[name](data)
