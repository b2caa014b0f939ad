from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twolayer.config import yaml12
from twolayer.errors import ConfigError


def value(text: str) -> Any:
    document = yaml12.parse(text, "t.yaml")
    assert not document.problems
    return document.value


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", ".0001", "+1e-4", "0.0001", "1.e-4"])
def test_every_spelling_of_a_number_is_the_number(text: str) -> None:
    assert value(text) == 1e-4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("yes", "yes"),
        ("on", "on"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2001-01-01", "2001-01-01"),
        ("0b11", "0b11"),
        (".5", 0.5),
        ("5.", 5.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("'1'", "1"),
        ('"true"', "true"),
        ("|\n  1", "1"),
        ("=", "="),
    ],
)
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text: str, expected: object) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_nan_is_read_as_nan() -> None:
    assert math.isnan(value(".NaN"))


def test_every_value_knows_its_line_and_column() -> None:
    document = yaml12.parse("a: 1\nb:\n  - x\n  - {c: 2}\n", "t.yaml")
    places = {path: origin.place for path, origin in document.origins.items()}
    assert places[("a",)] == "t.yaml:1:4"
    assert places[("b", 0)] == "t.yaml:3:5"
    assert places[("b", 1, "c")] == "t.yaml:4:9"
    assert document.key_origins[("b",)].place == "t.yaml:2:1"


def test_a_duplicate_key_is_a_problem_that_names_both_places() -> None:
    ((path, problem),) = yaml12.parse("a: 1\nb: 2\na: 3\n", "t.yaml").problems
    assert path == ("a",)
    assert str(problem) == "t.yaml:3:1: a: given twice; the first is at t.yaml:1:1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1", "t.yaml:1:4: anchors and aliases (&x) are not supported"),
        ("a: *x", "t.yaml:1:4: anchors and aliases (*x) are not supported"),
        ("<<: {a: 1}", "t.yaml:1:1: merge keys are not supported"),
        ("a: !!timestamp foo", "t.yaml:1:4: tags (tag:yaml.org,2002:timestamp) are not supported"),
        ("!!python/object:os.system [x]", "t.yaml:1:1: tags (tag:yaml.org,2002:python/object:os.system)"),
        ("! a: 1", "t.yaml:1:1: tags (!) are not supported"),
        ("[a]: 1", "t.yaml:1:1: a key must be a plain word"),
        ("a: 1\n--- \nb: 2", "t.yaml:2:1: a second document starts here"),
        ("a: [1\nb: 2", "t.yaml:2:2: not YAML:"),
        ("a: 1\nlr:1e-4\n", "t.yaml:2:1: `key: value` is expected here; is there a space after the colon?"),
        ("a: 1\n b: 2\n", "t.yaml:2:3: a key is not allowed here; is the line indented like the one above?"),
        ("a: 'open", "t.yaml:1:9: not YAML:"),
        ("a: \x1b", "t.yaml:1:4: the character U+001B is not allowed"),
        ("a: 1\r\nb: \ud800", "t.yaml:2:4: the character U+D800 is not allowed"),
        ("[" * 100_000, "t.yaml:1:33: nested more than 32 deep"),
        ("- " * 100_000, "t.yaml:1:65: nested more than 32 deep"),
        ("{a: " * 100_000, "t.yaml:1:129: nested more than 32 deep"),
        ("é: " + "[" * 100_000, "t.yaml:1:35: nested more than 32 deep"),
        ("[" * 32 + "'", "t.yaml:1:34: not YAML:"),
    ],
)
def test_what_no_config_needs_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        yaml12.parse(text, "t.yaml")
    assert str(error.value).startswith(message)


def test_an_endless_list_of_problems_is_cut() -> None:
    with pytest.raises(ConfigError) as error:
        yaml12.parse("a: 1\n" * 10_000, "t.yaml")
    assert len(error.value.problems) == yaml12.MAX_PROBLEMS


# Without control characters, and without the three that end a line in YAML 1.1, which libyaml follows there.
_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn", "Zl", "Zp"], exclude_characters="\ufeff"))
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
_TREES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4), max_leaves=20
)


@given(_TREES)
def test_json_which_yaml_1_2_contains_reads_back_as_it_was(tree: object) -> None:
    # JSON's escapes for what is beyond the basic plane are surrogate pairs, which YAML's are not.
    assert _same(value(json.dumps(tree, ensure_ascii=False)), tree)


def _same(found: object, tree: object) -> bool:
    if isinstance(tree, dict) and isinstance(found, dict):
        return tree.keys() == found.keys() and all(_same(found[key], tree[key]) for key in tree)
    if isinstance(tree, list) and isinstance(found, list):
        return len(tree) == len(found) and all(map(_same, found, tree))
    return found == tree and type(found) is type(tree)


@given(st.text(max_size=200))
def test_any_text_ends_in_a_document_or_a_config_error(text: str) -> None:
    try:
        assert yaml12.parse(text, "t.yaml") is not None
    except ConfigError as error:
        assert error.problems[0].origin.name.startswith("t.yaml")


@pytest.mark.parametrize(
    "text", ["caf\udcff", "a\\udcff", "\\\udc80", "\U0001f600", "a\x7f\x85\u2028\ufeff", 'q"\\', "\U0010dc80"]
)
def test_what_dump_writes_is_read_again(text: str) -> None:
    written = yaml12.dump({text: [text, 1, None]})
    assert "\n" not in written
    assert written.encode()
    assert yaml12.parse(written, "t").value == {text: [text, 1, None]}


@pytest.mark.parametrize("scalar", [r"\udcff", r"'\udcff'", r"'\\udcff'"])
def test_only_in_double_quotes_is_the_escape_of_a_byte_one(scalar: str) -> None:
    assert yaml12.parse(f"p: {scalar}", "t").value == {"p": scalar.strip("'")}
