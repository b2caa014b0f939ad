"""Reads YAML 1.2 (core schema) into plain values, each with its line and column.

PyYAML parses; the values are composed here from its events, because its own loaders follow YAML 1.1 (where
`010` is eight, `yes` is true and `1e-4` is a string), expand aliases, and recurse without a bound.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import yaml

from twolayer.errors import ConfigError, Origin, Problem

MAX_DEPTH = 32
MAX_KEYS = 1000  # in one mapping
MAX_VALUES = 20_000  # in all; the weights of linear data may be many
MAX_DIGITS = 4300  # what Python itself converts from decimal
MAX_PROBLEMS = 20  # more would only hide the first ones

Path = tuple[str | int, ...]  # the keys and indices that lead from the top to a value

# libyaml where the wheel has it, as all of PyYAML's own do: the pure Python parser is 20 times slower.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# The complement of YAML 1.2's c-printable (production 1); it holds the lone surrogates as well.
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPED = re.compile(f"{_NOT_PRINTABLE.pattern}|[\x85\u2028\u2029\ufeff]")
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")

# A byte of a path that is not UTF-8, as JSON writes what Python holds it as: a lone surrogate. libyaml refuses it, and
# sees a character for private use in its place.
_BYTE = re.compile(r"(?<!\\)((?:\\\\)*)\\udc([89a-f][0-9a-f])")
_STAND_IN = re.compile("[\U0010dc80-\U0010dcff]")
_AWAY = 0x10DC00 - 0xDC00

# YAML 1.2.2, section 10.3.2, table "core schema tag resolution".
_NULL = re.compile(r"(?:null|Null|NULL|~|)")
_TRUE, _FALSE = re.compile(r"true|True|TRUE"), re.compile(r"false|False|FALSE")
_INT = re.compile(r"(?P<dec>[-+]?[0-9]+)|0o(?P<oct>[0-7]+)|0x(?P<hex>[0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INF, _NAN = re.compile(r"[-+]?\.(?:inf|Inf|INF)"), re.compile(r"\.(?:nan|NaN|NAN)")


# What libyaml says about the two most frequent mistakes, and what we say.
_IN_OTHER_WORDS = {
    "could not find expected ':'": "`key: value` is expected here; is there a space after the colon?",
    "mapping values are not allowed in this context": (
        "a key is not allowed here; is the line indented like the one above?"
    ),
}


@dataclass
class Document:
    """A parsed document: its value, the origin of every value and key in it, and what is wrong with it."""

    value: Any = None
    origins: dict[Path, Origin] = field(default_factory=dict)
    key_origins: dict[Path, Origin] = field(default_factory=dict)
    problems: list[tuple[Path, Problem]] = field(default_factory=list)


def parse(text: str, name: str, *, lines: bool = True) -> Document:
    """Parse one YAML document.

    `name` is the name in every origin; with `lines=False` (a variable, an option) they have no line and column.
    Problems of single values (a key given twice, a number of 5000 digits) are added to `Document.problems`. Invalid
    YAML, and the parts of YAML that no config needs (anchors, aliases, merge keys, tags, deep nesting), raise
    ConfigError.
    """
    if found := _NOT_PRINTABLE.search(text):
        before = _LINE_BREAK.split(text[: found.start()])
        origin = Origin(name, len(before), len(before[-1]) + 1) if lines else Origin(name)
        raise _fatal(origin, f"the character U+{ord(found[0]):04X} is not allowed in YAML")
    has_bytes = bool(_BYTE.search(text)) and not _STAND_IN.search(text)
    if has_bytes:
        text = _BYTE.sub(lambda found: found[1] + chr(0x10DC00 + int(found[2], 16)), text)
    return _Composer(text, name, lines, has_bytes).document()


def dump(value: Any) -> str:
    """A value as JSON that is YAML, too, in one line: with an escape for every character that YAML does not allow.

    (JSON's own escapes for all but ASCII are pairs of surrogates beyond U+FFFF, which libyaml refuses.)
    """
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def resolve(text: str) -> Any:
    """The value of a plain scalar under the core schema: None, a bool, an int, a float, or the text itself.

    Raises ValueError for a whole number of more than 4300 digits.
    """
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if found := _INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError
        base = {"dec": 10, "oct": 8, "hex": 16}[str(found.lastgroup)]
        return int(found[str(found.lastgroup)], base)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INF.fullmatch(text):
        return float("-inf") if text.startswith("-") else float("inf")
    return float("nan") if _NAN.fullmatch(text) else text


def _fatal(origin: Origin, message: str) -> ConfigError:
    return ConfigError([Problem(origin, "", message)])


class _Composer:
    """Builds one `Document` from a stream of events, which it takes one at a time, without looking ahead."""

    def __init__(self, text: str, name: str, lines: bool, has_bytes: bool) -> None:
        self.has_bytes = has_bytes  # each with a stand-in in the text
        self.text, self.name, self.lines, self.result = text, name, lines, Document()
        self.events: Iterator[Any] = yaml.parse(text, Loader=_Loader)

    def document(self) -> Document:
        try:
            next(self.events)  # StreamStart
            event = next(self.events)
            if isinstance(event, yaml.DocumentStartEvent):
                self.result.value = self.compose(next(self.events), ())
                next(self.events)  # DocumentEnd
                event = next(self.events)
            if isinstance(event, yaml.DocumentStartEvent):
                raise _fatal(self.origin(event), "a second document starts here; a config is one document")
        except yaml.MarkedYAMLError as error:
            if (place := self.too_deep(error.problem_mark)) is not None:
                raise self.nested(place) from None
            if error.problem in _IN_OTHER_WORDS:
                raise _fatal(
                    self.mark(error.context_mark or error.problem_mark), _IN_OTHER_WORDS[error.problem]
                ) from None
            what = ", ".join(part for part in (error.context, error.problem) if part)
            raise _fatal(self.mark(error.problem_mark or error.context_mark), f"not YAML: {what}") from None
        except yaml.YAMLError as error:
            raise _fatal(Origin(self.name), f"not YAML: {error}") from None
        return self.result

    def mark(self, mark: Any) -> Origin:
        if not self.lines or mark is None:
            return Origin(self.name)
        return Origin(self.name, mark.line + 1, mark.column + 1)

    def origin(self, event: Any) -> Origin:
        return self.mark(event.start_mark)

    def problem(self, event: Any, path: Path, message: str) -> None:
        key = ".".join(map(str, path))
        self.result.problems.append((path, Problem(self.origin(event), key, message)))
        if len(self.result.problems) >= MAX_PROBLEMS:
            raise ConfigError([problem for _, problem in self.result.problems])

    def compose(self, event: Any, path: Path) -> Any:
        """The value that starts with `event`; all of its events are taken from the stream."""
        # The parser places an empty value (`H:`) at the next word; we place it at its key.
        nothing = isinstance(event, yaml.ScalarEvent) and not event.value and not event.style
        own = self.origin(event)
        if len(self.result.origins) > MAX_VALUES:
            raise _fatal(own, f"over {MAX_VALUES} values; a config has fewer")
        self.result.origins[path] = self.result.key_origins.get(path, own) if nothing else own
        self.refuse_references(event)
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path)
        if len(path) >= MAX_DEPTH:
            raise self.nested(event.start_mark)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        return self.mapping(path)

    def too_deep(self, end: Any) -> Any:
        """The mark of the first value before the mark `end` that is nested too deep; None if there is none.

        The scanner of libyaml runs ahead of its events, and newer ones have a limit of their own: the text up to their
        error has to be looked at for ours.
        """
        depth = 0
        with suppress(yaml.YAMLError):
            for event in yaml.parse(self.text[: end.index] if end is not None else self.text, Loader=_Loader):
                if isinstance(event, yaml.CollectionStartEvent):
                    depth += 1
                    if depth > MAX_DEPTH:
                        return event.start_mark
                elif isinstance(event, yaml.CollectionEndEvent):
                    depth -= 1
        return None

    def nested(self, mark: Any) -> ConfigError:
        return _fatal(self.mark(mark), f"nested more than {MAX_DEPTH} deep")

    def refuse_references(self, event: Any) -> None:
        """Refuse anchors and aliases, with which a kilobyte can stand for a terabyte, and tags, which name types."""
        if event.anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            message = f"anchors and aliases ({sign}{event.anchor}) are not supported; write the value out"
            raise _fatal(self.origin(event), message)
        if getattr(event, "tag", None) is not None:
            raise _fatal(self.origin(event), f"tags ({event.tag}) are not supported; write only the value")

    def text_of(self, event: yaml.ScalarEvent) -> str:
        """The text of a scalar. Only in double quotes is the escape of a byte one."""
        text: str = event.value
        if not self.has_bytes:
            return text
        is_quoted = event.style == '"'
        return _STAND_IN.sub(
            lambda found: chr(ord(found[0]) - _AWAY) if is_quoted else f"\\u{ord(found[0]) - _AWAY:x}", text
        )

    def scalar(self, event: yaml.ScalarEvent, path: Path) -> Any:
        if event.style:  # quoted, literal or folded: always text
            return self.text_of(event)
        try:
            return resolve(self.text_of(event))
        except ValueError:
            self.problem(event, path, f"a number of {len(event.value)} digits is too long")
            return None

    def sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.compose(event, (*path, len(items))))
        return items

    def mapping(self, path: Path) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            self.refuse_references(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise _fatal(self.origin(event), "a key must be a plain word")
            key = self.text_of(event)
            at = (*path, key)
            if len(items) >= MAX_KEYS:
                raise _fatal(self.origin(event), f"over {MAX_KEYS} keys; a config has fewer")
            if key == "<<" and not event.style:
                raise _fatal(self.origin(event), "merge keys are not supported; write the keys out")
            if key in items:
                first = self.result.key_origins[at]
                self.problem(event, at, f"given twice; the first is at {first.place}")
            else:
                self.result.key_origins[at] = self.origin(event)
            items[key] = self.compose(next(self.events), at)
        return items
