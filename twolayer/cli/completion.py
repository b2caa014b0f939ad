"""Completion in the shell: runs, configs, tables, columns, and the values of options.

It reads folders, and opens a file for the names of its columns alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from twolayer.config import loading
from twolayer.config.bundled import bundled
from twolayer.config.from_table import column_names
from twolayer.config.schema import KEYS, SOURCES, Config
from twolayer.runs.names import RUNS, is_saved
from twolayer.tables.options import FileData, is_table

VARIABLE = "_TWOLAYER_COMPLETE"  # set by a shell's completion script
_DEVICES = ("auto", "cpu", "cuda", "mps")
_PLAIN = re.compile(r"[\w.+@%,-]+")  # names that a shell takes without quotes; others are left to the shell

_key = ""  # of `--set key=value`, where bash completes the value alone


def answer(app: typer.Typer) -> int:
    """Print the candidates for the command line that a completion script gives; the exit code. Prints no errors."""
    with suppress(Exception):
        _join_words()
        try:
            app(prog_name="twolayer", standalone_mode=False)
        except SystemExit as end:
            return int(end.code or 0)
    return 1


def _join_words() -> None:
    """Undo bash's splitting of words at `=`: `--set lr=au` comes as `--set`, `lr`, `=`, `au`.

    Bash replaces the part after the last `=` only. That part becomes the word to complete, and what is before it the
    option and the key.
    """
    global _key
    words = os.environ.get("COMP_WORDS", "").split("\n")
    if len(words) == 1:
        return
    joined = list[str]()
    for word in words[: int(os.environ["COMP_CWORD"]) + 1]:
        if joined and (word == "=" or joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    before, is_split, last = joined.pop().rpartition("=")
    if before.startswith("--"):
        option, _, before = before.partition("=")
        joined.append(option)
    _key = before if is_split else ""
    os.environ["COMP_WORDS"] = "\n".join([*joined, last])
    os.environ["COMP_CWORD"] = str(len(joined))


def runs(incomplete: str) -> list[str]:
    """The runs in runs/ by name; elsewhere by path."""
    names = list[str]()
    if "/" not in incomplete:
        with suppress(OSError):
            names = [entry.name for entry in RUNS.iterdir() if is_saved(entry)]
    plain = sorted(name for name in names if _PLAIN.fullmatch(name))
    return plain or _paths(incomplete, lambda entry: is_saved(Path(entry)))


def models(incomplete: str) -> list[str]:
    """The runs, and the model files in a folder."""
    files = _paths(incomplete, lambda entry: entry.name.endswith(".safetensors"))
    return [*runs(incomplete), *(path for path in files if not path.endswith("/"))]


def configs(incomplete: str) -> list[str]:
    """The bundled configs, and the YAML files and tables in a folder."""
    return [*bundled(), *_paths(incomplete, lambda entry: _is_yaml(entry.name) or is_table(entry.name))]


def configs_and_runs(incomplete: str) -> list[str]:
    """The configs and tables, and the runs."""
    return list(dict.fromkeys([*runs(incomplete), *configs(incomplete)]))


def bundled_configs() -> list[str]:
    """The bundled configs."""
    return list(bundled())


def tables(incomplete: str) -> list[str]:
    """The tables in a folder."""
    return _paths(incomplete, lambda entry: is_table(entry.name))


def tables_and_configs(incomplete: str) -> list[str]:
    """The tables and the YAML files in a folder."""
    return _paths(incomplete, lambda entry: _is_yaml(entry.name) or is_table(entry.name))


def columns(context: typer.Context, incomplete: str) -> list[str]:
    """The columns of the table that the command line names so far; after a comma they stand for one more."""
    # The parser gives up at the option that has no value yet, and leaves all that was typed in `args`.
    named = (context.params.get("config"), context.params.get("path"), *context.args)
    source = next((text for text in named if isinstance(text, str) and (is_table(text) or _is_yaml(text))), None)
    if source is None:
        return []
    target = [loading.Override(("data", "target"), "any", "--target")]
    data = loading.resolve(source, overrides=target, read=False).config.data
    if not isinstance(data, FileData):
        return []
    names = column_names(data)
    before, comma, start = incomplete.rpartition(",")
    given = before.split(",")
    plain = (name for name in names if _PLAIN.fullmatch(name) and "," not in name and name not in given)
    return [f"{before}{comma}{name}" for name in plain if name.startswith(start)]


def values(key: str) -> Callable[[], list[str]]:
    """A function that gives the allowed values of a key, if they are few."""
    return lambda: _values(key)


def settings(incomplete: str) -> list[str]:
    """For `--set`: the keys, or, when only one is left, its allowed values."""
    if _key:
        return _values(_key)
    names = _settable()
    key, is_whole, _ = incomplete.partition("=")
    found = [name for name in names if (name == key if is_whole else name.startswith(key))]
    if len(found) != 1:
        return [f"{name}=" for name in found]
    # Never a single candidate that ends with `=`: the shell would add a space to it.
    return [f"{found[0]}={value}" for value in ("", *(_values(found[0]) or ["..."]))]


def swept(incomplete: str) -> list[str]:
    """For `--sweep`: the keys, or, when only one is left, its allowed values, after a comma one more."""
    if not _key and "," not in incomplete:
        return settings(incomplete)
    key, is_set, given = (_key, "", incomplete) if _key else incomplete.partition("=")
    before, comma, start = given.rpartition(",")
    others = before.split(",")
    rest = [value for value in _values(key) if value.startswith(start) and value not in others]
    return [f"{'' if _key else key + is_set}{before}{comma}{value}" for value in rest]


def _settable() -> list[str]:
    """The keys that `--set` takes."""
    names = [*KEYS, *dict.fromkeys(f"data.{name}" for model in SOURCES.values() for name in model.model_fields)]
    names.remove("data")  # set by its parts
    return names


def _is_yaml(name: str) -> bool:
    return name.lower().endswith((".yaml", ".yml"))


def _values(key: str) -> list[str]:
    if key == "device":
        return list(_DEVICES)
    if key == "data.source":
        return list(SOURCES)
    outer, _, inner = key.partition(".")
    models = SOURCES.values() if outer == "data" and inner else (Config,)
    fields = [model.model_fields.get(inner or outer) for model in models]
    return list(dict.fromkeys(value for field in fields if field for value in _literals(field.annotation)))


def _literals(annotation: Any) -> Iterator[str]:
    """The words that a type allows."""
    if annotation is bool:
        yield from ("true", "false")
    elif get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _literals(part)
    elif get_origin(annotation) is Annotated:
        yield from _literals(get_args(annotation)[0])


def _paths(incomplete: str, is_wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    """The wanted entries of a folder that start with a text, and its subfolders; of a single subfolder its entries."""
    folder, slash, start = incomplete.rpartition("/")
    wanted, others = list[str](), list[str]()
    with suppress(OSError, ValueError), os.scandir(Path(f"{folder}{slash}" or ".").expanduser()) as entries:
        for entry in entries:
            is_hidden = entry.name.startswith(".") and not start.startswith(".")
            if not entry.name.startswith(start) or is_hidden or not _PLAIN.fullmatch(entry.name):
                continue
            if is_wanted(entry):
                wanted.append(f"{folder}{slash}{entry.name}")
            elif entry.is_dir():
                others.append(f"{folder}{slash}{entry.name}/")
    if not wanted and len(others) == 1:  # alone the shell would add a space to it
        return _paths(others[0], is_wanted)
    return sorted(wanted + others)
