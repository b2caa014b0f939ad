"""The layout: docs/design.md shows it as it is, and no part of it grows too large to be read at once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import twolayer

PACKAGE = Path(twolayer.__file__).parent
DESIGN = PACKAGE.parent / "docs" / "design.md"
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 310, 60


def shown() -> Iterator[str]:
    """The paths in the tree that docs/design.md draws, folders with a slash at their end."""
    tree = re.search(r"```\ntwolayer/\n(.*?)```", DESIGN.read_text(), flags=re.S)
    assert tree is not None
    folders: list[str] = []
    for line in tree[1].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip()) - 2) // 2
        folders[depth:] = [name] if name.endswith("/") else []
        yield "".join([*folders[:depth], name])


def test_the_tree_in_the_docs_is_the_real_one() -> None:
    drawn = list(shown())
    closed = {path for path in drawn if path.endswith("/") and not any(p.startswith(path) for p in drawn if p != path)}
    real = {str(path.relative_to(PACKAGE)) for path in MODULES if path.name != "__init__.py" or path.parent == PACKAGE}
    real = {path for path in real if not any(path.startswith(folder) for folder in closed)}
    assert {path for path in drawn if not path.endswith("/")} == real
    assert len(set(drawn)) == len(drawn)
    assert {path for path in drawn if path.endswith("/")} == {
        f"{path.relative_to(PACKAGE)}/"
        for path in PACKAGE.rglob("[!_]*")
        if path.is_dir() and any(path.glob("[!_]*.*"))
    }


def test_the_top_folder_holds_twelve_packages_and_at_most_eight_files() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert sum(path.is_dir() for path in entries) == 12
    assert sum(path.is_file() for path in entries) <= 8


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_and_no_function_is_too_long_to_be_read_at_once(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= LINES_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < LINES_OF_A_FUNCTION, node.name
