"""Source from templates: constants come back as they were, and as `ruff format` writes them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.processes import examples
from twolayer.exporters.eject_source import constant, fill, literal

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.text(max_size=30) | NUMBERS,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=20), inner, max_size=6)
    | st.lists(inner, min_size=1, max_size=5).map(tuple),
    max_leaves=30,
)  # fmt: skip


@given(VALUES)
@examples(60)
def test_a_constant_comes_back(value: Any) -> None:
    assert ast.literal_eval(literal(value)) == value
    assert isinstance(ast.literal_eval(literal(value)), type(value))


def test_constants_are_as_ruff_formats_them(tmp_path: Path) -> None:
    found: list[Any] = []

    @given(VALUES)
    @examples(60)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    file = tmp_path / "constants.py"
    text = "\n".join(constant(f"A{number}", value) for number, value in enumerate(found))
    file.write_text(f"{text}\n")
    command = [str(Path(sys.executable).with_name("ruff")), "format", "--diff", "--isolated", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_line_is_there_where_all_its_conditions_hold() -> None:
    template = """
a        |one $x
a b      |two
not-a    |three
         |four
"""
    assert fill(template, {"a"}, {"x": 1}) == "one 1\nfour"
    assert fill(template, {"a", "b"}, {"x": 1}) == "one 1\ntwo\nfour"
    assert fill(template, set(), {"x": 1}) == "three\nfour"
